"""``.jsonl`` and ``.parquet`` tables with ``path`` and ``embedding``, as ``poolembed embed`` writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from poolembed.errors import VectorsError
from poolembed.files.reading import open_regular
from poolembed.identity import ModelIdentity
from poolembed.text import path_text
from poolembed.vectors.npy import WAYS


@dataclass(frozen=True)
class VectorTable:
    """A table in memory.

    Attributes:
        keys: N names; those of the column ``key`` where there is one, else the paths.
        paths: N paths as the table has them.
        matrix: ``(N, D)``.
        model: whose vectors they are, where the table says so.
    """

    keys: list[str]
    paths: list[str]
    matrix: NDArray[Any]
    model: ModelIdentity | None = None


def is_table(path: Path) -> bool:
    """Whether the name is that of a table."""
    return path.suffix.lower() in _READERS


def read_table(path: Path) -> VectorTable:
    """Read a table, by its suffix.

    Raises:
        VectorsError: it cannot be read, or has other columns or vectors of several lengths.
    """
    try:
        return _READERS[path.suffix.lower()](path)
    except OSError as error:
        raise VectorsError(f"cannot read {path}: {error.strerror or error}") from error


def parse_line(line: bytes, where: str) -> tuple[str, NDArray[np.float32]]:
    """The path and the vector ``(D,)`` of a line of JSON; `where` is what the line is called.

    Raises:
        VectorsError: there is no path or no vector in it.
    """
    try:
        try:
            row = _decode(line)
        except msgspec.DecodeError:  # of a path that is not UTF-8, or of NaN, which is for others to name the row of
            row = msgspec.convert(json.loads(line), _Row)
        row.path.encode("utf-8", "surrogateescape")
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and said to be
            return row.path, np.array(row.embedding, np.float32)
    except (ValueError, OverflowError, RecursionError) as error:
        raise VectorsError(f"{where}: no path and embedding", hint=WAYS) from error


class _Row(msgspec.Struct):
    path: str
    embedding: list[float]


_decode = msgspec.json.Decoder(_Row).decode


def _read_jsonl(path: Path) -> VectorTable:
    with open_regular(path) as file:
        rows = [parse_line(line, f"{path}, line {number}") for number, line in enumerate(file, start=1)]
    paths = [name for name, _ in rows]
    shapes = {vector.shape for _, vector in rows}
    if len(shapes) > 1 or (0,) in shapes:
        raise _uneven(path)
    return VectorTable(paths, paths, np.array([vector for _, vector in rows], np.float32))


def _read_parquet(path: Path) -> VectorTable:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise VectorsError(
            f"reading {path} needs pyarrow", hint="from poolembed's checkout: pip install '.[parquet]'"
        ) from error
    try:
        with open_regular(path) as file, pyarrow.parquet.ParquetFile(file) as table:
            there = table.schema_arrow.names
            names = [name for name in ("path", "key", "embedding") if name in there]
            if not {"path", "embedding"} <= set(names) or any(there.count(name) > 1 for name in names):
                raise VectorsError(f"{path} has no columns path and embedding, one of each", hint=WAYS)
            columns = table.read(columns=names)
        paths = _texts(columns["path"], path)
        keys = _texts(columns["key"], path) if "key" in names else paths
        matrix = _matrix(columns["embedding"], path)
        metadata = columns.schema.metadata or {}
        name, fingerprint = metadata.get(b"poolembed_model"), metadata.get(b"poolembed_fingerprint")
        model = None
        if name and fingerprint:
            model = ModelIdentity(name.decode(), fingerprint.decode(), matrix.shape[1])
        return VectorTable(keys, paths, matrix, model)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        told = str(getattr(error, "strerror", None) or error).partition("\n")[0]
        raise VectorsError(f"{path} cannot be read, is not a Parquet file, or is damaged: {told}") from error


def _texts(column: Any, path: Path) -> list[str]:
    values: list[Any] = column.to_pylist()
    if not all(isinstance(value, str) for value in values):
        raise VectorsError(f"the columns path and key of {path} must hold text", hint=WAYS)
    return list(map(path_text, values))


def _matrix(column: Any, path: Path) -> NDArray[Any]:
    """A column of lists as ``(N, D)``."""
    import pyarrow.compute
    import pyarrow.types

    kind = column.type
    lists = pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind)
    lengths = set(pyarrow.compute.unique(pyarrow.compute.list_value_length(column)).to_pylist()) if lists else {None}
    if len(lengths) > 1 or lengths & {None, 0}:
        raise _uneven(path)
    numbers = pyarrow.compute.list_flatten(column).to_numpy()
    if numbers.dtype.kind not in "fiu":
        raise VectorsError(f"the vectors in {path} are not numbers")
    matrix: NDArray[Any] = numbers.reshape(len(column), -1) if len(column) else numbers.reshape(0, 1)
    return matrix


def _uneven(name: object) -> VectorsError:
    return VectorsError(f"the vectors in {name} are not all of one length")


_READERS: dict[str, Callable[[Path], VectorTable]] = {".jsonl": _read_jsonl, ".parquet": _read_parquet}
