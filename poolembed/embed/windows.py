"""Cutting a song's samples into the fixed windows that the network sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from poolembed.audio.mixing import AUDIBLE
from poolembed.nn.config import ModelConfig


class Window(NamedTuple):
    """One window of a song.

    Attributes:
        samples: ``(window_samples,)`` float32; a view that is valid until the next window is asked for.
        frames: how many of its mel frames, its context aside, are the song's; the rest is padding.
    """

    samples: NDArray[np.float32]
    frames: int

    @property
    def silent(self) -> bool:
        """Whether there is nothing to be heard in it, its context included."""
        return bool(self.samples.max() <= AUDIBLE and self.samples.min() >= -AUDIBLE)


class WindowShape(NamedTuple):
    """Lengths of a window: mel frames, samples between frames, samples per frame; mel frames of context beside it."""

    frames: int
    hop_length: int
    n_fft: int
    before: int = 0
    after: int = 0

    @classmethod
    def of(cls, config: ModelConfig) -> WindowShape:
        """The window that a model sees."""
        frontend, encoder = config.frontend, config.encoder
        return cls(encoder.window_frames, frontend.hop_length, frontend.n_fft, *encoder.context_frames)

    @property
    def samples(self) -> int:
        """Samples of one window, its context and that of its edge frames included."""
        return (self.before + self.frames + self.after - 1) * self.hop_length + self.n_fft


def cut_windows(blocks: Iterable[NDArray[np.float32]], shape: WindowShape) -> Iterator[Window]:
    """Cut sample blocks of any lengths into windows, in constant memory.

    A song of n > 0 samples has ``1 + n // hop_length`` mel frames, centred on multiples of the hop, with zeros before
    and after it (librosa's ``center=True, pad_mode="constant"``). Window k holds frames ``[k W, (k + 1) W)``,
    beside them its context, ``[k W - before, (k + 1) W + after)``, and so starts at sample
    ``(k W - before) hop_length - n_fft // 2``. No samples, no windows.

    Args:
        blocks: 1-D float32 at the model's rate.
        shape: of the windows.
    """
    length, stride = shape.samples, shape.frames * shape.hop_length
    buffer = np.zeros(length, np.float32)
    filled = shape.before * shape.hop_length + shape.n_fft // 2  # the zeros before the song
    total = emitted = 0
    for block in blocks:
        total += len(block)
        while len(block):
            taken = min(length - filled, len(block))
            buffer[filled : filled + taken] = block[:taken]
            filled, block = filled + taken, block[taken:]  # noqa: PLW2901
            if filled == length:
                yield Window(buffer, shape.frames)
                emitted += 1
                filled = length - stride  # the context that the next window shares with this one
                buffer[:filled] = buffer[stride:].copy()
    if total == 0:
        return
    frames_left = 1 + total // shape.hop_length - emitted * shape.frames
    while frames_left > 0:
        buffer[filled:] = 0
        yield Window(buffer, min(frames_left, shape.frames))
        frames_left -= shape.frames
        filled = length - stride
        buffer[:filled] = buffer[stride:].copy()
