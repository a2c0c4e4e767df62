"""From a directory or file to vectors and their names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from poolembed.embed.manifest import NAME, Manifest, Record, read_manifest
from poolembed.embed.outputs.table import rows_of
from poolembed.errors import VectorsError
from poolembed.files.reading import read_list, read_regular
from poolembed.identity import ModelIdentity
from poolembed.vectors.npy import WAYS, map_npy, read_tree
from poolembed.vectors.tables import is_table, read_table

_SHOWN = 5
_BLOCK = 4096


@dataclass(frozen=True)
class Vectors:
    """Vectors and what they are of.

    Attributes:
        keys: N names: for ``poolembed embed`` paths below the folder that was embedded, else paths as given.
        paths: N paths: for ``poolembed embed`` from the root, else as given.
        matrix: ``(N, D)`` float32, finite, none of them all zeros.
        source: where they were read from.
    """

    keys: Sequence[str]
    paths: Sequence[str]
    matrix: NDArray[np.float32]
    source: str


@dataclass(frozen=True)
class Stored:
    """Vectors as they are on the disk, their numbers not looked at yet.

    Attributes:
        keys: as those of `Vectors`; the numbers of the rows where nothing names them.
        paths: as those of `Vectors`.
        matrix: ``(N, D)`` of any kind of number; mapped into memory if it is one ``.npy`` file.
        model: whose vectors they are, where that is known.
        stamp: 16 hexadecimal digits that change whenever the vectors or their paths do; and when their files are
            written again, or copied without their times.
    """

    keys: Sequence[str]
    paths: Sequence[str]
    matrix: NDArray[Any]
    model: ModelIdentity | None
    stamp: str


def read_vectors(path: str | os.PathLike[str], paths: str | os.PathLike[str] | None = None) -> Vectors:
    """Read vectors; see the head of this package.

    Args:
        path: the directory or file.
        paths: for a bare matrix, the text file with a path per row, UTF-8, in the order of the rows.

    Raises:
        VectorsError: they cannot be read, there are none, or some are not finite or zero.
        OutputError: the manifest is damaged.
    """
    stored = open_vectors(path, paths)
    check_rows(stored.matrix, stored.keys, os.fspath(path))
    return Vectors(stored.keys, stored.paths, np.require(stored.matrix, np.float32, ["C", "W"]), os.fspath(path))


def open_vectors(
    path: str | os.PathLike[str], paths: str | os.PathLike[str] | None = None, *, numbered: bool = False
) -> Stored:
    """Open vectors without looking at the numbers of those that can be mapped into memory.

    Args:
        path: as for `read_vectors`.
        paths: as for `read_vectors`.
        numbered: let the rows of a bare matrix without `paths` be called by their numbers.

    Raises:
        VectorsError: they cannot be read, or there are none.
        OutputError: the manifest is damaged.
    """
    source = Path(path)
    if source.is_dir() or is_table(source):
        if paths is not None:
            raise VectorsError(f"{source} says itself which path each vector is of", hint="leave out the file of paths")
        stored = _open_directory(source) if source.is_dir() else _open_table(source)
    else:
        stored = _open_matrix(source, paths, numbered)
    if not len(stored.matrix):
        raise VectorsError(f"no vectors in {source}")
    return stored


def check_rows(matrix: NDArray[Any], keys: Sequence[str], source: str) -> None:
    """Raise a VectorsError that names rows which are not finite in float32, or zero, if there are any."""
    infinite: list[int] = []
    zero: list[int] = []
    for first in range(0, len(matrix), _BLOCK):
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and said to be
            block = np.asarray(matrix[first : first + _BLOCK], np.float32)
        infinite += (first + np.flatnonzero(~np.isfinite(block).all(1))).tolist()
        zero += (first + np.flatnonzero(~block.any(1))).tolist()
    for rows, what in ((infinite, "NaN or infinite numbers"), (zero, "zeros alone")):
        if rows:
            shown = ", ".join(f"{keys[row]} (row {row})" for row in rows[:_SHOWN])
            more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
            raise VectorsError(
                f"{len(rows)} of the {len(matrix)} vectors in {source} have {what}: {shown}{more}",
                hint="leave these rows out, and their paths",
            )


class RowNumbers(Sequence[str]):
    """The names of rows that have none: their numbers, from 0 on."""

    def __init__(self, count: int) -> None:
        self._range = range(count)

    def __len__(self) -> int:
        return len(self._range)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return str(self._range[index]) if isinstance(index, int) else [str(number) for number in self._range[index]]


def _open_matrix(source: Path, paths: str | os.PathLike[str] | None, numbered: bool) -> Stored:
    matrix = map_npy(source, [2])
    if paths is None and numbered:
        keys: Sequence[str] = RowNumbers(len(matrix))
        return Stored(keys, keys, matrix, None, _stamp(b"", [source]))
    keys, data = _read_paths(source, paths)
    if len(matrix) != len(keys):
        raise VectorsError(
            f"{source} has {len(matrix)} rows, and {paths} {len(keys)} lines",
            hint="the file of paths needs one line for each row, in the same order",
        )
    return Stored(keys, keys, matrix, None, _stamp(data, [source]))


def _open_table(source: Path) -> Stored:
    table = read_table(source)
    return Stored(table.keys, table.paths, table.matrix, table.model, _stamp(b"", [source]))


def _open_directory(source: Path) -> Stored:
    if not (source / NAME).is_file():
        raise VectorsError(
            f"{source} has no {NAME}, so it is not what poolembed embed writes",
            hint="of other systems, give an .npy matrix and a text file of paths",
        )
    manifest = read_manifest(source / NAME)
    records = [record for record in manifest.records.values() if record.status == "ok"]
    waiting = sum(record.journal is not None for record in records)
    if waiting:
        raise VectorsError(
            f"{source} is not finished: {waiting} vectors wait to be filed",
            hint="run the same poolembed embed command again; it goes on where it stopped",
        )
    if not records:
        raise VectorsError(f"no vectors in {source}: its manifest lists no song that was embedded")
    model = manifest.header.model
    matrix, files = _rows_of(source, manifest, records)
    if matrix.shape[1] != model.embedding_size:
        raise VectorsError(
            f"{source} has vectors of {matrix.shape[1]} numbers, and its manifest says {model.embedding_size} numbers"
        )
    stamp = _stamp(read_regular(source / NAME), files)
    return Stored([record.key for record in records], [record.abspath for record in records], matrix, model, stamp)


def _rows_of(
    source: Path, manifest: Manifest, records: list[Record]
) -> tuple[NDArray[Any], list[str | os.PathLike[str]]]:
    """The vectors that a manifest lists, and their files, where else there may be vectors of songs that failed."""
    if manifest.header.settings.format == "npy":
        files = [os.path.join(source, str(record.output)) for record in records]  # noqa: PTH118 - quick
        return read_tree(files, manifest.header.model.embedding_size, manifest.header.settings.numbers), [*files]
    file = rows_of(source, manifest.header.settings) or source / str(records[0].output)
    matrix = map_npy(file, [2]) if file.suffix == ".npy" else read_table(file).matrix
    rows = [-1 if record.row is None else record.row for record in records]
    if min(rows) < 0 or max(rows) >= len(matrix):
        raise VectorsError(f"{file} has {len(matrix)} rows, and its manifest lists others")
    if rows == list(range(len(rows))):
        return matrix[: len(rows)], [file]  # still mapped
    return matrix[rows], [file]


def _read_paths(source: Path, paths: str | os.PathLike[str] | None) -> tuple[list[str], bytes]:
    if paths is None:
        beside = source.parent / NAME
        hint = f"or give its folder, {source.parent}, which has a manifest" if beside.is_file() else WAYS
        raise VectorsError(f"{source} does not say which path each row is of", hint=f"give a file of paths; {hint}")
    try:
        with Path(paths).open("rb") as file:  # of any kind: <(find …) is a pipe
            lines = read_list(file, b"\n")
    except OSError as error:
        raise VectorsError(f"cannot read {os.fspath(paths)}: {error.strerror or error}") from error
    data = b"".join(line + b"\n" for line in lines)
    lines[:1] = [line.removeprefix(b"\xef\xbb\xbf") for line in lines[:1]]
    return [os.fsdecode(line.removesuffix(b"\r")) for line in lines], data


def _stamp(names: bytes, files: Iterable[str | os.PathLike[str]]) -> str:
    """A digest of what names the vectors, and of the sizes and times of the files that hold them."""
    digest = hashlib.blake2b(names, digest_size=8)
    for file in files:
        status = os.stat(file)  # noqa: PTH116 - quick
        digest.update(b"%d %d\n" % (status.st_size, status.st_mtime_ns))
    return digest.hexdigest()
