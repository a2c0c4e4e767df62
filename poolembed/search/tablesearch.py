"""The nearest vectors of a table: exactly, or by the table's index where it has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.errors import UsageError
from poolembed.search.exact import ExactSearch, Hits
from poolembed.search.lance import Names, Table, open_table, reaching, table_collection

PROBES = 60
"""Lists of an index that are looked through at least; more where filters leave too few rows in these."""

REFINED = 10
"""Vectors compared exactly for each one that is wanted, for an index holds them rounded to a bit a number."""

SAMPLED = 100
"""Songs of the table that are searched for to measure recall."""


class TableSearch:
    """Finds the rows of a table that are nearest.

    Without an index every vector is compared, and a few batches of them are in memory at once; with an index, those
    that it suggests, and those written since it was last brought up to date.

    Args:
        table: what to search.
        exact: do without the index.
    """

    def __init__(self, table: Table, *, exact: bool = False) -> None:
        self.table = table
        self._collection = table_collection(table)
        self._exact = exact or not table.indexed

    def nearest(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None) -> Hits:
        """The k nearest rows of each query; see `Searcher`. Without an index those of `ExactSearch`, to the bit.

        Raises:
            VectorsError: the table cannot be read, or a row is zero, or not finite.
        """
        hits = (self._compared if self._exact else self._suggested)(queries, k, allowed)
        found = np.unique(hits.rows)
        self.table.fetch_names(found[found >= 0].tolist())  # they are what is asked for next
        return hits

    def _compared(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> Hits:
        best = _nothing(len(queries), k)
        first = 0
        for batch in self.table.stream(["embedding"]):
            matrix = self.table.vectors(batch["embedding"])
            if not len(matrix):
                continue
            part = replace(self._collection, matrix=matrix, keys=Names(self.table, "key", first))
            usable = None if allowed is None else allowed[first : first + len(matrix)]
            found = ExactSearch(part).nearest(queries, k, usable)
            best = _better(best, Hits(np.where(found.rows < 0, -1, found.rows + first), found.cosines))
            first += len(matrix)
        return best

    def _suggested(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> Hits:
        hits = _nothing(len(queries), k)
        limits = {} if allowed is None else self._limits(allowed)
        for query, vector in enumerate(queries):
            nearest = {
                "column": "embedding",
                "q": vector.astype(self.table.dtype),
                "k": min(k, self.table.count),
                "minimum_nprobes": PROBES,
                "refine_factor": REFINED,
            }
            with reaching(self.table.place):
                found = self.table.dataset.scanner(
                    columns=["_rowoffset", "_distance"], nearest=nearest, disable_scoring_autoprojection=True, **limits
                ).to_table()
            rows = found["_rowoffset"].to_numpy().astype(np.int64)
            cosines = np.clip(1 - found["_distance"].to_numpy(), -1, 1)
            order = np.lexsort((rows, -cosines))
            hits.rows[query, : len(rows)] = rows[order]
            hits.cosines[query, : len(rows)] = cosines[order]
        return hits

    def _limits(self, allowed: NDArray[np.bool_]) -> dict[str, Any]:
        """What keeps a scan to some rows, before the nearest of them are chosen."""
        from lance.dataset import serialize_row_addrs

        fewer = allowed if 2 * np.count_nonzero(allowed) < len(allowed) else ~allowed
        addresses: Sequence[int] = self._addresses[fewer].tolist()
        name = "row_addr_allowlist" if fewer is allowed else "row_addr_blocklist"
        return {name: serialize_row_addrs(addresses), "prefilter": True}

    @cached_property
    def _addresses(self) -> NDArray[np.uint64]:
        """Where each row is: its file, and its place there."""
        with reaching(self.table.place):
            batches = self.table.dataset.scanner(columns=[], with_row_address=True, scan_in_order=True).to_batches()
            return np.concatenate([batch["_rowaddr"].to_numpy() for batch in batches])


def check_indexable(size: int) -> None:
    """Raise a UsageError if an index cannot hold vectors of so many numbers."""
    if size % 8:
        raise UsageError(f"an index needs vectors of a multiple of 8 numbers, and these have {size}")


def build_index(place: str) -> float:
    """Index the vectors and the names of a table, or bring its indexes up to date.

    That of the vectors (inverted lists, RaBitQ) has about a bit a number, and is learned from a sample.

    Returns:
        recall@10: of the 10 songs nearest to each of `SAMPLED`, the share that a search by the index finds.

    Raises:
        VectorsError: the table cannot be read or written.
    """
    table = open_table(place)
    with reaching(place):
        if table.indexed:
            table.dataset.optimize.optimize_indices()
        else:
            table.dataset.create_index("embedding", "IVF_RQ", metric="cosine")
            for name in ("path", "key"):
                table.dataset.create_scalar_index(name, "BTREE")
    table = open_table(place)
    rows = np.sort(np.random.default_rng(0).choice(table.count, min(SAMPLED, table.count), replace=False))
    queries = table_collection(table).unit_rows(rows)
    found, true = (TableSearch(table, exact=exact).nearest(queries, 11).rows.tolist() for exact in (False, True))
    wanted = [set(near) - {own, -1} for own, near in zip(rows.tolist(), true, strict=True)]
    got = sum(len(near & set(by_index)) for near, by_index in zip(wanted, found, strict=True))
    return got / sum(map(len, wanted)) if table.count > 1 else 1.0


def _nothing(queries: int, k: int) -> Hits:
    return Hits(np.full((queries, k), -1, np.int64), np.full((queries, k), np.nan, np.float32))


def _better(one: Hits, other: Hits) -> Hits:
    """The k nearest of two times k; of equally near ones the first, for rows of ``one`` come before ``other``'s."""
    rows = np.concatenate([one.rows, other.rows], axis=1)
    cosines = np.concatenate([one.cosines, other.cosines], axis=1)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : one.rows.shape[1]]  # NaN comes last
    return Hits(np.take_along_axis(rows, order, 1), np.take_along_axis(cosines, order, 1))
