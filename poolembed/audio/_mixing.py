"""Channels to their mean, and what is lost by it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# Nothing above this (-80 dB) is silence: 16-bit dither is at 3e-5.
_AUDIBLE = 1e-4
# Channels cancel if their mean has less than this share of the power that it had if they were unrelated. Stereo whose
# right side is upside down has about 0.1, mono that is has 0; unrelated channels have 1, and equal ones more.
_CANCELLED = 0.2
# Power is measured in every fourth block, at every 61st sample (a prime, lest a tone fits in), which takes less
# than 1 % of the time of the fastest decoding.
_EVERY = 4
_STRIDE = 61


class Downmix:
    """Takes the mean of a song's channels, block by block, and notices if nothing is left of them."""

    def __init__(self) -> None:
        self._is_silent = True
        self._blocks = 0
        self._power = 0.0
        # What that power would be if the channels were unrelated, and if they were equal.
        self._unrelated = 0.0
        self._equal = 0.0

    def __call__(self, channels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean over the first axis of ``(channels, n)``, a new array.

        Whole rows are added up: `numpy.mean` over interleaved channels takes 30 times as long, and a matrix product is
        no faster and depends on the BLAS.
        """
        count = len(channels)
        if count == 1:
            mean = np.array(channels[0])
        else:
            with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is counted later
                mean = channels[0] + channels[1]
                for channel in channels[2:]:
                    mean += channel
                mean /= np.float32(count)
                if self._blocks % _EVERY == 0:
                    self._measure(channels[:, ::_STRIDE], mean[::_STRIDE])
        self._blocks += 1
        if self._is_silent:
            self._is_silent = not (np.abs(mean) > _AUDIBLE).any()
        return mean

    def _measure(self, channels: NDArray[np.float32], mean: NDArray[np.float32]) -> None:
        power = float(np.vdot(channels, channels))
        if math.isfinite(power):
            self._power += float(np.vdot(mean, mean))
            self._unrelated += power / len(channels) ** 2
            self._equal += power / len(channels)

    def finish(self) -> list[str]:
        """What is to be said of the mix once the song is over."""
        # Samples of silence are dither, whose channels are unrelated.
        if self._power < _CANCELLED * self._unrelated and (not self._is_silent or self._power < 1e-4 * self._unrelated):
            if not self._power:
                return ["its channels cancel: their mean is silence"]
            decibels = 10 * math.log10(self._equal / self._power)
            return [f"its channels cancel: their mean is {decibels:.0f} dB below them"]
        return ["silent"] if self._is_silent else []
