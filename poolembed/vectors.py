"""Vectors on disk, of this project or of any other, and which of them belongs to which clip.

What `read_vectors` takes:

- a directory that ``poolembed embed`` wrote, in any format; its ``manifest.jsonl`` says which;
- ``.jsonl`` and ``.parquet`` tables with ``path`` and ``embedding``, as ``poolembed embed`` writes them;
- a bare ``.npy`` matrix ``(N, D)``, with a text file that has the path of each row on a line of its own.

Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.embed.manifest import NAME, Record, read_manifest
from poolembed.errors import VectorsError

_SHOWN = 5

_Rows = tuple[list[str], list[str], list[Any]]
"""Keys, paths and embeddings of a table."""


@dataclass(frozen=True)
class Vectors:
    """Vectors and what they are of.

    Attributes:
        keys: N names: for ``poolembed embed`` paths below the folder that was embedded, else paths as given.
        paths: N paths: for ``poolembed embed`` from the root, else as given.
        matrix: ``(N, D)`` float32, finite, none of them all zeros.
        source: where they were read from.
    """

    keys: list[str]
    paths: list[str]
    matrix: NDArray[np.float32]
    source: str


def read_vectors(path: str | os.PathLike[str], paths: str | os.PathLike[str] | None = None) -> Vectors:
    """Read vectors; see the head of this module.

    Args:
        path: the directory or file.
        paths: for a bare matrix, the text file with a path per row, UTF-8, in the order of the rows.

    Raises:
        VectorsError: they cannot be read, there are none, or some are not finite or zero.
        OutputError: the manifest is damaged.
    """
    source = Path(path)
    if source.is_dir() or source.suffix.lower() in _TABLES:
        if paths is not None:
            raise VectorsError(f"{source} says itself which path each vector is of", hint="leave out the file of paths")
        keys, names, matrix = _read_directory(source) if source.is_dir() else _read_table(source)
    else:
        keys = names = _read_paths(source, paths)
        matrix = _read_npy(source, 2)
        if len(matrix) != len(keys):
            raise VectorsError(
                f"{source} has {len(matrix)} rows, and {paths} {len(keys)} lines",
                hint="the file of paths needs one line for each row, in the same order",
            )
    if not len(matrix):
        raise VectorsError(f"no vectors in {source}")
    return Vectors(keys, names, _checked(matrix, keys, source), str(source))


def match(vectors: Vectors, keys: Sequence[str]) -> list[int | None]:
    """The row of each key's vector, or None where there is none.

    A vector belongs to a clip if their keys are equal, or else if the end of one's path is the other's whole path:
    ``/data/esc10/audio/a.ogg`` and ``audio/a.ogg``. Separators, ``./`` and how seconds are spelt in ``#t=1.50,2`` do
    not count.

    Args:
        vectors: from `read_vectors`.
        keys: of clips, each different (`poolembed.labels.Clip.key`).

    Raises:
        VectorsError: a clip could be two vectors', or a vector two clips'; the message names both.
    """
    rows: list[int | None] = [None] * len(keys)
    wanted = [_normal(key) for key in keys]
    exact = defaultdict(list)
    for row, key in enumerate(vectors.keys):
        exact[_normal(key)].append(row)
    for number, key in enumerate(wanted):
        if key in exact:
            rows[number] = _only(exact[key], vectors, keys[number])
    taken = {row for row in rows if row is not None}
    by_name = defaultdict(list)
    for row, path in enumerate(vectors.paths):
        if row not in taken:
            parts = _normal(path).split("/")
            by_name[parts[-1]].append((row, parts))
    owner: dict[int, int] = {}
    for number, key in enumerate(wanted):
        if rows[number] is None:
            parts = key.split("/")
            fitting = [row for row, other in by_name[parts[-1]] if _is_end(parts, other)]
            if fitting:
                row = rows[number] = _only(fitting, vectors, keys[number])
                if owner.setdefault(row, number) != number:
                    raise VectorsError(
                        f"the vector of {vectors.paths[row]} in {vectors.source} could be that of "
                        f"{keys[owner[row]]} and of {keys[number]}",
                        hint="longer paths, in the list of paths or in the table, tell them apart",
                    )
    return rows


def _only(rows: Sequence[int], vectors: Vectors, key: str) -> int:
    if len(rows) > 1:
        first, second = (f"{vectors.paths[row]} (row {row})" for row in rows[:2])
        raise VectorsError(
            f"{key} could be {first} and {second} of {vectors.source}",
            hint="longer paths, in the list of paths or in the table, tell them apart",
        )
    return rows[0]


def _normal(path: str) -> str:
    """A path as it is compared."""
    path, fragment = re.fullmatch(r"(.*?)(#t=[0-9.,]+)?", path, re.DOTALL).groups()  # type: ignore[union-attr]
    if fragment:
        seconds = [part.rstrip("0").rstrip(".") if "." in part else part for part in fragment[3:].split(",")]
        fragment = "#t=" + ",".join(part or "0" for part in seconds)
    return posixpath.normpath(path.replace("\\", "/") if os.sep == "\\" else path) + (fragment or "")


def _is_end(one: Sequence[str], other: Sequence[str]) -> bool:
    shared = min(len(one), len(other))
    return one[-shared:] == other[-shared:]


def _read_directory(source: Path) -> tuple[list[str], list[str], NDArray[Any]]:
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
    readers: dict[str, Callable[[Path, list[Record]], NDArray[Any]]] = {"npy": _tree}
    read = readers.get(manifest.header.settings.format, _rows_of)
    matrix = read(source, records)
    size = manifest.header.model.embedding_size
    if matrix.shape[1:] != (size,):
        raise VectorsError(f"{source} has vectors of shape {matrix.shape[1:]}, and its manifest says {size} numbers")
    return [record.key for record in records], [record.abspath for record in records], matrix


def _tree(source: Path, records: list[Record]) -> NDArray[Any]:
    return _stack([_read_npy(source / str(record.output), 1) for record in records], source)


def _rows_of(source: Path, records: list[Record]) -> NDArray[Any]:
    """The rows of a directory's one file that its manifest lists."""
    file = source / str(records[0].output)
    matrix = _read_npy(file, 2) if file.suffix == ".npy" else _read_table(file)[2]
    rows = [-1 if record.row is None else record.row for record in records]
    if min(rows) < 0 or max(rows) >= len(matrix):
        raise VectorsError(f"{file} has {len(matrix)} rows, and its manifest lists others")
    return matrix[rows]


def _read_npy(path: Path, axes: int) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise VectorsError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, MemoryError) as error:  # a damaged header can ask for any amount of memory
        if "Object arrays" in str(error):
            raise VectorsError(
                f"{path} holds pickled objects, which are not read", hint="save an array of numbers with numpy.save"
            ) from error
        raise VectorsError(f"{path} is not an .npy file, or is damaged: {error}", hint=_ways(path)) from error
    if array.ndim != axes or array.dtype.kind not in "fiu":
        shape = "(N, D)" if axes == 2 else "(D,)"
        raise VectorsError(f"{path} must hold numbers {shape}, and holds {array.dtype} {array.shape}")
    found: NDArray[Any] = array
    return found


def _ways(path: Path) -> str:
    return f"what is read: a folder of poolembed embed, {', '.join(_TABLES)}, or .npy with a text file of paths"


def _read_paths(source: Path, paths: str | os.PathLike[str] | None) -> list[str]:
    if paths is None:
        beside = source.parent / NAME
        hint = f"or give its folder, {source.parent}, which has a manifest" if beside.is_file() else _ways(source)
        raise VectorsError(f"{source} does not say which path each row is of", hint=f"give a file of paths; {hint}")
    try:
        data = Path(paths).read_bytes()
    except OSError as error:
        raise VectorsError(f"cannot read {os.fspath(paths)}: {error.strerror or error}") from error
    lines = [os.fsdecode(line.removesuffix(b"\r")) for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    if lines and not lines[-1]:
        lines.pop()
    return lines


def _read_table(path: Path) -> tuple[list[str], list[str], NDArray[Any]]:
    try:
        keys, paths, embeddings = _TABLES[path.suffix.lower()](path)
    except OSError as error:
        raise VectorsError(f"cannot read {path}: {error.strerror or error}") from error
    return keys, paths, _stack(embeddings, path)


def _read_jsonl(path: Path) -> _Rows:
    paths, embeddings = [], []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                paths.append(str(row["path"]))
                embeddings.append(np.array(row["embedding"], np.float32))
            except (ValueError, KeyError, TypeError) as error:
                raise VectorsError(f"{path}, line {number}: no path and embedding", hint=_ways(path)) from error
    return paths, paths, embeddings


def _read_parquet(path: Path) -> _Rows:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise VectorsError(f"reading {path} needs pyarrow", hint="pip install 'poolembed[parquet]'") from error
    try:
        with path.open("rb") as file, pyarrow.parquet.ParquetFile(file) as table:
            names = [name for name in ("path", "key", "embedding") if name in table.schema_arrow.names]
            columns = table.read(columns=names)
    except pyarrow.ArrowInvalid as error:
        raise VectorsError(f"{path} is not a Parquet file, or is damaged") from error
    if not {"path", "embedding"} <= set(names):
        raise VectorsError(f"{path} has no columns path and embedding", hint=_ways(path))
    paths = columns["path"].to_pylist()
    keys = columns["key"].to_pylist() if "key" in names else paths
    return keys, paths, columns["embedding"].to_numpy().tolist()


_TABLES: dict[str, Callable[[Path], _Rows]] = {".jsonl": _read_jsonl, ".parquet": _read_parquet}


def _stack(vectors: list[Any], source: Path) -> NDArray[Any]:
    lengths = {np.shape(vector) for vector in vectors}
    if len(lengths) > 1 or any(len(shape) != 1 for shape in lengths):
        raise VectorsError(f"the vectors in {source} are not all of one length")
    try:
        return np.array(vectors, np.float32)
    except ValueError as error:
        raise VectorsError(f"the vectors in {source} are not numbers") from error


def _checked(matrix: NDArray[Any], keys: Sequence[str], source: Path) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and said to be
        vectors = np.ascontiguousarray(matrix, np.float32)
    for wrong, what in ((~np.isfinite(vectors).all(1), "NaN or infinite numbers"), (~vectors.any(1), "zeros alone")):
        rows = np.flatnonzero(wrong).tolist()
        if rows:
            shown = ", ".join(f"{keys[row]} (row {row})" for row in rows[:_SHOWN])
            more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
            raise VectorsError(
                f"{len(rows)} of the {len(vectors)} vectors in {source} have {what}: {shown}{more}",
                hint="leave these rows out, and their paths",
            )
    return vectors
