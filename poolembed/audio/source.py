"""What the engine reads: mono blocks at the model's rate, from a file or from an array."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from poolembed.audio.decode import SampleCount, open_audio
from poolembed.audio.encoding import Encoding
from poolembed.audio.faults import costing_the_song
from poolembed.audio.mixing import Downmix
from poolembed.audio.resample import resample_blocks
from poolembed.errors import AudioError, UsageError

Source = str | os.PathLike[str] | tuple[NDArray[Any], int]
"""A file, or an array of samples, ``(n,)`` or ``(channels, n)``, with its rate in Hz."""

_BLOCK = 1 << 16


class _Stream(Protocol):
    sample_rate: int
    note: str | None

    @property
    def samples(self) -> int: ...
    @property
    def encoding(self) -> Encoding | None: ...
    def blocks(self) -> Iterator[NDArray[np.float32]]: ...
    def close(self) -> None: ...


class MonoSource:
    """One song as the model wants it; from `open_source`. A context manager.

    Args:
        stream: the song at its own rate.
        target_rate: the rate wanted, in Hz.
        name: of the file, or what else it is.
    """

    def __init__(self, stream: _Stream, target_rate: int, name: str) -> None:
        self._stream = stream
        self._target_rate = target_rate
        self._name = name

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The song, once: 1-D mono float32 blocks at the target rate, in constant memory.

        Raises:
            AudioError: nothing in it can be decoded, or every sample is NaN or infinite; or a fault of poolembed.
        """
        with costing_the_song(self._name):
            yield from resample_blocks(self._stream.blocks(), self._stream.sample_rate, self._target_rate)

    @property
    def duration(self) -> float:
        """Seconds decoded so far, counted at the source's own rate; those of the song once `blocks` is exhausted."""
        return self._stream.samples / self._stream.sample_rate

    @property
    def note(self) -> str | None:
        """Once `blocks` is exhausted: what was wrong with the song though it was decoded, or None."""
        return self._stream.note

    @property
    def encoding(self) -> Encoding | None:
        """How the song is encoded, with the bit rate once `blocks` is exhausted; None of samples in memory."""
        return self._stream.encoding

    def close(self) -> None:
        """Close the file. Can be called again."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_source(source: Source, target_rate: int) -> MonoSource:
    """Open a file, or take an array, as mono blocks at one rate.

    Args:
        source: a file, or an array and its rate. Integers are divided by their full scale (unsigned ones are centred
            first); floats are taken as they are.
        target_rate: the rate of the blocks, in Hz.

    Raises:
        AudioError: the file cannot be opened or is not audio, or the array holds no audio; or a fault of poolembed.
        UsageError: the array or a rate is not what this function takes.
    """
    if target_rate <= 0:
        raise UsageError(f"target_rate is {target_rate}; it must be positive")
    if isinstance(source, tuple):
        return MonoSource(_ArrayStream(*source), target_rate, "samples")
    path = os.fsdecode(source)
    with costing_the_song(path):
        return MonoSource(open_audio(path), target_rate, path)


class _ArrayStream:
    """The part of an `AudioStream` for samples in memory."""

    def __init__(self, samples: NDArray[Any], sample_rate: int) -> None:
        samples = np.asarray(samples)
        if isinstance(sample_rate, bool) or not isinstance(sample_rate, int | np.integer) or sample_rate <= 0:
            raise UsageError(f"the sample rate of an array must be a positive whole number of Hz, not {sample_rate!r}")
        if samples.ndim not in (1, 2):
            raise UsageError(f"an array of samples is (n,) or (channels, n), not of shape {samples.shape}")
        if samples.dtype.kind not in "iuf":
            raise UsageError(f"an array of samples holds floats or integers, not {samples.dtype}")
        if samples.ndim == 2 and samples.shape[0] > max(samples.shape[1], 1000) and samples.shape[1] <= 8:
            raise UsageError(
                f"an array of samples is (channels, n), and this one of shape {samples.shape} looks transposed",
                hint="pass array.T",
            )
        if not samples.size:
            raise AudioError("no audio samples in it")
        self._samples = np.atleast_2d(samples)
        self.sample_rate = int(sample_rate)
        self.note: str | None = None
        self.encoding: Encoding | None = None
        self._count = SampleCount()
        self._mix = Downmix(self.sample_rate)

    @property
    def samples(self) -> int:
        return self._mix.samples

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        starts = range(0, self._samples.shape[1], _BLOCK)
        channels = (_as_float(self._samples[:, start : start + _BLOCK]) for start in starts)
        for block in self._mix.blocks(channels):
            yield self._count.clean(block)
        self.note = "; ".join(self._count.finish() + self._mix.finish()) or None

    def close(self) -> None:
        """Nothing is open."""


def _as_float(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Float32, with integers scaled to [-1, 1)."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and counted as such
            return samples.astype(np.float32)
    full_scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
    centre = full_scale if samples.dtype.kind == "u" else 0.0
    return ((samples.astype(np.float64) - centre) / full_scale).astype(np.float32)
