"""The nearest vectors, exactly: every vector is compared with every query.

The matrix is read once, in blocks that fit a core's cache. While a block is there it is multiplied with the queries in
float32, its lengths are taken and its numbers checked. What comes near enough to be among the nearest, rounding errors
granted, is kept; at the end the cosines of the few that are left are computed again in float64, each row by itself. So
the answer depends neither on blocks and threads nor on what else is asked for, and equal vectors have equal cosines.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from poolembed.errors import UsageError
from poolembed.search.collection import Collection

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

QUERIES = 256
"""Queries that share a reading of the matrix."""

BLOCK_BYTES = 2 << 20  # of float32: about what a core's own cache holds; half and twice as much are slower
_ENTRIES = 1 << 18  # of the answers to the queries of one reading: queries x k
_SAFE = 1e-30, 1e30  # squared lengths between which float32 neither overflows nor loses digits


UNIT = 2.0**-19
"""Squared lengths this near to 1 are taken for 1 as long as there are many candidates."""

_TOGETHER = 1024  # whose cosines are computed together in float64
MANY = 1 << 20  # candidates that are too many to wait for the end, as where nearly all vectors are equal


@dataclass(frozen=True)
class Hits:
    """What was found.

    Attributes:
        rows: ``(Q, k)`` of the collection: descending cosine, equal cosines by row; -1 where there are fewer than k.
        cosines: ``(Q, k)`` float32, -1 to 1; NaN where there is no row.
    """

    rows: NDArray[np.int64]
    cosines: NDArray[np.float32]


class Searcher(Protocol):
    """Finds the rows of a collection that are nearest."""

    def nearest(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None) -> Hits:
        """The k nearest rows of each query.

        Args:
            queries: ``(Q, D)`` of unit length.
            k: rows per query, at least 1.
            allowed: ``(N,)``; rows that may be found. None: all.
        """


class ExactSearch:
    """Compares queries with every vector of a collection, on as many threads as BLAS would use."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self._inverses = np.full(len(collection), np.nan, np.float32)  # of the rows' lengths, once they are known

    def nearest(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None) -> Hits:
        """The k nearest rows of each query; see `Searcher`. Queries need not be of unit length.

        Raises:
            VectorsError: a row is zero, or not finite.
            UsageError: the queries are of another size, zero or not finite, or k is below 1.
        """
        precise = unit_queries(queries, self.collection.size, k)
        rows = np.full((len(queries), k), -1, np.int64)
        cosines = np.full((len(queries), k), np.nan, np.float32)
        kept = min(k, len(self.collection))
        batch = max(1, min(QUERIES, _ENTRIES // kept))
        for first in range(0, len(queries), batch):
            found, ranks = self._read(precise[first : first + batch], kept, allowed)
            rows[first + found.query, ranks] = found.row
            cosines[first + found.query, ranks] = found.cosine
        return Hits(rows, cosines)

    def _read(
        self, queries: NDArray[np.float64], k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[Found, NDArray[np.int64]]:
        """The k nearest of each query and their ranks, by all threads in one reading of the matrix."""
        rounded = queries.astype(np.float32)
        step = max(64, BLOCK_BYTES // (4 * self.collection.size))
        firsts = iter(range(0, len(self.collection), step))  # each thread takes the next

        def work() -> Candidates:
            candidates = Candidates(self.collection.matrix, queries, k)
            room = np.empty((len(queries), step), np.float32)  # new memory for every block would cost a tenth
            for first in firsts:
                rows = slice(first, min(first + step, len(self.collection)))
                scores = self._scores(rounded, rows, room[:, : rows.stop - first])
                if allowed is not None:
                    scores[:, ~allowed[rows]] = -np.inf
                candidates.add(first, scores)
            return candidates

        libraries = blas()
        threads = max((each["num_threads"] for each in libraries.info()), default=1)
        if threads == 1 or len(self.collection) <= step:
            return Candidates.best([work()])
        with libraries.limit(limits=1), ThreadPoolExecutor(threads) as pool:
            started = [pool.submit(work) for _ in range(threads)]
            return Candidates.best([future.result() for future in started])

    def _scores(self, queries: NDArray[np.float32], rows: slice, room: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosines of consecutive rows, ``(Q, rows)``, in `room`; rows are checked when they are read first."""
        with np.errstate(over="ignore", invalid="ignore"):
            block = np.asarray(self.collection.matrix[rows], np.float32)
            np.matmul(queries, block.T, out=room)
            inverses = self._inverses[rows]
            if np.isnan(inverses[0]):
                squares = np.vecdot(block, block)  # second, when the block is in the cache: the product is the slower
                low, high = _SAFE
                if not (low < squares.min() and squares.max() < high):
                    return np.matmul(queries, self.collection.unit_rows(rows).T, out=room)
                inverses[:] = 1 if np.abs(squares - 1).max() < UNIT else 1 / np.sqrt(squares)
        return room if np.all(inverses == 1) else np.multiply(room, inverses, out=room)


def unit_queries(queries: NDArray[np.float32], size: int, k: int) -> NDArray[np.float64]:
    """Queries ``(Q, D)``, brought to unit length.

    Raises:
        UsageError: they are not of `size` numbers, or zero, or not finite; or `k` is below 1.
    """
    if queries.ndim != 2 or queries.shape[1] != size:
        raise UsageError(f"queries of shape {queries.shape} for vectors of {size} numbers")
    if k < 1:
        raise UsageError(f"k must be at least 1, got {k}")
    precise = queries.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", precise, precise))
    if not np.all((lengths > 0) & np.isfinite(lengths)):
        raise UsageError("a query is zero, or not finite")
    precise /= lengths[:, None]
    return precise


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
    for first in range(0, len(cosine), _TOGETHER):
        part = slice(first, first + _TOGETHER)
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


@cache
def blas() -> ThreadpoolController:
    """The libraries that multiply matrices, with how many threads."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
