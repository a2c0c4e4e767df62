"""The nearest vectors, exactly: every vector is compared with every query.

The matrix is read once, in blocks that fit a core's cache. While a block is there it is multiplied with the queries in
float32, its lengths are taken and its numbers checked. What comes near enough to be among the nearest, rounding errors
granted, is kept; at the end the cosines of the few that are left are computed again in float64, each row by itself. So
the answer depends neither on blocks and threads nor on what else is asked for, and equal vectors have equal cosines.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from poolembed.errors import UsageError
from poolembed.search.candidates import UNIT, Candidates, Found
from poolembed.search.collection import Collection

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

QUERIES = 256
"""Queries that share a reading of the matrix."""

BLOCK_BYTES = 2 << 20  # of float32: about what a core's own cache holds; half and twice as much are slower
_ENTRIES = 1 << 18  # of the answers to the queries of one reading: queries x k
_SAFE = 1e-30, 1e30  # squared lengths between which float32 neither overflows nor loses digits


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


@cache
def blas() -> ThreadpoolController:
    """The libraries that multiply matrices, with how many threads."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
