"""``.jsonl`` and ``.parquet`` tables with ``path`` and ``embedding``, as ``poolembed embed`` writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.embed.manifest import ModelIdentity
from poolembed.errors import VectorsError
from poolembed.vectors.npy import WAYS


@dataclass(frozen=True)
class Table:
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


def read_table(path: Path) -> Table:
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
        row = json.loads(line)
        path, vector = str(row["path"]), np.array(row["embedding"], np.float32)
    except (ValueError, KeyError, TypeError) as error:
        raise VectorsError(f"{where}: no path and embedding", hint=WAYS) from error
    return path, vector


def _read_jsonl(path: Path) -> Table:
    with path.open("rb") as file:
        rows = [parse_line(line, f"{path}, line {number}") for number, line in enumerate(file, start=1)]
    paths = [name for name, _ in rows]
    shapes = {vector.shape for _, vector in rows}
    if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
        raise _uneven(path)
    return Table(paths, paths, np.array([vector for _, vector in rows], np.float32))


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise VectorsError(
            f"reading {path} needs pyarrow", hint="from poolembed's checkout: pip install '.[parquet]'"
        ) from error
    try:
        with path.open("rb") as file, pyarrow.parquet.ParquetFile(file) as table:
            names = [name for name in ("path", "key", "embedding") if name in table.schema_arrow.names]
            columns = table.read(columns=names)
    except pyarrow.ArrowInvalid as error:
        raise VectorsError(f"{path} is not a Parquet file, or is damaged") from error
    if not {"path", "embedding"} <= set(names):
        raise VectorsError(f"{path} has no columns path and embedding", hint=WAYS)
    paths = columns["path"].to_pylist()
    keys = columns["key"].to_pylist() if "key" in names else paths
    matrix = _matrix(columns["embedding"], path)
    metadata = columns.schema.metadata or {}
    name, fingerprint = metadata.get(b"poolembed_model"), metadata.get(b"poolembed_fingerprint")
    model = None
    if name and fingerprint:
        model = ModelIdentity(name.decode(), fingerprint.decode(), matrix.shape[1])
    return Table(keys, paths, matrix, model)


def _matrix(column: Any, path: Path) -> NDArray[Any]:
    """A column of lists as ``(N, D)``."""
    import pyarrow.compute
    import pyarrow.types

    kind = column.type
    lists = pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind)
    lengths = set(pyarrow.compute.unique(pyarrow.compute.list_value_length(column)).to_pylist()) if lists else {None}
    if len(lengths) > 1 or None in lengths:
        raise _uneven(path)
    numbers = pyarrow.compute.list_flatten(column).to_numpy()
    if numbers.dtype.kind not in "fiu":
        raise VectorsError(f"the vectors in {path} are not numbers")
    matrix: NDArray[Any] = numbers.reshape(len(column), -1) if len(column) else numbers.reshape(0, 1)
    return matrix


def _uneven(name: object) -> VectorsError:
    return VectorsError(f"the vectors in {name} are not all of one length")


_READERS: dict[str, Callable[[Path], Table]] = {".jsonl": _read_jsonl, ".parquet": _read_parquet}
