"""An index that is open: the graph proposes, the vectors themselves decide."""

from __future__ import annotations

import math
import os
import shlex
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from poolembed.embed.manifest import NAME
from poolembed.errors import OutputError, UsageError, VectorsError
from poolembed.search.candidates import Found, nearest_of
from poolembed.search.collection import Collection, open_collection
from poolembed.search.exact import ExactSearch, Hits
from poolembed.search.index.file import About, Contents, read_contents, starts_as_index
from poolembed.search.index.graph import Graph
from poolembed.search.index.names import Names
from poolembed.vectors import RowNumbers

_LOOKS = 32
"""Vectors that a search compares with a query for each candidate that it holds on to, or a few more."""


class Index:
    """Finds nearly the nearest rows of a collection; exactly them where that is no more work.

    Args:
        contents: the file's.
        source: what to call it.

    Attributes:
        collection: keys, paths and vectors, float16, as the index holds them.
        width: candidates that a search for ten holds on to.

    Raises:
        UsageError: usearch is not installed.
        VectorsError: the graph is damaged.
    """

    def __init__(self, contents: Contents, source: str) -> None:
        about, parts = contents.about, contents.parts
        count = len(parts["vectors"])
        keys = Names(parts["keys"], parts["key_ends"], source) if "keys" in parts else RowNumbers(count)
        paths = Names(parts["paths"], parts["path_ends"], source) if "paths" in parts else keys
        self.collection = Collection(source, keys, paths, parts["vectors"], False, about.model, about.stamp)
        self.width = about.width
        self._exact = ExactSearch(self.collection)
        try:
            self._graph = Graph.view(parts["graph"], parts["mean"], about.scale)
        except RuntimeError as error:
            raise VectorsError(f"{source} is damaged: {error}", hint="delete it, and build it again") from error
        self._rows = np.full(len(self._graph), -1, np.int64)
        self._rows[parts["ids"]] = np.arange(count)

    def nearest(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None) -> Hits:
        """The k nearest rows of each query, or nearly; see `poolembed.search.exact.Searcher`.

        Where rows are not allowed, or there are too few vectors for a graph to save work, every allowed row is compared
        with the query; so are they for a query that has too few of them among its many nearest.

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
        found_rows = np.where(numbers >= 0, self._rows[numbers], -1)
        query, place = np.nonzero(found_rows >= 0)
        found = Found(query, found_rows[query, place], np.zeros(len(query), np.float32))
        if allowed is not None:
            found = found.take(allowed[found.row])
        few = np.flatnonzero(np.bincount(found.query, minlength=len(queries)) < kept)
        best, ranks = nearest_of(found, self.collection.matrix, precise, k)
        if not np.isfinite(best.cosine).all():
            self.collection.unit_rows(best.row)  # says which
        rows = np.full((len(queries), k), -1, np.int64)
        cosines = np.full((len(queries), k), np.nan, np.float32)
        rows[best.query, ranks] = best.row
        cosines[best.query, ranks] = best.cosine
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
    about = contents.about
    if _is_old(about):
        again = ["poolembed", "index", about.source, "-o", path, *(["--paths", about.paths] if about.paths else [])]
        raise VectorsError(
            f"{path} is older than {about.source}, whose songs have changed since",
            hint=f"bring it up to date: {shlex.join(again)}",
        )
    return Index(contents, path)


def times_of(source: str, paths: str | None) -> list[tuple[str, int, int]]:
    """Path, size and time of the files that are written whenever a collection changes; none where it is gone."""
    place = Path(source)
    files = [place / NAME] if place.is_dir() else [place, place.parent / NAME]
    seen = []
    for file in [*files, *([Path(paths)] if paths else [])]:
        try:
            status = file.stat()
        except OSError:
            continue
        seen.append((os.fspath(file), status.st_size, status.st_mtime_ns))
    return seen


def _is_old(about: About) -> bool:
    """Whether the collection has changed. One that is gone cannot have; the index has all that a search needs."""
    if not os.path.exists(about.source) or times_of(about.source, about.paths) == about.seen:  # noqa: PTH110
        return False
    try:
        return open_collection(about.source, about.paths).stamp != about.stamp
    except (VectorsError, OutputError):
        return True


def _unit(queries: NDArray[np.float32], size: int, k: int) -> NDArray[np.float64]:
    if queries.ndim != 2 or queries.shape[1] != size:
        raise UsageError(f"queries of shape {queries.shape} for vectors of {size} numbers")
    if k < 1:
        raise UsageError(f"k must be at least 1, got {k}")
    precise: NDArray[np.float64] = queries.astype(np.float64)
    lengths = np.linalg.norm(precise, axis=1)
    if not np.all((lengths > 0) & np.isfinite(lengths)):
        raise UsageError("a query is zero, or not finite")
    unit: NDArray[np.float64] = precise / lengths[:, None]
    return unit
