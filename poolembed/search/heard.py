"""Neighbours that are heard: silent songs are near to nothing, and nothing is near to them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from poolembed.embed.silence import is_silence, silence
from poolembed.search.collection import Collection
from poolembed.search.exact import Hits, Searcher

_ROUNDED = 1e-3  # by which a cosine may be off, of vectors of 16 bits too


def nearest_heard(
    collection: Collection,
    searcher: Searcher,
    queries: NDArray[np.float32],
    k: int,
    allowed: NDArray[np.bool_] | None = None,
) -> Hits:
    """The nearest rows of each query but for silent songs; none for a query that is silence.

    Args:
        collection: what is searched, with N vectors.
        searcher: of that collection.
        queries: ``(Q, D)`` of unit length.
        k: rows per query, at least 1.
        allowed: ``(N,)``; rows that may be found. None: all.

    Returns:
        At least k rows for each query, or all that there are, and -1 in the place of those that are not to be found.
    """
    at = (queries @ silence(collection.size))[:, None]
    wanted = k
    while True:
        hits = searcher.nearest(queries, min(wanted, len(collection)), allowed)
        # Only rows that are as near as silence are looked at: few, or none, of the nearest.
        rows = np.unique(hits.rows[(np.abs(hits.cosines - at) < _ROUNDED) & (hits.rows >= 0)])
        silent = np.isin(hits.rows, rows[collection.silent(rows)]) | is_silence(queries)[:, None]
        heard = np.count_nonzero((hits.rows >= 0) & ~silent, axis=1)
        if wanted >= len(collection) or (heard + k * is_silence(queries) >= k).all() or not silent.any():
            return Hits(np.where(silent, -1, hits.rows), hits.cosines)
        wanted *= 2
