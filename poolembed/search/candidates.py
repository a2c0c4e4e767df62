"""The few rows that may be among the nearest, kept while a matrix goes by in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

UNIT = 2.0**-19
"""Squared lengths this near to 1 are taken for 1 as long as there are many candidates."""

_ROWS = 1024  # whose cosines are computed together in float64
MANY = 1 << 20  # candidates that are too many to wait for the end, as where nearly all vectors are equal


class Found(NamedTuple):
    """Rows, each with the query that it is near to and how near: three arrays ``(n,)``."""

    query: NDArray[np.int64]
    row: NDArray[np.int64]
    cosine: NDArray[np.float32]

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Found:
        """Some of them, or all in another order."""
        return Found(self.query[which], self.row[which], self.cosine[which])


class Candidates:
    """Whatever may be among the k nearest of each query, of the rows seen so far.

    Cosines computed in float32 are off by no more than `slack`. So a row is kept if its cosine is no more than twice
    that below the k-th best: however they were rounded, no row of the answer is lost.

    Args:
        matrix: ``(N, D)``, all rows finite and not zero.
        queries: ``(Q, D)`` of unit length.
        k: rows per query.
    """

    def __init__(self, matrix: NDArray[Any], queries: NDArray[np.float64], k: int) -> None:
        self._matrix = matrix
        self._queries = queries
        self._k = k
        # A sum of D products is off by at most D roundings, relative to the product of the two lengths (Higham,
        # Accuracy and Stability of Numerical Algorithms, 2002, section 3.1), a length by half as many, or by UNIT.
        self.slack = np.float32(UNIT + (2 * queries.shape[1] + 16) * 2.0**-24)
        self._floor = np.full(len(queries), -2, np.float32)
        self._parts: list[Found] = []
        self._count = 0
        self._limit = 0  # at which they are sifted

    def add(self, first: int, scores: NDArray[np.float32]) -> None:
        """Take a block's cosines, ``(Q, rows)`` from row `first` on; -inf for rows that are not to be found."""
        if self._limit == 0 and self._k <= scores.shape[1]:  # sifting a whole block would take longer
            kth = np.partition(scores, -self._k, axis=1)[:, -self._k]
            self._floor = np.maximum(self._floor, kth - 2 * self.slack)
        (hot,) = (scores.max(axis=1) >= self._floor).nonzero()
        if not len(hot):
            return
        near = scores[hot] if len(hot) < len(scores) else scores
        # Much quicker than nonzero in two dimensions.
        flat = np.flatnonzero(near >= self._floor[hot, None])
        query, row = np.divmod(flat, near.shape[1])
        self._parts.append(Found(hot[query], row + first, near.ravel()[flat]))
        self._count += len(flat)
        if self._count > self._limit:
            self._sift()

    def _sift(self) -> None:
        """Drop what better ones have displaced meanwhile."""
        found = _joined(self._parts)
        found = found.take(np.lexsort((-found.cosine, found.query)))
        kth = _ranks(found.query) == self._k - 1
        self._raise_floor(found.query[kth], found.cosine[kth] - 2 * self.slack)
        found = found.take(found.cosine >= self._floor[found.query])
        if len(found.row) > MANY:
            found, ranks = nearest_of(found, self._matrix, self._queries, self._k)
            kth = ranks == self._k - 1
            self._raise_floor(found.query[kth], found.cosine[kth] - self.slack)
        self._parts = [found]
        self._count = len(found.row)
        self._limit = max(2 * self._count, 4 * self._k * len(self._queries))

    def _raise_floor(self, query: NDArray[np.int64], floor: NDArray[np.float32]) -> None:
        self._floor[query] = np.maximum(self._floor[query], floor)

    @staticmethod
    def best(of_each: Sequence[Candidates]) -> tuple[Found, NDArray[np.int64]]:
        """The k nearest of all that several have kept, by query, cosine and row; and each one's rank from 0 on."""
        some = of_each[0]
        found = _joined([part for each in of_each for part in each._parts])
        return nearest_of(found, some._matrix, some._queries, some._k)


def nearest_of(
    found: Found, matrix: NDArray[Any], queries: NDArray[np.float64], k: int
) -> tuple[Found, NDArray[np.int64]]:
    """The k nearest of each query by cosines computed in float64 and rounded to float32, and each one's rank."""
    cosine = np.empty(len(found.row), np.float32)
    for first in range(0, len(cosine), _ROWS):
        part = slice(first, first + _ROWS)
        vectors = matrix[found.row[part]].astype(np.float64)
        # Row by row, so that a cosine is the same to the bit wherever the row is.
        products = np.einsum("ij,ij->i", vectors, queries[found.query[part]])
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        cosine[part] = products / lengths
    found = found._replace(cosine=cosine).take(np.lexsort((found.row, -cosine, found.query)))
    ranks = _ranks(found.query)
    keep = ranks < k
    return found.take(keep), ranks[keep]


def _joined(parts: Sequence[Found]) -> Found:
    nothing = Found(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    query, row, cosine = zip(nothing, *parts, strict=True)
    return Found(np.concatenate(query), np.concatenate(row), np.concatenate(cosine))


def _ranks(query: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each entry among those of its query, which are together and in order."""
    return np.arange(len(query)) - np.searchsorted(query, query)
