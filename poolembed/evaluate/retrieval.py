"""How well clips find their like by cosine, as in a search for what sounds similar.

Conventions
-----------
- Every clip is a query in turn; all the others are ranked by the cosine of their vectors with it.
- Right is what has the query's label, or where clips have several, one of them at least.
- The query itself is no candidate, and neither is what is *apart*: clips of the query's own group, and copies of its
  audio. Finding another piece of the same recording tells nothing about the label, so it counts neither for nor against
  (as re-identification benchmarks leave out pictures of the same camera; Zheng et al. 2015, Scalable person
  re-identification).
- A query without any right candidate has no score (NaN) and is left out of the means.
- Candidates of equal cosine, to 1e-9, are one rank, where a wrong one counts as if it came first.

Per query: R@1 is 1 if the first candidate is right, else 0; the reciprocal rank is 1 / (rank of the first right one);
average precision is the mean, over the right candidates, of the share of right ones down to each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.evaluate.metrics import Floats, Labels

DIGITS = 9
"""Cosines that agree to so many digits are equal: a matrix product's last bits depend on what is beside a row."""

_BLOCK = 1 << 22
"""Cosines in memory at once."""


@dataclass(frozen=True)
class Retrieval:
    """Scores per query, each ``(N,)`` float64, NaN where nothing right could be found.

    Attributes:
        first: R@1.
        average_precision: in (0, 1].
        reciprocal_rank: in (0, 1].
    """

    first: Floats
    average_precision: Floats
    reciprocal_rank: Floats


def retrieve(vectors: NDArray[Any], true: Labels, apart: Sequence[NDArray[np.int64]] = ()) -> Retrieval:
    """Let every clip search the others.

    Args:
        vectors: ``(N, D)``, any length but 0.
        true: labels, as in `poolembed.evaluate.metrics`.
        apart: arrays ``(N,)``; clips of equal numbers in one of them are no candidates for each other.
    """
    unit = unit_length(vectors)
    clips = len(unit)
    scores = np.full((3, clips), np.nan)
    rows = max(1, _BLOCK // clips)
    has = None if true.ndim == 1 else true.astype(np.float32)
    for start in range(0, clips, rows):
        block = slice(start, start + rows)
        cosines = np.round(unit[block] @ unit.T, DIGITS)
        right = true[block, None] == true if has is None else has[block] @ has.T > 0
        away = np.eye(len(cosines), clips, k=start, dtype=bool)
        for numbers in apart:
            away |= numbers[block, None] == numbers
        cosines[away] = -np.inf
        right &= ~away
        ranked = np.sort(cosines, axis=1)
        for row in np.flatnonzero(right.any(1)):
            scores[:, start + row] = _of_query(ranked[row], cosines[row, right[row]])
    return Retrieval(*scores)


def unit_length(vectors: NDArray[Any]) -> Floats:
    """The vectors in float64, divided by their lengths."""
    doubles = vectors.astype(np.float64)
    unit: Floats = doubles / np.linalg.norm(doubles, axis=1, keepdims=True)
    return unit


def _of_query(ranked: Floats, right: Floats) -> tuple[float, float, float]:
    """R@1, average precision and reciprocal rank from all cosines, ascending, and those of right candidates."""
    right = np.sort(right)
    # How many candidates, and how many right ones, are at least as near as each right one.
    down_to = len(ranked) - np.searchsorted(ranked, right)
    right_down_to = len(right) - np.searchsorted(right, right)
    wrong_before = down_to[-1] - right_down_to[-1]
    return float(wrong_before == 0), float((right_down_to / down_to).mean()), 1.0 / (1 + wrong_before)
