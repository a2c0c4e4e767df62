"""A collection into a table (`poolembed.search.lance`), so that the table holds each of its songs once, as it is now.

Songs are known by their paths. Those that the table does not have are added, those whose embedding is another are
replaced, and all others are left alone; what the collection does not have stays. So the same push again writes nothing,
and after new songs only those. Rows are written some thousands at a time, and each lot appears whole or not at all:
after a kill the same push does the rest. Two pushes into one table at the same time are not kept apart: if both add the
same song, it is there twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.errors import VectorsError
from poolembed.identity import ModelIdentity
from poolembed.progress import Progress, silent
from poolembed.search.collection import Collection
from poolembed.search.lance import (
    FINGERPRINT,
    MODEL,
    ROWS,
    LanceTable,
    check_written,
    find_table,
    load_lance,
    reaching,
)
from poolembed.text import path_text
from poolembed.vectors import check_rows

ADDED = 8 * ROWS
"""Rows that are added in one commit; a commit of its own for every few would make the table slow to open."""

_NEW, _SAME, _CHANGED = range(3)


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push came to.

    Attributes:
        new: songs added.
        changed: songs replaced, for their embedding was another.
        unchanged: songs left alone.
        others: songs of the table that the collection does not have.
        left: songs to add or replace that were not reached, for the push was told to stop.
    """

    new: int
    changed: int
    unchanged: int
    others: int
    left: int


def push(collection: Collection, place: str, *, progress: Progress = silent, stop: Event | None = None) -> Pushed:
    """Bring a table up to a collection, and make it if there is none.

    Memory grows with the number of the collection's songs by their names and some 200 bytes each, and not with their
    vectors, nor with what the table holds.

    Args:
        collection: what to push.
        place: a path or URI that ends in ``.lance``.
        progress: told how far it is.
        stop: ends the push after the rows in hand once it is set.

    Raises:
        UsageError: the library that writes tables is not installed.
        VectorsError: a vector is zero or not finite, two are of one path or some of none, the table holds vectors of
            another model or size, or it cannot be read or written.
    """
    if not collection.named:
        raise VectorsError(
            f"{collection.source} does not name its songs, and a table knows them by their paths",
            hint="--paths FILE does, with a path a line",
        )
    lance = load_lance(place)
    table = find_table(place)
    if table is not None:
        _refuse_mismatch(collection, table)
    native = np.float16 if collection.matrix.dtype == np.float16 else np.float32
    dtype = np.dtype(native) if table is None else table.dtype
    row_of = _rows_by_path(collection)
    digests = _digests(collection, dtype, progress)
    state = np.full(len(collection), _NEW, np.uint8)
    others = 0 if table is None else _compare(table, row_of, digests, state, progress)
    del row_of

    schema = _schema(collection, dtype)
    mode = "append" if table is not None else "create"
    dataset: Any = None if table is None else table.dataset
    done = {_NEW: 0, _CHANGED: 0}
    todo = int(np.count_nonzero(state != _SAME))
    for kind, rows in _lots(state):
        if stop is not None and stop.is_set():
            break
        progress("writing", sum(done.values()), todo)
        before = None if dataset is None else dataset.version  # which the merge moves on
        with reaching(place):
            if kind == _NEW:
                batches = _batches(collection, rows, digests, schema)
                lance.write_dataset(_reader(schema, batches), place, schema=schema, mode=mode)
                mode = "append"
            else:
                (batch,) = _batches(collection, rows, digests, schema)
                dataset.merge_insert("path").when_matched_update_all().execute(_reader(schema, iter([batch])))
        dataset = check_written(place, before)
        done[kind] += len(rows)
    return Pushed(done[_NEW], done[_CHANGED], len(collection) - todo, others, left=todo - sum(done.values()))


def _refuse_mismatch(collection: Collection, table: LanceTable) -> None:
    there, here = table.model, collection.model
    if (there and there.fingerprint) != (here and here.fingerprint):
        what = f"vectors of {_called(there)}, and {collection.source} has those of {_called(here)}"
    elif table.size != collection.size:
        what = f"vectors of {table.size} numbers, and those of {collection.source} have {collection.size}"
    else:
        return
    raise VectorsError(f"the table {table.place} holds {what}", hint="push them to another table")


def _called(model: ModelIdentity | None) -> str:
    return "no known model" if model is None else f"the model {model.name} ({model.fingerprint[:8]})"


def _rows_by_path(collection: Collection) -> dict[str, int]:
    rows: dict[str, int] = {}
    for row, path in enumerate(collection.paths):
        first = rows.setdefault(path_text(path), row)
        if first != row:
            raise VectorsError(
                f"rows {first} and {row} of {collection.source} are both of {path}, by which a table knows a song",
                hint="leave one of them out",
            )
    return rows


def _digests(collection: Collection, dtype: np.dtype[Any], progress: Progress) -> list[bytes]:
    """16 bytes for each vector as it is to be stored."""
    digests = []
    for first in range(0, len(collection), ROWS):
        progress("reading", first, len(collection))
        rows = np.arange(first, min(first + ROWS, len(collection)))
        block = _stored(collection, rows, dtype)
        if not (np.isfinite(block).all() and block.any(axis=1).all()):
            check_rows(collection.matrix, collection.keys, collection.source)  # names them all
            raise VectorsError(f"the vectors of {collection.source} are too large or too small for {dtype}")
        digests += [hashlib.blake2b(vector, digest_size=16).digest() for vector in block]
    return digests


def _stored(collection: Collection, rows: NDArray[np.int64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Some vectors as they are stored: not brought to unit length, so that a search in the table finds the same."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(collection.matrix[rows], dtype.newbyteorder("<"))


def _compare(
    table: LanceTable,
    row_of: dict[str, int],
    digests: list[bytes],
    state: NDArray[np.uint8],
    progress: Progress,
) -> int:
    """Set the state of the songs that the table has; how many it has besides."""
    others = seen = 0
    for batch in table.stream(["path", "digest"]):
        progress("comparing", seen, table.count)
        seen += len(batch["path"])
        for path, digest in zip(batch["path"].to_pylist(), batch["digest"].to_pylist(), strict=True):
            row = row_of.get(path)
            if row is None:
                others += 1
            else:
                state[row] = _SAME if digest == digests[row] else _CHANGED
    return others


def _lots(state: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The rows of each commit. Those that replace others are few, for they are looked up in the table together."""
    for kind, size in ((_NEW, ADDED), (_CHANGED, ROWS)):
        rows = np.flatnonzero(state == kind)
        for first in range(0, len(rows), size):
            yield kind, rows[first : first + size]


def _batches(collection: Collection, rows: NDArray[np.int64], digests: list[bytes], schema: Any) -> Iterator[Any]:
    import pyarrow as pa

    vector = schema.field("embedding").type
    for first in range(0, len(rows), ROWS):
        some = rows[first : first + ROWS]
        block = _stored(collection, some, np.dtype(vector.value_type.to_pandas_dtype()))
        columns = {
            "path": pa.array([path_text(collection.paths[row]) for row in some.tolist()], pa.string()),
            "key": pa.array([path_text(collection.keys[row]) for row in some.tolist()], pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), type=vector),
            "digest": pa.array([digests[row] for row in some.tolist()], pa.binary(16)),
        }
        yield pa.record_batch(columns, schema=schema)


def _reader(schema: Any, batches: Iterator[Any]) -> Any:
    import pyarrow as pa

    return pa.RecordBatchReader.from_batches(schema, batches)


def _schema(collection: Collection, dtype: np.dtype[Any]) -> Any:
    import pyarrow as pa

    fields = [
        ("path", pa.string()),
        ("key", pa.string()),
        ("embedding", pa.list_(pa.from_numpy_dtype(dtype), collection.size)),
        ("digest", pa.binary(16)),
    ]
    model = collection.model
    return pa.schema(fields, {} if model is None else {MODEL: model.name, FINGERPRINT: model.fingerprint})
