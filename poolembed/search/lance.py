"""Songs in a Lance table: a folder on one machine, or the same thing in an object store for many.

A table is a place whose name ends in ``.lance``: ``music.lance``, ``s3://bucket/music.lance``, ``gs://…``, ``az://…``.
It needs no server, and LanceDB opens it too. Its columns are ``path``, by which a song is known, ``key``, ``embedding``
and ``digest``, of the embedding as it is stored; its schema says which model the embeddings are of. Credentials for an
object store are those of the environment, as its vendor names them.

`poolembed.search.push` writes tables. Here they are opened, read and searched, a few batches of them at once.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from poolembed.errors import UsageError, VectorsError
from poolembed.identity import ModelIdentity
from poolembed.search.collection import Collection
from poolembed.search.exact import ExactSearch, Hits
from poolembed.text import path_text

SUFFIX = ".lance"
MODEL, FINGERPRINT = "poolembed_model", "poolembed_fingerprint"  # in a schema's metadata, as in Parquet of embed
COLUMNS = ("path", "key", "embedding", "digest")

ROWS = 8192
"""Rows that are read together."""

_READ_AHEAD = 32 << 20  # bytes, for each column


def is_lance(place: str) -> bool:
    """Whether a place is called as a table is; nothing is looked at."""
    return place.rstrip("/").endswith(SUFFIX)


@dataclass(frozen=True)
class LanceTable:
    """An opened table, as it is at one moment: what others write meanwhile is not seen.

    Attributes:
        place: where it is, as given.
        dataset: of the library lance.
        model: whose vectors they are, or None where nothing says so.
        size: D, the numbers in a vector.
        dtype: float32 or float16.
    """

    place: str
    dataset: Any
    model: ModelIdentity | None
    size: int
    dtype: np.dtype[Any]
    _names: dict[int, dict[str, str]] = field(default_factory=dict, repr=False)  # of rows that are asked for next

    @cached_property
    def count(self) -> int:
        """N, the songs."""
        with reaching(self.place):
            return int(self.dataset.count_rows())

    def stream(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Some columns of all rows in order, in batches of at most `ROWS`: name -> Arrow array.

        Raises:
            VectorsError: it cannot be read on.
        """
        with reaching(self.place):
            scanner = self.dataset.scanner(
                columns=list(columns),
                batch_size=ROWS,
                batch_readahead=2,
                fragment_readahead=2,
                io_buffer_size=_READ_AHEAD,
                scan_in_order=True,
            )
            for batch in scanner.to_batches():
                yield dict(zip(batch.schema.names, batch.columns, strict=True))

    def take(self, rows: Sequence[int] | NDArray[np.int64], columns: Sequence[str]) -> Any:
        """Some columns of some rows, as an Arrow table.

        Raises:
            VectorsError: they cannot be read.
        """
        with reaching(self.place):
            return self.dataset.take(np.asarray(rows, np.int64).tolist(), columns=list(columns))

    def find(self, names: Iterable[str]) -> Iterator[tuple[int, str, str]]:
        """The songs whose path or key is one of some names: row, key and path of each, in order.

        Raises:
            VectorsError: the table cannot be read.
        """
        wanted = ", ".join("'" + path_text(name).replace("'", "''") + "'" for name in sorted(names))
        if not wanted:
            return
        with reaching(self.place):
            found = self.dataset.scanner(
                columns=["_rowoffset", "key", "path"], filter=f"path IN ({wanted}) OR key IN ({wanted})"
            ).to_table()
        yield from sorted(zip(*(found[name].to_pylist() for name in ("_rowoffset", "key", "path")), strict=True))

    def name(self, row: int, column: str) -> str:
        """The path or key of a row."""
        if row not in self._names:
            self.fetch_names([row])
        return self._names[row][column]

    def fetch_names(self, rows: Sequence[int]) -> None:
        """Read paths and keys of some rows together, and forget others: an object store takes a while to answer."""
        names = self.take(rows, ["path", "key"]).to_pylist()
        self._names.clear()
        self._names.update(zip(rows, names, strict=True))

    def vectors(self, embeddings: Any) -> NDArray[Any]:
        """An Arrow array, or column, of embeddings: ``(n, D)``."""
        chunks = getattr(embeddings, "chunks", [embeddings])
        parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.size) for chunk in chunks]
        return np.concatenate([np.empty((0, self.size), self.dtype), *parts]) if len(parts) != 1 else parts[0]


def open_table(place: str) -> LanceTable:
    """Open a table.

    Args:
        place: a path or URI that ends in ``.lance``.

    Raises:
        UsageError: the library that reads tables is not installed.
        VectorsError: there is no table, it cannot be reached, or `poolembed.search.push` did not write it.
    """
    table = find_table(place)
    if table is None:
        raise VectorsError(f"no table {place}", hint=f"make it: poolembed push embeddings/ --to {place}")
    return table


def find_table(place: str) -> LanceTable | None:
    """Open a table if there is one; as `open_table`."""
    lance = load_lance(place)
    with reaching(place):
        try:
            dataset = lance.dataset(place)
        except ValueError as error:
            if "was not found" in str(error):
                return None
            raise
    schema = dataset.schema
    if not set(COLUMNS) <= set(schema.names) or not _is_vector(schema.field("embedding").type):
        raise VectorsError(
            f"{place} is a Lance table, but not one of poolembed push: it has the columns {', '.join(schema.names)}",
            hint="choose another name",
        )
    vector = schema.field("embedding").type
    told = {name.decode(): value.decode() for name, value in (schema.metadata or {}).items()}
    known = MODEL in told and FINGERPRINT in told
    return LanceTable(
        place=place,
        dataset=dataset,
        model=ModelIdentity(told[MODEL], told[FINGERPRINT], vector.list_size) if known else None,
        size=vector.list_size,
        dtype=np.dtype(vector.value_type.to_pandas_dtype()),
    )


def check_written(place: str, before: int | None) -> Any:
    """Look into every file that the last commit has written; where one cannot be read, take the commit back.

    The library lance does not notice that the last write of a file came short, as on a disk with room for a part of it.

    Args:
        place: of the table.
        before: the version before; None if the commit has made the table.

    Returns:
        The library's dataset of the version that is there now.

    Raises:
        VectorsError: a file cannot be read. The table is as it was before, and empty if there was none.
    """
    lance = load_lance(place)
    try:
        with reaching(place):
            earlier = [] if before is None else lance.dataset(place, version=before).get_fragments()
            known = {each.fragment_id: each.metadata for each in earlier}
            dataset = lance.dataset(place)
            for fragment in dataset.get_fragments():
                if fragment.metadata != known.get(fragment.fragment_id):
                    fragment.scanner(columns=["path"], limit=1).to_table()
    except VectorsError as error:
        hint = "the table is as it was before; is there room on its disk?"
        try:
            with reaching(place):
                if before is None:
                    lance.dataset(place).truncate_table()
                else:
                    lance.dataset(place, version=before).restore()
        except VectorsError:
            hint = "nor can it be taken back" + ("; remove the table" if before is None else "")
        raise VectorsError(f"{error.message}: what was written last cannot be read", hint=hint) from error
    return dataset


def _is_vector(type: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_fixed_size_list(type) and type.value_type in (pa.float32(), pa.float16())


def load_lance(place: str) -> Any:
    """The library lance, which takes half a second to import.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import lance
    except ImportError as error:
        raise UsageError(
            f"the table {place} needs the library lance", hint="from poolembed's checkout: pip install '.[lance]'"
        ) from error
    return lance


@contextmanager
def reaching(place: str) -> Iterator[None]:
    """Turn what the library lance raises inside the block into a VectorsError about the table."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        # It says in which line of its source, and of which libraries beneath, an error arose.
        told = re.sub(r",? ?\S+\.rs:\d+:\d+|LanceError\(\w+\): ", "", str(error)).split("\n")[0]
        hint = None
        if "://" in place:
            hint = "credentials and endpoint come from the environment: AWS_…, GOOGLE_… or AZURE_…"
        raise VectorsError(f"cannot use the table {place}: {told[:_TOLD]}", hint=hint) from error


_TOLD = 300  # characters of an error that may hold a whole answer of a server


def table_collection(table: LanceTable) -> Collection:
    """A table as a collection whose names and vectors are read when they are asked for, and not before."""
    stamp = hashlib.blake2b(f"{table.place}\n{table.dataset.version}".encode(), digest_size=8).hexdigest()
    return Collection(
        source=table.place,
        keys=NameColumn(table, "key"),
        paths=NameColumn(table, "path"),
        matrix=cast(NDArray[Any], _Matrix(table)),
        unit=False,  # for another kind of number may have been pushed
        model=table.model,
        stamp=stamp,
    )


class NameColumn(Sequence[str]):
    """A column of names of a table, from row `first` on; all of them are streamed."""

    def __init__(self, table: LanceTable, name: str, first: int = 0) -> None:
        self.table = table
        self._name, self._first = name, first

    def __len__(self) -> int:
        return self.table.count - self._first

    def __getitem__(self, row: Any) -> Any:
        rows = range(self._first, self.table.count)[row]
        if isinstance(rows, int):
            return self.table.name(rows, self._name)
        return self.table.take(rows, [self._name])[self._name].to_pylist()

    def __iter__(self) -> Iterator[str]:
        names = (name for batch in self.table.stream([self._name]) for name in batch[self._name].to_pylist())
        return itertools.islice(names, self._first, None)


class _Matrix:
    """As much of an array ``(N, D)`` as a collection needs; reads the rows that are asked for."""

    def __init__(self, table: LanceTable) -> None:
        self._table = table
        self.shape = (table.count, table.size)
        self.dtype = table.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        wanted = np.arange(len(self))[rows]
        return self._table.vectors(self._table.take(wanted, ["embedding"])["embedding"])


class TableSearch:
    """Finds the rows of a table that are nearest: every vector is compared, a few batches of them at once."""

    def __init__(self, table: LanceTable) -> None:
        self.table = table
        self._collection = table_collection(table)

    def nearest(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None) -> Hits:
        """The k nearest rows of each query, those of `ExactSearch`, to the bit; see `Searcher`.

        Raises:
            VectorsError: the table cannot be read, or a row is zero, or not finite.
        """
        rows = np.full((len(queries), k), -1, np.int64)
        cosines = np.full((len(queries), k), np.nan, np.float32)
        first = 0
        for batch in self.table.stream(["embedding"]):
            matrix = self.table.vectors(batch["embedding"])
            if not len(matrix):
                continue
            part = replace(self._collection, matrix=matrix, keys=NameColumn(self.table, "key", first))
            usable = None if allowed is None else allowed[first : first + len(matrix)]
            found = ExactSearch(part).nearest(queries, k, usable)
            # Of equally near ones those of earlier batches come first; NaN comes last.
            rows = np.concatenate([rows, np.where(found.rows < 0, -1, found.rows + first)], axis=1)
            cosines = np.concatenate([cosines, found.cosines], axis=1)
            order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
            rows, cosines = np.take_along_axis(rows, order, 1), np.take_along_axis(cosines, order, 1)
            first += len(matrix)
        self.table.fetch_names(np.unique(rows[rows >= 0]).tolist())  # they are what is asked for next
        return Hits(rows, cosines)
