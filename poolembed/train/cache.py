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
from contextlib import closing
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
from poolembed.train.decoding import Decoding, guess_seconds
from poolembed.train.shards import Entry, Excerpt, Shards, alone, check_disk, read_shard, writing_cache

STEP = 0.08
"""Nats of power per level: 255 of them reach from the floor to past full scale."""

VERSION = 2
"""Of the files; another version is another folder."""

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
    modification time of the file, start and end, whatever their labels; a file that changed is decoded again. What a
    killed fill had written stays, and of two runs the second waits until the first has filled.

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
        self._rows: dict[Excerpt, int] = {}
        self._entries: list[Entry] = []
        self._shards: dict[int, NDArray[np.uint8]] = {}  # by number
        self._levels: list[NDArray[np.uint8]] = []  # of each entry, with its edges

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
        return len(self._levels[row]) - self._head - self._tail

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
        return self._levels[row]

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
        filled = Filled([None] * len(clips), [""] * len(clips), [0.0] * len(clips))
        wanted: dict[Excerpt, list[int]] = {}
        failed: dict[Excerpt, str] = {}
        for index, clip in enumerate(clips):
            try:
                wanted.setdefault(Excerpt.of(clip), []).append(index)
            except (OSError, ValueError) as error:
                filled.failed[clip.key] = f"cannot be opened: {getattr(error, 'strerror', None) or error}"
        with alone(self.folder, stop) as mine:
            if mine:
                with writing_cache(self.folder):
                    shards = Shards(self.folder, self.n_mels, int(limit_gb * 1e9))
                missing = [excerpt for excerpt in wanted if excerpt not in shards.found]
                self._check_room(shards, missing, limit_gb)
                count = len(clips) - sum(len(wanted[excerpt]) for excerpt in missing)

                def done(excerpt: Excerpt) -> None:
                    nonlocal count
                    count += len(wanted[excerpt])
                    watch(count, len(clips))

                watch(count, len(clips))
                with closing(shards):
                    decoding = Decoding(self.levels, self.config.sample_rate, shards, done, stop)
                    failed = decoding.run(missing, workers)
                self._take({excerpt: shards.found[excerpt] for excerpt in wanted if excerpt in shards.found})
        for excerpt, indices in wanted.items():
            row = self._rows.get(excerpt)
            for index in indices:
                if excerpt in failed:
                    filled.failed[clips[index].key] = failed[excerpt]
                if row is None:
                    continue
                entry = self._entries[row]
                filled.rows[index], filled.content[index], filled.seconds[index] = row, entry.content, entry.seconds
                if entry.note is not None:
                    filled.notes[clips[index].key] = entry.note
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

    def _take(self, found: dict[Excerpt, tuple[int, Entry]]) -> None:
        """Number the entries, and map their shards."""
        for excerpt, (shard, entry) in found.items():
            if excerpt in self._rows:
                continue
            if shard not in self._shards:
                self._shards[shard] = read_shard(self.folder, shard, self.n_mels)
            self._rows[excerpt] = len(self._entries)
            self._entries.append(entry)
            self._levels.append(self._shards[shard][entry.first : entry.first + entry.rows])

    def _check_room(self, shards: Shards, missing: Sequence[Excerpt], limit_gb: float) -> None:
        """Raise if the clips will not fit, by what is known of their lengths, before hours are spent on them."""
        per_second = self.n_mels * self.config.sample_rate / self.config.hop_length
        needed = per_second * guess_seconds(missing)
        if shards.size + needed > limit_gb * 1e9:
            raise OutputError(
                f"the log-mels of {len(missing)} clips need about {size(needed)}, and the cache {self.folder}, "
                f"which holds {size(shards.size)}, may grow to {size(limit_gb * 1e9)}",
                hint="raise --cache-limit, or name an empty directory with --cache if it holds clips of other runs",
            )
        check_disk(self.folder, needed, f"the log-mels of {len(missing)} clips")
