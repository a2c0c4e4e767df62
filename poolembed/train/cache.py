"""Log-mels of clips, decoded once, as bytes mapped into memory: epochs do not decode, and data may exceed memory.

A frame is stored as levels of `STEP` nats (0.35 dB of power) above the front end's floor, one byte a band. Level 0 is
silence, and so is what a crop is padded with.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poolembed.embed.windows import WindowShape, cut_windows
from poolembed.errors import AudioError, OutputError
from poolembed.labels import Clip
from poolembed.nn.frontend import LogMel
from poolembed.text import size
from poolembed.train.decoding import Decoding, Progress, guess_seconds
from poolembed.train.store import ROWS, Entry, Store, Stretch, alone, check_disk

STEP = 0.08
"""Nats of power per level: 255 of them reach from the floor to past full scale."""

VERSION = 1

_CHUNK = 256
"""Frames that are computed at a time."""


def quantise(log_mel: Tensor, log_floor: float) -> Tensor:
    """Levels, uint8, of log-mel power; `log_floor` is the floor as power (`FrontendConfig.log_floor`)."""
    return ((log_mel - math.log(log_floor)) / STEP).round().clamp(0, 255).to(torch.uint8)


def dequantise(levels: Tensor, log_floor: float) -> Tensor:
    """Log-mel power, float32, of levels: within ``STEP / 2`` of what was quantised, the floor exactly at level 0."""
    # One pass: what a step is given is page-faulted in anew every time, and that is what this costs.
    return torch.add(torch.tensor(math.log(log_floor), device=levels.device), levels, alpha=STEP)


@dataclass
class Filled:
    """What `MelCache.fill` did, clip by clip in the order given.

    Attributes:
        rows: row in the cache; None for a clip that failed, or that was not reached before the stop.
        content: hash of its frames, the same for clips that sound the same; "" where there is no row.
        seconds: decoded audio; 0 where there is no row.
        failed: key -> why the clip cannot be used.
        notes: key -> what was wrong with a clip though it was decoded ("truncated: …").
    """

    rows: list[int | None]
    content: list[str]
    seconds: list[float]
    failed: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


class MelCache:
    """Log-mels of clips on disk. Made once a run; `fill` it, then read from any thread.

    The cache of each front end is a folder of its own below the directory. Clips are found again by path, size and
    modification time of the file, start and end, whatever their labels; a file that changed is decoded again. A killed
    fill goes on where it stopped, and of two runs the second waits until the first has filled.

    Args:
        directory: of the cache; it is made when it is filled.
        frontend: what makes log-mels; it is copied.
        before: also keep the frames before a clip that reach its samples, for an encoder with context sees them. The
            folder is another one then.
    """

    def __init__(self, directory: str | os.PathLike[str], frontend: LogMel, *, before: bool = False) -> None:
        self.config = frontend.config
        self._frontend = copy.deepcopy(frontend).to("cpu", torch.float32).eval()
        # The frames before the first and after the last that still reach samples of the clip: what an encoder sees
        # beside its edges.
        self._tail = -(-(self.config.n_fft // 2) // self.config.hop_length)
        self._head = self._tail - 1 if before else 0
        header = {
            "poolembed_cache": VERSION,
            "frontend": msgspec.to_builtins(self.config),
            "filterbank": hashlib.sha256(self._frontend.filterbank.numpy().tobytes()).hexdigest(),
            "step": STEP,
            "tail": self._tail,
        }
        if before:
            header["head"] = self._head
        self._header = header
        name = hashlib.sha256(msgspec.json.encode(header, order="sorted")).hexdigest()[:16]
        self.directory = Path(directory)
        self.folder = self.directory / name
        self._rows: dict[Stretch, int] = {}
        self._entries: list[Entry] = []
        self._map: NDArray[np.uint8] = np.zeros((0, self.n_mels), np.uint8)

    @property
    def n_mels(self) -> int:
        """Bands of a frame."""
        return self.config.n_mels

    @property
    def log_floor(self) -> float:
        """Power of level 0."""
        return self.config.log_floor

    def frames(self, row: int) -> int:
        """Mel frames of a clip."""
        return self._entries[row].rows - self._head - self._tail

    def clip(self, row: int) -> NDArray[np.uint8]:
        """Levels of a clip, ``(frames, n_mels)``: a view of the memory map."""
        return self.with_edges(row)[self._head : -self._tail]

    def write(self, out: NDArray[np.uint8], row: int, start: int) -> None:
        """Write levels of a clip from a frame on, which may lie before the clip, into zeros ``(n, n_mels)``.

        Around the clip is what embedding has there: the few frames that still reach its samples (before it, only if
        those are kept), then silence.
        """
        begin = start + self._head
        piece = self.with_edges(row)[max(begin, 0) : max(begin + len(out), 0)]
        first = max(-begin, 0)
        out[first : first + len(piece)] = piece

    def with_edges(self, row: int) -> NDArray[np.uint8]:
        """As `clip`, with the few frames before and after it that are not silent, for they still reach its samples."""
        entry = self._entries[row]
        return self._map[entry.offset : entry.offset + entry.rows]

    def content(self, row: int) -> str:
        """Hash of a clip's frames."""
        return self._entries[row].content

    def fill(
        self,
        clips: Sequence[Clip],
        *,
        workers: int,
        limit_gb: float,
        watch: Callable[[int, int], None] = lambda done, total: None,
        stop: threading.Event | None = None,
    ) -> Filled:
        """Decode the clips that are not in the cache yet.

        Args:
            clips: any; those of one file are decoded in one pass.
            workers: threads.
            limit_gb: largest size of the cache, in 10^9 bytes.
            watch: told, from any thread but one at a time, how many clips are done (failed ones too), of how many.
            stop: once set, the fill ends early; what is done is kept.

        Raises:
            OutputError: the cache cannot be written or does not fit the disk or the limit; what is done is kept.
        """
        stop = stop or threading.Event()
        wanted: dict[Stretch, list[int]] = {}
        lost: dict[int, str] = {}
        failed: dict[Stretch, str] = {}
        for index, clip in enumerate(clips):
            try:
                path = os.path.abspath(clip.path)  # noqa: PTH100 - Path would tidy names that only look alike
                status = os.stat(path)  # noqa: PTH116 - nor refuse a NUL in the same way
            except (OSError, ValueError) as error:
                lost[index] = f"cannot be opened: {getattr(error, 'strerror', None) or error}"
                continue
            stretch = Stretch(path, status.st_size, status.st_mtime_ns, clip.start, clip.end)
            wanted.setdefault(stretch, []).append(index)
        with alone(self.folder, stop) as mine:
            if mine:
                with Store(self.folder, self._header, self.n_mels) as store:
                    missing = {stretch: len(wanted[stretch]) for stretch in wanted if stretch not in store.entries}
                    self._check_room(store, list(missing), limit_gb)
                    progress = Progress(watch, len(clips), missing)
                    decoding = Decoding(
                        self.levels, self.config.sample_rate, store, int(limit_gb * 1e9), progress, stop
                    )
                    failed = decoding.run(list(missing), workers)
                    found = {stretch: store.entries[stretch] for stretch in wanted if stretch in store.entries}
                self._take(found)
        filled = Filled([None] * len(clips), [""] * len(clips), [0.0] * len(clips))
        for stretch, indices in wanted.items():
            row = self._rows.get(stretch)
            for index in indices:
                if stretch in failed:
                    filled.failed[clips[index].key] = failed[stretch]
                if row is None:
                    continue
                entry = self._entries[row]
                filled.rows[index], filled.content[index], filled.seconds[index] = row, entry.content, entry.seconds
                if entry.note is not None:
                    filled.notes[clips[index].key] = entry.note
        filled.failed.update({clips[index].key: reason for index, reason in lost.items()})
        return filled

    def levels(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.uint8]]:
        """Levels of a clip with its edges, ``(n, n_mels)`` at a time, from its samples.

        Raises:
            AudioError: the samples are too large for a spectrum.
        """
        before, after = (np.zeros(n * self.config.hop_length, np.float32) for n in (self._head, self._tail))
        shape = WindowShape(_CHUNK, self.config.hop_length, self.config.n_fft)
        for window in cut_windows(chain([before], blocks, [after]), shape):
            # Not around the yield: an abandoned generator may be closed in a thread whose mode this is not.
            with torch.inference_mode():
                mel = self._frontend(torch.from_numpy(window.samples).unsqueeze(0))[0, : window.frames]
                levels = quantise(mel, self.log_floor).numpy()
                finite = bool(mel.isfinite().all())
            if not finite:
                raise AudioError("samples too large for a spectrum")
            yield levels

    def _take(self, found: dict[Stretch, Entry]) -> None:
        """Number the entries and map the file as it is now."""
        for stretch, entry in found.items():
            if stretch not in self._rows:
                self._rows[stretch] = len(self._entries)
                self._entries.append(entry)
        if self._entries:
            size = max(entry.offset + entry.rows for entry in self._entries)
            # As a plain array: slicing a np.memmap takes ten times as long.
            self._map = np.asarray(np.memmap(self.folder / ROWS, np.uint8, mode="r", shape=(size, self.n_mels)))

    def _check_room(self, store: Store, missing: Sequence[Stretch], limit_gb: float) -> None:
        """Raise if the clips will not fit, by what is known of their lengths, before hours are spent on them."""
        per_second = self.n_mels * self.config.sample_rate / self.config.hop_length
        needed = per_second * guess_seconds(missing)
        if store.size + needed > limit_gb * 1e9:
            raise OutputError(
                f"the log-mels of {len(missing)} clips need about {size(needed)}, and the cache {self.folder}, "
                f"which holds {size(store.size)}, may grow to {size(limit_gb * 1e9)}",
                hint="raise --cache-limit, or name an empty directory with --cache if it holds clips of other runs",
            )
        check_disk(self.folder, needed, f"the log-mels of {len(missing)} clips")
