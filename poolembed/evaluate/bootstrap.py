"""How far a score could be off because just these clips were scored: bootstrap intervals over groups.

Clips of one group (one recording, one speaker) rise and fall together, so whole groups are drawn, with replacement, as
many as there are (Davison and Hinkley 1997, Bootstrap methods and their application, section 3.8). A sample is how
often each clip is drawn, ``(N,)``, so a score is computed for many samples at once where it takes weights. The interval
goes from the 2.5th to the 97.5th percentile of the scores.

What is drawn depends on the groups and the seed alone, so several systems are scored on the same samples. Training is
not repeated: an interval is about other clips, not about other training sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from poolembed.evaluate.metrics import Floats

SAMPLES = 1000
LEVEL = 0.95

_BLOCK = 1 << 23
"""Weights in memory at once."""


def bootstrap(
    statistics: Callable[[Floats], Floats], groups: NDArray[np.int64], *, samples: int = SAMPLES, seed: int = 0
) -> Floats:
    """Intervals of some scores.

    Args:
        statistics: from weights ``(R, N)`` to scores ``(R, M)``; NaN where a sample has none.
        groups: ``(N,)``, clips of equal numbers are drawn together.
        samples: how many to draw.
        seed: of the drawing.

    Returns:
        ``(M, 2)``, lower and upper end; NaN where there is only one group, or no sample has a score.
    """
    scores = np.concatenate([statistics(weights) for weights in resamples(groups, samples, seed)])
    intervals = np.full((scores.shape[1], 2), np.nan)
    if len(np.unique(groups)) > 1:
        for number, drawn in enumerate(scores.T):
            there = drawn[~np.isnan(drawn)]
            if len(there):
                intervals[number] = np.quantile(there, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return intervals


def resamples(groups: NDArray[np.int64], samples: int, seed: int) -> Iterator[Floats]:
    """How often each clip is drawn: blocks ``(R, N)``, `samples` rows in all."""
    numbers, member = np.unique(groups, return_inverse=True)
    random = np.random.default_rng(seed)
    rows = max(1, _BLOCK // len(groups))
    for start in range(0, samples, rows):
        drawn = random.integers(len(numbers), size=(min(rows, samples - start), len(numbers)))
        drawn += np.arange(len(drawn))[:, None] * len(numbers)
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        yield counts[:, member].astype(np.float64)
