"""An index that is open: the graph proposes, the vectors themselves decide."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from poolembed.errors import UsageError, VectorsError
from poolembed.search.collection import Collection
from poolembed.search.exact import ExactSearch, Found, Hits, nearest_of
from poolembed.search.index.file import damaged, read_contents, starts_as_index
from poolembed.search.index.graph import Graph
from poolembed.search.index.names import Names
from poolembed.vectors import RowNumbers

_LOOKS = 32
"""Vectors that a search of the graph compares with a query for each candidate that it holds on to, or a few less."""


class Index:
    """Finds nearly the nearest rows of a collection; exactly them where that is no more work.

    Args:
        collection: keys, paths and vectors.
        graph: links them, and perhaps vectors that the collection no longer has.
        ids: ``(N,)``, each row's number in the graph, or -1.
        width: candidates that a search of the graph holds on to, or more where many are wanted.
    """

    def __init__(self, collection: Collection, graph: Graph, ids: NDArray[np.int64], width: int) -> None:
        self.collection = collection
        self.width = width
        self._exact = ExactSearch(collection)
        self._graph = graph
        linked = np.flatnonzero(ids >= 0)
        self._rows = np.full(len(graph), -1, np.int64)
        self._rows[ids[linked]] = linked

    def nearest(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None) -> Hits:
        """The k nearest rows of each query, or nearly; see `poolembed.search.exact.Searcher`.

        Every allowed row is compared with the queries where there are too few of them for the graph to save work, and
        with those queries that have less than k of them among the many nearest that the graph finds.

        Raises:
            VectorsError: a vector is damaged.
            UsageError: the queries are of another size, zero or not finite, or k is below 1.
        """
        precise = _unit(queries, self.collection.size, k)
        count = len(self.collection) if allowed is None else int(np.count_nonzero(allowed))
        kept = min(k, count)
        # Twice as many as are wanted, for the graph's own order is rough; and as many more as will not be allowed.
        reach = math.ceil((2 * kept + 8) * len(self._graph) / max(count, 1))
        width = max(self.width, 2 * reach)
        if _LOOKS * width >= count:
            return self._exact.nearest(queries, k, allowed)
        numbers = self._graph.near(precise.astype(np.float32), reach, width)
        rows_found = np.where(numbers >= 0, self._rows[numbers], -1)
        query, place = np.nonzero(rows_found >= 0)
        found = Found(query, rows_found[query, place], np.zeros(len(query), np.float32))
        if allowed is not None:
            found = found.take(allowed[found.row])
        best, ranks = nearest_of(found, self.collection.matrix, precise, k)
        if not np.isfinite(best.cosine).all():
            self.collection.unit_rows(best.row)  # says which
        rows = np.full((len(queries), k), -1, np.int64)
        cosines = np.full((len(queries), k), np.nan, np.float32)
        rows[best.query, ranks] = best.row
        cosines[best.query, ranks] = best.cosine
        few = np.flatnonzero((rows >= 0).sum(axis=1) < kept)
        if len(few):
            rest = self._exact.nearest(queries[few], k, allowed)
            rows[few], cosines[few] = rest.rows, rest.cosines
        return Hits(rows, cosines)


def is_index(path: str) -> bool:
    """Whether a file is what ``poolembed index`` writes, by its first bytes."""
    return starts_as_index(path)


def open_index(path: str) -> Index:
    """Open what ``poolembed index`` wrote.

    Raises:
        VectorsError: it cannot be read, is damaged, or is older than its collection.
        UsageError: usearch is not installed.
    """
    contents = read_contents(Path(path))
    about, parts = contents.about, contents.parts
    origin = about.origin
    if origin.has_changed():
        again = ["poolembed", "index", origin.source, "-o", path, *(["--paths", origin.paths] if origin.paths else [])]
        raise VectorsError(
            f"{path} is older than {origin.source}, which has changed since",
            hint=f"bring it up to date: {shlex.join(again)}",
        )
    try:
        graph = Graph.view(parts["graph"], parts["mean"], about.scale)
    except RuntimeError as error:
        raise damaged(path, error) from error
    keys = Names(parts["keys"], parts["key_ends"], path) if "keys" in parts else RowNumbers(len(parts["ids"]))
    paths = Names(parts["paths"], parts["path_ends"], path) if "paths" in parts else keys
    collection = Collection(path, keys, paths, parts["vectors"], False, about.model, origin.stamp, origin.source)
    return Index(collection, graph, parts["ids"], about.width)


def _unit(queries: NDArray[np.float32], size: int, k: int) -> NDArray[np.float64]:
    if queries.ndim != 2 or queries.shape[1] != size:
        raise UsageError(f"queries of shape {queries.shape} for vectors of {size} numbers")
    if k < 1:
        raise UsageError(f"k must be at least 1, got {k}")
    precise = queries.astype(np.float64)
    lengths = np.linalg.norm(precise, axis=1)
    if not np.all((lengths > 0) & np.isfinite(lengths)):
        raise UsageError("a query is zero, or not finite")
    precise /= lengths[:, None]
    return precise
