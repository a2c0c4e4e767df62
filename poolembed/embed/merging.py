"""Putting the states of a song's windows together, in the order of its windows."""

from __future__ import annotations

import threading

import numpy as np
import torch
from torch import Tensor

from poolembed.embed.song import Segments
from poolembed.nn.model import SongModel, State

GROUP = 64
"""States merged at once. Groups start at fixed places in a song, so the order of the arithmetic, and with it every bit
of the result, never depends on how windows were batched or which thread finished first."""


class Merger:
    """Merges packed states, one after another, in constant memory and in float64.

    Args:
        network: the model, on the CPU.
    """

    def __init__(self, network: SongModel) -> None:
        self._network = network
        self._rows: list[Tensor] = []
        self._merged: State | None = None

    def add(self, packed: Tensor) -> None:
        """Take the next state, ``(state_size,)``."""
        self._rows.append(packed)
        if len(self._rows) == GROUP:
            self._collapse()

    def embedding(self) -> Tensor:
        """The embedding ``(embedding_size,)`` of all that was added; at least one state must have frames."""
        if self._rows:
            self._collapse()
        assert self._merged is not None
        return self._network.finalize(self._merged)[0]

    def _collapse(self) -> None:
        group = self._network.merge_rows(self._network.unpack(torch.stack(self._rows).double()))
        self._rows = []
        if self._merged is not None:
            both = [tuple(map(torch.cat, zip(a, b, strict=True))) for a, b in zip(self._merged, group, strict=True)]
            group = self._network.merge_rows(both)
        self._merged = group


class Stretches:
    """Which mel frames of a window belong to which stretch of the song, for one vector per `seconds`.

    A mel frame belongs to the stretch ``[i * seconds, (i + 1) * seconds)`` that holds its centre. Without `seconds` the
    whole song is one stretch.

    Args:
        network: the model.
        seconds: length of a stretch, at least the model's time resolution.
    """

    def __init__(self, network: SongModel, seconds: float | None) -> None:
        frontend, encoder = network.config.frontend, network.config.encoder
        self.seconds = seconds
        self._window = encoder.window_frames
        self._frames = None if seconds is None else seconds * frontend.sample_rate / frontend.hop_length
        self.slots = 1 if self._frames is None else int(np.ceil(self._window / self._frames)) + 1
        """Stretches that a window can touch."""

    def first(self, window: int) -> int:
        """The first stretch that window number `window` touches."""
        if self._frames is None:
            return 0
        stretch = int(window * self._window / self._frames)
        return stretch - 1 if self._bound(stretch) > window * self._window else stretch

    def bounds(self, window: int, frames: int) -> list[int]:
        """Where the window's slots begin and end in its own mel frames, ``slots + 1`` numbers in [0, frames]."""
        if self._frames is None:
            return [0, frames]
        first, origin = self.first(window), window * self._window
        return [min(max(self._bound(first + slot) - origin, 0), frames) for slot in range(self.slots + 1)]

    def _bound(self, stretch: int) -> int:
        assert self._frames is not None
        return int(np.ceil(stretch * self._frames - 1e-6))


class SongMerger:
    """Takes the window states of one song in any order, from any thread, and merges them in the song's order.

    Windows that are silent have no part in the song's vector, unless all are: how long a pause is, or what follows the
    end, tells nothing of how a song sounds, and would take from every average. Stretches of silence have vectors.

    Args:
        network: the model, on the CPU.
        stretches: how the song is divided, if it is.

    Attributes:
        heard: whether a window that was taken so far is not silent.
    """

    def __init__(self, network: SongModel, stretches: Stretches) -> None:
        self._network = network
        self._stretches = stretches
        self._resolution = network.config.encoder.time_reduction
        self._lock = threading.Lock()
        self._early: dict[int, tuple[Tensor, list[int]]] = {}
        self._left_out: set[int] = set()
        self._next = 0
        self._windows: int | None = None
        self._song, self._silence = Merger(network), Merger(network)
        self.heard = False
        self._open: tuple[int, Merger] | None = None
        self._open_frames = 0
        self._open_has_feature = False
        self._segments: list[tuple[int, Tensor]] = []

    def leave_out(self, window: int) -> None:
        """Say, before it is added, that a window is silent."""
        with self._lock:
            self._left_out.add(window)

    def add(self, window: int, states: Tensor, bounds: list[int]) -> bool:
        """Take the ``(slots, state_size)`` states of a window and its slots' bounds; True if the song is complete."""
        with self._lock:
            self._early[window] = states, bounds
            while (taken := self._early.pop(self._next, None)) is not None:
                self._take(self._next, *taken)
                self._next += 1
            return self._next == self._windows

    def end(self, windows: int) -> bool:
        """Say how many windows the song has; True if all of them are in."""
        with self._lock:
            self._windows = windows
            return self._next == windows

    def embedding(self) -> Tensor:
        """The song's embedding ``(embedding_size,)``; once complete."""
        return (self._song if self.heard else self._silence).embedding()

    def segments(self) -> Segments | None:
        """The song's stretches, if it is divided; once complete."""
        if self._stretches.seconds is None:
            return None
        self._close_segment()
        times = np.array([stretch for stretch, _ in self._segments], np.float64) * self._stretches.seconds
        return Segments(times, torch.stack([vector for _, vector in self._segments]).numpy())

    def _take(self, window: int, states: Tensor, bounds: list[int]) -> None:
        first = self._stretches.first(window)
        silent = window in self._left_out
        self._left_out.discard(window)
        self.heard |= not silent
        for slot, state in enumerate(states):
            start, stop = bounds[slot], bounds[slot + 1]
            if start < stop:
                (self._silence if silent else self._song).add(state)
                if self._stretches.seconds is not None:
                    feature = -(-start // self._resolution) * self._resolution < stop
                    self._take_segment(first + slot, state, stop - start, feature)

    def _take_segment(self, stretch: int, state: Tensor, frames: int, has_feature: bool) -> None:
        if self._open is None or self._open[0] != stretch:
            self._close_segment()
            self._open = (stretch, Merger(self._network))
        self._open[1].add(state)
        self._open_frames += frames
        self._open_has_feature |= has_feature

    def _close_segment(self) -> None:
        # The last stretch of a song can end before the first frame feature in it, or hold only the frame that is
        # centred on the song's end; the song's own vector has it all.
        if self._open is not None and self._open_has_feature and (self._open_frames > 1 or not self._segments):
            stretch, merger = self._open
            self._segments.append((stretch, merger.embedding()))
        self._open, self._open_frames, self._open_has_feature = None, 0, False
