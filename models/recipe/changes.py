"""What a listener would not call another sound: clips begun later, quieter, in noise, at a lower rate.

How far a model's vectors move under these is what its projection levels them by, see ``models.recipe.ship``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import soxr
from numpy.typing import NDArray

from models.recipe.takes import generator

Samples = NDArray[np.float32]
Change = Callable[[Samples, int, np.random.Generator], Samples]
"""Of mono samples of a rate."""


def later(samples: Samples, rate: int, random: np.random.Generator) -> Samples:
    """Without the first few milliseconds, 0.16 s at most."""
    return samples[min(int(random.uniform(0.005, 0.16) * rate), len(samples) // 2) :]


def quieter(samples: Samples, rate: int, random: np.random.Generator) -> Samples:
    """20 dB down."""
    return samples * np.float32(0.1)


def noisy(decibels: float) -> Change:
    """With white noise so far below."""

    def change(samples: Samples, rate: int, random: np.random.Generator) -> Samples:
        level = np.sqrt(np.mean(np.square(samples))) * 10 ** (-decibels / 20)
        return samples + np.float32(level) * random.standard_normal(len(samples), np.float32)

    return change


def narrow(lower: int) -> Change:
    """Through a lower sample rate."""

    def change(samples: Samples, rate: int, random: np.random.Generator) -> Samples:
        there: Samples = soxr.resample(samples, rate, lower)
        back: Samples = soxr.resample(there, lower, rate)[: len(samples)]
        return np.pad(back, (0, len(samples) - len(back)))

    return change


CHANGES: dict[str, Change] = {
    "later": later,
    "20 dB down": quieter,
    "noise 20 dB below": noisy(20),
    "noise 12 dB below": noisy(12),
    "22.05 kHz": narrow(22_050),
    "16 kHz": narrow(16_000),
}


def changed(name: str, clips: Sequence[Samples], rate: int) -> list[Samples]:
    """Clips under a change; the same each time."""
    random = generator(f"change {name}")
    return [CHANGES[name](clip, rate, random) for clip in clips]
