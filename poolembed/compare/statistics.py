"""Means over seeds and differences between poolings, with the intervals of Student's t.

A seed draws the start of the network and the order of the clips, and with folds the one that tests; two poolings share
all of that at one seed. So their difference is taken seed by seed, and its interval is much narrower than either's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct


class Estimate(Struct, frozen=True):
    """A mean over seeds.

    Attributes:
        mean: of the values.
        half: half the width of its 95 % interval; None of one value.
        values: seed by seed.
    """

    mean: float
    half: float | None
    values: list[float]

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.half is not None and abs(self.mean) > self.half


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and t interval, :math:`\\bar x \\pm t_{n-1,\\,0.975}\\, s / \\sqrt n`.

    Raises:
        ValueError: no values.

    >>> estimate([1.0, 2.0, 3.0]).half  # doctest: +ELLIPSIS
    2.484...
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values to estimate a mean from")
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, list(values))
    from scipy.stats import t

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Estimate(mean, float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n), list(values))


def paired(values: dict[int, float], baseline: dict[int, float]) -> Estimate | None:
    """Mean of the differences at the seeds that both have; None if they share none.

    Args:
        values: by seed.
        baseline: what is subtracted, by seed.
    """
    shared = sorted(values.keys() & baseline.keys())
    return estimate([values[seed] - baseline[seed] for seed in shared]) if shared else None
