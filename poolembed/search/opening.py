"""Whatever vectors can be searched in, and the way to search them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from poolembed.errors import UsageError, VectorsError
from poolembed.search.collection import Collection, open_collection
from poolembed.search.exact import ExactSearch, Searcher
from poolembed.search.index import is_index, open_index
from poolembed.search.lance import TableSearch, is_table, open_table, table_collection


@dataclass(frozen=True)
class Library:
    """Songs, and what finds the nearest of them; rows of one are rows of the other."""

    collection: Collection
    searcher: Searcher


def open_library(source: str, paths: str | None = None, dim: int | None = None) -> Library:
    """Open a collection, an index or a table.

    Args:
        source: what `open_collection` takes, an index of ``poolembed index``, or a table of ``poolembed push``.
        paths: for a bare matrix, the text file with the path of each row.
        dim: take the first so many numbers of every vector; only of a collection.

    Raises:
        VectorsError: there is nothing of the kind, or it cannot be read.
        UsageError: `paths` or `dim` does not go with `source`.
    """
    if is_table(source):
        _refuse(source, "a table", paths, dim)
        table = open_table(source)
        return Library(table_collection(table), TableSearch(table))
    if is_index(source):
        _refuse(source, "an index", paths, dim)
        index = open_index(source)
        return Library(index.collection, index)
    if not os.path.exists(source):  # noqa: PTH110
        raise VectorsError(
            f"no collection {source}: no such file or directory",
            hint="poolembed embed ~/Music makes ./embeddings; --in names another one",
        )
    collection = open_collection(source, paths)
    if dim is not None:
        collection = collection.cut(dim)
    return Library(collection, ExactSearch(collection))


def _refuse(source: str, what: str, paths: str | None, dim: int | None) -> None:
    for option, value, why in (("--paths", paths, "has its own"), ("--dim", dim, "is searched as it was made")):
        if value is not None:
            raise UsageError(f"{option} does not go with {source}: {what} {why}")
