"""How much of the exact answer an index finds, and how wide it has to look for that."""

from __future__ import annotations

import numpy as np

from poolembed.search.answers import Answer, answer
from poolembed.search.collection import Collection
from poolembed.search.exact import QUERIES, ExactSearch
from poolembed.search.index.searching import Index
from poolembed.search.queries import Query

AT = 10
"""Neighbours whose recall is measured."""

ENOUGH = 0.96
"""Recall that a search is made wide enough for; a little more than 0.95, for it is measured on a few hundred songs."""

WIDTHS = (64, 96, 128, 192, 256, 384, 512, 768, 1024)


class Recall:
    """Songs of a collection, drawn once, and which are the nearest of each.

    Args:
        collection: is searched exactly.
    """

    def __init__(self, collection: Collection) -> None:
        count = min(QUERIES, len(collection))
        rows = np.sort(np.random.default_rng(0).choice(len(collection), count, replace=False))
        vectors = collection.unit_rows(rows)
        self._collection = collection
        self._queries = [Query(str(row), vector, (int(row),)) for row, vector in zip(rows, vectors, strict=True)]
        self._exact = list(answer(ExactSearch(collection), self._queries, AT))

    def of(self, index: Index) -> float:
        """The share, 0 to 1, of what an index finds of a song's ten nearest others, on average.

        A song that is as near as the tenth counts, whichever of them the exact search has listed.
        """
        found = answer(index, self._queries, AT)
        shares = [self._share(*each) for each in zip(self._queries, self._exact, found, strict=True)]
        return float(np.mean(shares)) if shares else 1.0

    def _share(self, query: Query, exact: Answer, found: Answer) -> float:
        if not exact.rows:
            return 1.0
        others = [row for row in found.rows if row not in exact.rows]
        cosines = self._collection.unit_rows(others) @ query.vector if others else np.empty(0)
        as_near = np.count_nonzero(cosines >= exact.cosines[-1] - 1e-6)
        return (len(found.rows) - len(others) + as_near) / len(exact.rows)


def widen(index: Index, recall: Recall) -> float:
    """Let an index look as wide as it has to for a recall that is `ENOUGH`, or as wide as it may; its recall then."""
    share = 0.0
    for index.width in WIDTHS:
        share = recall.of(index)
        if share >= ENOUGH:
            break
    return share
