"""An index that is open: the graph proposes, the vectors themselves decide.

The graph is HNSW (Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using Hierarchical
Navigable Small World graphs, 2018) over vectors of eight-bit integers, which a processor compares fastest and memory
delivers soonest. Squared distances between vectors of unit length are in the order of their cosines, and stay the same
when one vector is subtracted from all, so the mean is: of embeddings that crowd in one direction the integers then tell
what they differ in.
"""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.errors import UsageError, VectorsError
from poolembed.search.collection import Collection
from poolembed.search.exact import ExactSearch, Found, Hits, nearest_of, unit_queries
from poolembed.search.index.file import Contents, PackedNames, damaged, read_contents
from poolembed.vectors import RowNumbers

# What tests/benchmarks/index.py found good.
CONNECTIVITY = 48
BUILDING_WIDTH = 192
"""How wide a search for the neighbours of a new vector looks."""

LOOKS = 32
"""Vectors that a search of the graph compares with a query for each candidate that it holds on to, or a few less."""

LARGEST = 127


class Index:
    """Finds nearly the nearest rows of a collection; exactly them where that is no more work.

    Args:
        collection: keys, paths and vectors.
        graph: of usearch, its keys are the rows.
        mean: ``(D,)``, subtracted from every vector before it is rounded.
        scale: multiplied with every difference.
        width: candidates that a search of the graph holds on to, or more where many are wanted.
    """

    def __init__(self, collection: Collection, graph: Any, mean: NDArray[np.float32], scale: float, width: int) -> None:
        self.graph = graph  # first, so that it is gone before the mapped file that it may look into
        self.collection = collection
        self.width = width
        self._exact = ExactSearch(collection)
        self.mean, self.scale = mean, scale

    def nearest(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None) -> Hits:
        """The k nearest rows of each query, or nearly; see `poolembed.search.exact.Searcher`.

        Every allowed row is compared with the queries where there are too few of them for the graph to save work, and
        with those queries that have less than k of them among the many nearest that the graph finds.

        Raises:
            VectorsError: a vector is damaged.
            UsageError: the queries are of another size, zero or not finite, or k is below 1.
        """
        precise = unit_queries(queries, self.collection.size, k)
        count = len(self.collection) if allowed is None else int(np.count_nonzero(allowed))
        kept = min(k, count)
        # Twice as many as are wanted, for the graph's own order is rough; and as many more as will not be allowed.
        reach = math.ceil((2 * kept + 8) * len(self.collection) / max(count, 1))
        width = max(self.width, 2 * reach)
        if LOOKS * width >= count:
            return self._exact.nearest(queries, k, allowed)
        self.graph.expansion_search = width
        rounded = round_off(precise.astype(np.float32), self.mean, self.scale)
        # Of a single query the answer comes without its axis, and then threads would only cost.
        near = self.graph.search(rounded, reach, threads=1 if len(queries) == 1 else 0)
        rows_near = near.keys.astype(np.int64).reshape(len(queries), -1)
        counts = near.counts if len(queries) > 1 else [rows_near.shape[1]]
        # Behind those that were found keys are 0.
        query, place = np.nonzero(np.arange(rows_near.shape[1]) < np.reshape(counts, (-1, 1)))
        found = Found(query, rows_near[query, place], np.zeros(len(query), np.float32))
        if len(found.row) and not 0 <= found.row.min() <= found.row.max() < len(self.collection):
            raise damaged(self.collection.source, "its graph has other rows")
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


def open_index(path: str) -> Index:
    """Open what ``poolembed index`` wrote.

    Raises:
        VectorsError: it cannot be read, is damaged, or is older than its collection.
        UsageError: usearch is not installed.
    """
    contents = read_contents(Path(path))
    about, origin = contents.about, contents.about.origin
    if origin.has_changed():
        again = ["poolembed", "index", origin.source, "-o", path, *(["--paths", origin.paths] if origin.paths else [])]
        raise VectorsError(
            f"{path} is older than {origin.source}, which has changed since",
            hint=f"bring it up to date: {shlex.join(again)}",
        )
    graph = restore(contents, path, view=True)
    count, bounds = about.shape[0], contents.bounds
    keys, paths = (
        (PackedNames(contents.names, bounds[first : first + count + 1], path) for first in (0, count))
        if len(bounds)
        else [RowNumbers(count)] * 2
    )
    collection = Collection(path, keys, paths, contents.vectors, False, about.model, origin.stamp, origin.source)
    return Index(collection, graph, contents.mean, about.scale, about.width)


def new_graph(size: int) -> Any:
    """An empty graph of usearch for vectors of so many numbers.

    Raises:
        UsageError: usearch is not installed.
    """
    settings: Any = {"metric": "l2sq", "dtype": "i8", "connectivity": CONNECTIVITY}
    return _usearch().Index(ndim=size, expansion_add=BUILDING_WIDTH, **settings)


def restore(contents: Contents, path: object, *, view: bool) -> Any:
    """An index's graph, copied into memory, so that it can be changed; or where it is, which usearch does not keep.

    Raises:
        VectorsError: it is damaged.
        UsageError: usearch is not installed.
    """
    usearch = _usearch()
    try:
        about = usearch.Index.metadata(contents.graph)
        kinds = usearch.MetricKind.L2sq, usearch.ScalarKind.I8
        if (about["kind_metric"], about["kind_scalar"], about["dimensions"]) != (*kinds, contents.about.shape[1]):
            raise damaged(path, "it has vectors of another kind")
        graph = usearch.Index.restore(
            contents.graph, view=view, expansion_add=BUILDING_WIDTH, enable_key_lookups=not view
        )
    except RuntimeError as error:
        raise damaged(path, error) from error
    if len(graph) != len(contents.vectors):
        raise damaged(path, "vectors and graph do not belong together")
    return graph


def round_off(vectors: NDArray[np.float32], mean: NDArray[np.float32], scale: float) -> NDArray[np.int8]:
    """Vectors ``(n, D)`` as a graph has them; numbers beyond 127 are cut off."""
    numbers = np.rint((vectors - mean) * np.float32(scale)).clip(-LARGEST, LARGEST)
    rounded: NDArray[np.int8] = numbers.astype(np.int8)
    return rounded


def _usearch() -> Any:
    try:
        import usearch.index
    except ImportError as error:
        raise UsageError(
            "an index needs the library usearch", hint="from poolembed's checkout: pip install '.[index]'"
        ) from error
    return usearch.index
