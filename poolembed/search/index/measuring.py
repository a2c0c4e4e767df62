"""How much of the exact answer a graph finds, and how wide it has to be searched for that."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from poolembed.search.exact import ExactSearch
from poolembed.search.index.searching import Index

AT = 10
"""Neighbours whose recall is measured."""

ENOUGH = 0.96
"""Recall that a search is made wide enough for; a little more than 0.95, for it is measured on a few hundred songs."""

WIDTHS = (64, 96, 128, 192, 256, 384, 512, 768, 1024)


def widen(index: Index, sample: NDArray[np.int64]) -> float:
    """Let an index look as wide as it has to for a recall that is `ENOUGH`, or as wide as it may.

    Args:
        index: its `width` is set.
        sample: rows to search the others for.

    Returns:
        The recall: which share, 0 to 1, of the ten nearest songs is found, on average. A song that is as near as the
        tenth counts, whichever of them the exact search has listed.
    """
    others = np.ones(len(index.collection), bool)
    others[sample] = False
    queries = index.collection.unit_rows(sample)
    exact = ExactSearch(index.collection).nearest(queries, AT, others)
    last = np.nanmin(exact.cosines, axis=1)[:, None]
    recall = 0.0
    for index.width in WIDTHS:
        as_near = index.nearest(queries, AT, others).cosines >= last
        recall = float(np.mean(as_near.sum(axis=1) / (exact.rows >= 0).sum(axis=1)))
        if recall >= ENOUGH:
            break
    return recall
