"""Audio files to rows of a store, in threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress

import numpy as np
import soundfile
from numpy.typing import NDArray

from poolembed.audio.excerpt import read_excerpts
from poolembed.audio.source import open_source
from poolembed.embed.device import exact_and_single_threaded
from poolembed.errors import AudioError
from poolembed.train.store import Entry, Store, Stretch

_LONG = 600.0
"""Seconds from which a stretch is decoded by itself, block by block, and not cut out of its file with the others."""


class _StoppedError(Exception):
    """The fill is to end."""


class Progress:
    """Counts clips and tells how many are done.

    Args:
        watch: told how many are done, of how many.
        total: clips of the run.
        clips: how many clips each stretch that is to be decoded stands for; all others are done already.
    """

    def __init__(self, watch: Callable[[int, int], None], total: int, clips: dict[Stretch, int]) -> None:
        self._watch = watch
        self._total = total
        self._clips = clips
        self._done = total - sum(clips.values())
        self._lock = threading.Lock()
        watch(self._done, total)

    def done(self, stretch: Stretch) -> None:
        """A stretch is decoded, or failed."""
        with self._lock:
            self._done += self._clips[stretch]
            self._watch(self._done, self._total)


class Decoding:
    """The threads of one fill: each decodes one file, and adds each of its stretches to the store when it is whole.

    Args:
        levels: makes rows of the samples of a stretch.
        sample_rate: of the samples, in Hz.
        store: where the rows go.
        limit: bytes it may hold.
        progress: told of every stretch.
        stop: once set, no further block is decoded.
    """

    def __init__(
        self,
        levels: Callable[[Iterator[NDArray[np.float32]]], Iterator[NDArray[np.uint8]]],
        sample_rate: int,
        store: Store,
        limit: int,
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        self._levels = levels
        self._rate = sample_rate
        self._store = store
        self._limit = limit
        self._progress = progress
        self._stop = stop
        self._abort = threading.Event()

    def run(self, missing: Sequence[Stretch], workers: int) -> dict[Stretch, str]:
        """Decode everything; the stretches that cannot be, and why."""
        files: dict[str, list[Stretch]] = {}
        for stretch in missing:
            files.setdefault(stretch.path, []).append(stretch)
        failed: dict[Stretch, str] = {}
        with exact_and_single_threaded(), ThreadPoolExecutor(workers) as pool:
            # The largest files first, so that no core is left alone with one at the end.
            ordered = sorted(files.values(), key=lambda stretches: -stretches[0].size)
            futures = [pool.submit(self._file, stretches) for stretches in ordered]
            try:
                for future in as_completed(futures):
                    failed.update(future.result())
            finally:
                self._abort.set()
                pool.shutdown(cancel_futures=True)
        return failed

    def _file(self, stretches: Sequence[Stretch]) -> dict[Stretch, str]:
        short = [s for s in stretches if s.end is not None and s.end - s.start <= _LONG]
        long = [s for s in stretches if s.end is None or s.end - s.start > _LONG]
        failed: dict[Stretch, str] = {}
        with suppress(_StoppedError):
            if short:
                failed.update(self._together(short))
            for stretch in long:
                failed.update(self._by_itself(stretch))
        for stretch in failed:
            self._progress.done(stretch)
        return failed

    def _by_itself(self, stretch: Stretch) -> dict[Stretch, str]:
        """Decode one stretch in constant memory, however long it is."""
        try:
            with open_source(stretch.path, self._rate) as song:
                first = round(stretch.start * self._rate)
                last = None if stretch.end is None else round(stretch.end * self._rate)
                self._add(stretch, _part(song.blocks(), first, last), lambda: song.note)
        except AudioError as error:
            return {stretch: error.message}
        return {}

    def _together(self, stretches: list[Stretch]) -> dict[Stretch, str]:
        """Decode short stretches of one file in one pass."""
        left = dict(enumerate(stretches))
        failed: dict[Stretch, str] = {}
        try:
            spans = [(stretch.start, stretch.end) for stretch in stretches]
            for index, samples in read_excerpts(stretches[0].path, self._rate, spans):
                stretch = left.pop(index)
                try:
                    self._add(stretch, iter([samples]), lambda: None)
                except AudioError as error:
                    failed[stretch] = error.message
        except AudioError as error:
            failed.update(dict.fromkeys(left.values(), error.message))
        return failed

    def _add(self, stretch: Stretch, blocks: Iterator[NDArray[np.float32]], note: Callable[[], str | None]) -> None:
        samples = 0

        def counted() -> Iterator[NDArray[np.float32]]:
            nonlocal samples
            for block in blocks:
                if self._abort.is_set() or self._stop.is_set():
                    raise _StoppedError
                samples += len(block)
                yield block
            if not samples:
                raise AudioError("no audio samples in it")

        def entry(offset: int, rows: int, content: str) -> Entry:
            seconds = samples / self._rate
            remarks = [note()]
            if stretch.end is not None and stretch.end - stretch.start - seconds > 0.1:
                remarks.append(f"ends early: {seconds:.1f} s of {stretch.end - stretch.start:.1f} s decoded")
            return Entry(stretch, offset, rows, content, seconds, "; ".join(filter(None, remarks)) or None)

        self._store.add(self._levels(counted()), entry, self._limit)
        self._progress.done(stretch)


def _part(blocks: Iterator[NDArray[np.float32]], first: int, last: int | None) -> Iterator[NDArray[np.float32]]:
    """Samples ``[first, last)`` of a signal in blocks."""
    done = 0
    for block in blocks:
        piece = block[max(first - done, 0) : None if last is None else max(last - done, 0)]
        done += len(block)
        if len(piece):
            yield piece
        if last is not None and done >= last:
            return
    if done <= first:
        raise AudioError(f"starts past the end: there are {done} samples of audio in it")


# Files whose header can be read without decoding, and bytes per second of the others at least.
_STORED = frozenset({".wav", ".wave", ".flac", ".aif", ".aiff", ".aifc", ".w64", ".caf", ".au"})
_MP3_320 = 40_000
_SAMPLE = 256


def guess_seconds(stretches: Sequence[Stretch]) -> float:
    """Seconds that stretches last, or less: by start and end, else by the file's header, else by its size as an MP3."""
    whole = [s for s in stretches if s.end is None]
    known = sum(s.end - s.start for s in stretches if s.end is not None)
    sample = whole[:: max(1, len(whole) // _SAMPLE)]
    heard = sum(max(_header_seconds(s) - s.start, 0) for s in sample)
    size = sum(s.size for s in sample)
    return known + (heard / size * sum(s.size for s in whole) if size else 0)


def _header_seconds(stretch: Stretch) -> float:
    if os.path.splitext(stretch.path)[1].lower() in _STORED:  # noqa: PTH122 - a name that is no text
        try:
            with open(stretch.path, "rb") as file:  # noqa: PTH123 - soundfile takes no name that is no text
                info = soundfile.info(file)
        except (soundfile.LibsndfileError, OSError):
            return 0.0
        return float(info.frames / info.samplerate)
    return stretch.size / _MP3_320
