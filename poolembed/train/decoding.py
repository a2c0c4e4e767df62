"""Audio files to rows of the cache, in threads."""

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
from poolembed.train.shards import Excerpt, Shards

_LONG = 600.0
"""Seconds from which a excerpt is decoded by itself, block by block, and not cut out of its file with the others."""


class _StoppedError(Exception):
    """The fill is to end."""


class Decoding:
    """The threads of one fill: each decodes one file, and adds each excerpt of it to the shards.

    Args:
        levels: makes rows of the samples of an excerpt.
        sample_rate: of the samples, in Hz.
        shards: where the rows go.
        done: told of every excerpt that is decoded or has failed, from any thread but one at a time.
        stop: once set, no further block is decoded.
    """

    def __init__(
        self,
        levels: Callable[[Iterator[NDArray[np.float32]]], Iterator[NDArray[np.uint8]]],
        sample_rate: int,
        shards: Shards,
        done: Callable[[Excerpt], None],
        stop: threading.Event,
    ) -> None:
        self._levels, self._rate, self._shards, self._done, self._stop = levels, sample_rate, shards, done, stop
        self._turn, self._abort = threading.Lock(), threading.Event()

    def run(self, missing: Sequence[Excerpt], workers: int) -> dict[Excerpt, str]:
        """Decode everything; the excerpts that cannot be, and why."""
        files: dict[str, list[Excerpt]] = {}
        for excerpt in missing:
            files.setdefault(excerpt.path, []).append(excerpt)
        failed: dict[Excerpt, str] = {}
        with exact_and_single_threaded(), ThreadPoolExecutor(workers) as pool:
            # The largest files first, so that no core is left alone with one at the end.
            ordered = sorted(files.values(), key=lambda excerpts: -excerpts[0].size)
            futures = [pool.submit(self._file, excerpts) for excerpts in ordered]
            try:
                for future in as_completed(futures):
                    failed.update(future.result())
            finally:
                self._abort.set()
                pool.shutdown(cancel_futures=True)
        return failed

    def _file(self, excerpts: Sequence[Excerpt]) -> dict[Excerpt, str]:
        short = [e for e in excerpts if e.end is not None and e.end - e.start <= _LONG]
        long = [e for e in excerpts if e.end is None or e.end - e.start > _LONG]
        failed: dict[Excerpt, str] = {}
        with suppress(_StoppedError):
            if short:
                failed.update(self._together(short))
            for excerpt in long:
                failed.update(self._by_itself(excerpt))
        for excerpt in failed:
            self._tell(excerpt)
        return failed

    def _by_itself(self, excerpt: Excerpt) -> dict[Excerpt, str]:
        """Decode one excerpt block by block: in memory are its levels, a tenth of its samples."""
        try:
            with open_source(excerpt.path, self._rate) as song:
                first = round(excerpt.start * self._rate)
                last = None if excerpt.end is None else round(excerpt.end * self._rate)
                self._add(excerpt, _part(song.blocks(), first, last), lambda: song.note)
        except AudioError as error:
            return {excerpt: error.message}
        return {}

    def _together(self, excerpts: list[Excerpt]) -> dict[Excerpt, str]:
        """Decode short excerpts of one file in one pass."""
        left = dict(enumerate(excerpts))
        failed: dict[Excerpt, str] = {}
        try:
            spans = [(excerpt.start, excerpt.end) for excerpt in excerpts]
            for index, samples in read_excerpts(excerpts[0].path, self._rate, spans):
                excerpt = left.pop(index)
                try:
                    self._add(excerpt, iter([samples]), lambda: None)
                except AudioError as error:
                    failed[excerpt] = error.message
        except AudioError as error:
            failed.update(dict.fromkeys(left.values(), error.message))
        return failed

    def _add(self, excerpt: Excerpt, blocks: Iterator[NDArray[np.float32]], note: Callable[[], str | None]) -> None:
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

        levels = np.concatenate(list(self._levels(counted())))
        seconds = samples / self._rate
        remarks = [note()]
        if excerpt.end is not None and excerpt.end - excerpt.start - seconds > 0.1:
            remarks.append(f"ends early: {seconds:.1f} s of {excerpt.end - excerpt.start:.1f} s decoded")
        self._shards.add(excerpt, levels, seconds, "; ".join(filter(None, remarks)) or None)
        self._tell(excerpt)

    def _tell(self, excerpt: Excerpt) -> None:
        with self._turn:
            self._done(excerpt)


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


def guess_seconds(excerpts: Sequence[Excerpt]) -> float:
    """Seconds that excerpts last, or less: by start and end, else by the file's header, else by its size as an MP3."""
    whole = [s for s in excerpts if s.end is None]
    known = sum(s.end - s.start for s in excerpts if s.end is not None)
    sample = whole[:: max(1, len(whole) // _SAMPLE)]
    heard = sum(max(_header_seconds(s) - s.start, 0) for s in sample)
    size = sum(s.size for s in sample)
    return known + (heard / size * sum(s.size for s in whole) if size else 0)


def _header_seconds(excerpt: Excerpt) -> float:
    if os.path.splitext(excerpt.path)[1].lower() in _STORED:  # noqa: PTH122 - a name that is no text
        try:
            with open(excerpt.path, "rb") as file:  # noqa: PTH123 - soundfile takes no name that is no text
                info = soundfile.info(file)
        except (soundfile.LibsndfileError, OSError):
            return 0.0
        return float(info.frames / info.samplerate)
    return excerpt.size / _MP3_320
