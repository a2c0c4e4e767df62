"""Which vectors of a collection are near which others, in memory that does not grow with the number of pairs.

Two vectors match if their cosine is at least a threshold and, where durations are known, if these differ by no more
than a tolerance. Cosines are computed in float32, so a threshold is met from `ROUNDING` below it, lest a vector fail to
match itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from poolembed.progress import Progress, silent
from poolembed.search.collection import Collection

PerRow = float | NDArray[np.float64]
"""One number for all rows, or one for each, ``(N,)``, of which two rows have to meet both."""

ROUNDING = 1e-6

_ROWS, _COLUMNS = 4096, 512  # of a tile; a column is read once for so many rows
_SECONDS = 1e-6  # of slack, for 4.4 - 2.4 is more than 2


def has_match(
    collection: Collection,
    threshold: PerRow,
    durations: NDArray[np.float64] | None = None,
    tolerance: PerRow = 0.0,
    progress: Progress = silent,
) -> NDArray[np.bool_]:
    """Which vectors match another.

    Args:
        collection: N vectors.
        threshold: cosine, -1 to 1.
        durations: ``(N,)`` seconds. Only vectors of songs of about the same length are then multiplied at all.
        tolerance: seconds.
        progress: told how far it is.

    Returns:
        ``(N,)``.

    Raises:
        VectorsError: a row is zero, or not finite.
    """
    rows = np.arange(len(collection)) if durations is None else np.argsort(durations, kind="stable")
    reach = np.full(len(rows), len(rows))
    threshold, tolerance = _each(threshold, len(rows))[rows], _each(tolerance, len(rows))[rows]
    if durations is not None:
        durations = durations[rows]
        reach = np.searchsorted(durations, durations + tolerance.max(initial=0) + _SECONDS, side="right")
    found = np.zeros(len(rows), bool)
    for one, other, _ in _pairs(collection, rows, reach, threshold, durations, tolerance, progress):
        found[rows[one]] = True
        found[rows[other]] = True
    return found


def nearest_leader(
    collection: Collection,
    rows: NDArray[np.int64],
    threshold: PerRow,
    durations: NDArray[np.float64] | None = None,
    tolerance: PerRow = 0.0,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Divide rows into groups around leaders: each row leads that matches no leader before it.

    Every other row goes to the leader, of those before it that it matches, that is nearest; equally near, to the first.
    So each row of a group matches the group's leader itself, and no chain of matches joins what does not match.

    Args:
        collection: where the rows are.
        rows: ``(M,)`` in the order in which they are to lead.
        threshold: cosine, -1 to 1.
        durations: ``(M,)`` seconds, of the rows.
        tolerance: seconds.

    Returns:
        ``(M,)`` the place in ``rows`` of each row's leader, which may be its own; ``(M,)`` the cosine to it.

    Raises:
        VectorsError: a row is zero, or not finite.
    """
    leader = np.arange(len(rows))
    cosine = np.full(len(rows), -np.inf, np.float32)
    reach = np.full(len(rows), len(rows))
    for ones, others, cosines in _pairs(collection, rows, reach, threshold, durations, tolerance):
        # Pairs come in an order in which it is settled whether a row leads before it is asked to.
        changes = np.flatnonzero(np.diff(ones, prepend=-1))
        for start, end in itertools.pairwise([*changes.tolist(), len(ones)]):
            one = ones[start]
            if leader[one] == one:
                nearer = start + np.flatnonzero(cosines[start:end] > cosine[others[start:end]])
                leader[others[nearer]] = one
                cosine[others[nearer]] = cosines[nearer]
    cosine[leader == np.arange(len(rows))] = 1.0
    return leader, cosine


def _each(number: PerRow, rows: int) -> NDArray[np.float64]:
    return np.broadcast_to(np.asarray(number, np.float64), rows)


def _pairs(
    collection: Collection,
    rows: NDArray[np.int64],
    reach: NDArray[np.int64],
    threshold: PerRow,
    durations: NDArray[np.float64] | None,
    tolerance: PerRow,
    progress: Progress = silent,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Places of matching rows, the lower first, and their cosines; a tile of the matrix of all cosines at a time.

    Tiles come in rows, and left to right from the diagonal: all pairs ``(g, h)`` with g < h come before, or in the same
    tile as, the first pair ``(h, i)``; within a tile the first places ascend.

    ``reach[h]`` is the first place beyond those that h is to be compared with; it ascends. Thresholds and tolerances
    are in the order of the places.
    """
    threshold, tolerance = _each(threshold, len(rows)), _each(tolerance, len(rows))
    least = threshold.min(initial=1) - ROUNDING
    firsts = range(0, len(rows), _ROWS)
    ends = [int(reach[min(first + _ROWS, len(rows)) - 1]) for first in firsts]
    work, done = sum(ends) - sum(firsts), 0
    for first, end in zip(firsts, ends, strict=True):
        block = collection.unit_rows(rows[first : first + _ROWS])
        for start in range(first, end, _COLUMNS):
            columns = collection.unit_rows(rows[start : min(start + _COLUMNS, end)])
            # Of this tile, rows below the diagonal are left out.
            cosines = block[: start + len(columns) - first] @ columns.T
            flat = np.flatnonzero(cosines >= least)  # much quicker than nonzero in two dimensions
            cosine = np.minimum(cosines.ravel()[flat], np.float32(1))
            one, other = np.divmod(flat, len(columns))
            one, other = one + first, other + start
            fits = (one < other) & (cosine >= np.maximum(threshold[one], threshold[other]) - ROUNDING)
            if durations is not None:
                allowed = np.minimum(tolerance[one], tolerance[other])
                fits &= np.abs(durations[one] - durations[other]) <= allowed + _SECONDS
            yield one[fits], other[fits], cosine[fits]
            done += len(columns)
            progress("comparing", done, work)
