"""What is searched for: songs of the collection, vectors, and songs that are still to be embedded."""

from __future__ import annotations

import io
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from poolembed.embed.manifest import NAME, read_manifest
from poolembed.embed.silence import is_silence
from poolembed.errors import PoolembedError, UsageError, VectorsError
from poolembed.identity import ModelIdentity
from poolembed.search.collection import Collection, open_collection
from poolembed.search.lance import NameColumn
from poolembed.text import path_text
from poolembed.vectors.npy import map_npy, read_npy
from poolembed.vectors.tables import parse_line

# Strings, not Paths: a Path for each of a million rows would take longer than the search itself.
# ruff: noqa: PTH100, PTH112, PTH113, PTH116, PTH118, PTH119

STDIN = "standard input"


@dataclass(frozen=True)
class Query:
    """Something to search for.

    Attributes:
        name: what to call it in the answer.
        vector: ``(D,)`` of unit length, D as in the collection.
        rows: those of the collection that are the query itself.
    """

    name: str
    vector: NDArray[np.float32]
    rows: Sequence[int] = ()


@dataclass(frozen=True)
class _Vector:
    """A vector that was given, not looked at yet; and its song and its model, where they are known."""

    name: str
    numbers: NDArray[Any]
    path: str | None = None
    model: ModelIdentity | None = None


def read_queries(
    asked: Iterable[str | os.PathLike[str] | npt.ArrayLike],
    collection: Collection,
    stdin: bytes | None = None,
    *,
    shorten: bool = False,
) -> tuple[list[Query | str], dict[str, PoolembedError]]:
    """Find out what each of several queries is.

    Args:
        asked: paths of audio or ``.npy`` files, paths or keys of songs in the collection, vectors ``(D,)`` or
            ``(n, D)``, or ``-`` for `stdin`.
        collection: what will be searched.
        stdin: JSON Lines as ``poolembed embed -o -`` writes them, or an ``.npy`` file; None makes ``-`` a name.
        shorten: of longer vectors take the first D numbers.

    Returns:
        What is found, in the order given, where a path is that of an audio file which is not in the collection; and
        name -> what is wrong, of what cannot be searched for.

    Raises:
        VectorsError: a vector is known to be of another model than the collection.
        OutputError: a manifest is damaged.
    """
    found: list[Query | str] = []
    failures: dict[str, PoolembedError] = {}
    given: list[_Vector | str] = []
    for query in asked:
        if not isinstance(query, str | os.PathLike):
            given += _numbered("vector", _as_array(query))
            continue
        name = os.fspath(query)
        try:
            if name == "-" and stdin is not None:
                given += _from_stdin(stdin, failures)
            elif name.lower().endswith(".npy"):
                given += _from_npy(Path(name))
            else:
                given.append(name)
        except VectorsError as error:
            failures[name] = error
    # A vector whose song is unknown has no path, and so is nothing in the collection.
    places = locate(collection, [(each if isinstance(each, str) else each.path) or "" for each in given])
    for each, rows in zip(given, places, strict=True):
        try:
            if isinstance(each, _Vector):
                check_model(each.model, collection, each.name)
                long = shorten or (each.model is not None and collection.model is not None)
                found.append(Query(each.name, unit_vector(each.numbers, collection, shorten=long), rows))
            elif rows:
                found.append(
                    Query(each, unit_vector(collection.unit_rows(rows[:1])[0], collection, shorten=False), rows)
                )
            elif os.path.isfile(each):  # quiet about names that no file can have
                found.append(each)
            else:
                failures[each] = VectorsError(_why_none(each, collection))
        except BadVectorError as error:
            failures[each if isinstance(each, str) else each.name] = error
    return found, failures


class BadVectorError(VectorsError):
    """One vector that cannot be searched for; others are unaffected. The message is the reason, without the name."""


def unit_vector(numbers: NDArray[Any], collection: Collection, *, shorten: bool) -> NDArray[np.float32]:
    """A vector as a collection's are: ``(D,)`` float32 of unit length.

    Args:
        numbers: ``(n,)``.
        collection: of D numbers a vector.
        shorten: of more numbers than D take the first.

    Raises:
        BadVectorError: it has another number of numbers, is zero or not finite, or is the vector of silence.
    """
    if numbers.ndim != 1:
        raise BadVectorError(f"numbers of shape {numbers.shape}, and not one vector")
    if len(numbers) != collection.size and not (shorten and len(numbers) > collection.size):
        raise BadVectorError(f"{len(numbers)} numbers, and the vectors of {collection.source} have {collection.size}")
    vector = numbers[: collection.size].astype(np.float64)
    if not np.isfinite(vector).all():
        raise BadVectorError("NaN or infinite numbers")
    vector /= np.abs(vector).max() or 1.0  # lest squares overflow
    length = np.linalg.norm(vector)
    if not length:
        raise BadVectorError("zeros alone, which is near to nothing")
    unit: NDArray[np.float32] = (vector / length).astype(np.float32)
    if is_silence(unit):
        raise BadVectorError("silent, and so near to nothing that is heard: leave it out, or listen to the file")
    return unit


def check_model(model: ModelIdentity | None, collection: Collection, name: str) -> None:
    """Raise a VectorsError that names both if a query is known to be of another model than the collection."""
    own = collection.model
    if model is not None and own is not None and model.fingerprint != own.fingerprint:
        raise VectorsError(
            f"{name} is of the model {model.name} ({model.fingerprint[:8]}), and {collection.source} of "
            f"{own.name} ({own.fingerprint[:8]}); their vectors cannot be compared",
            hint="embed both with one model",
        )


def mean_query(queries: Sequence[Query]) -> Query:
    """One query for what lies between several: the mean of their vectors.

    Raises:
        UsageError: the mean is zero.
    """
    mean: NDArray[np.float64] = np.mean([query.vector for query in queries], axis=0, dtype=np.float64)
    length = np.linalg.norm(mean)
    if length < 1e-6:
        raise UsageError("the vectors of these queries cancel out, so nothing is near to their mean")
    name = " + ".join(query.name for query in queries)
    return Query(name, (mean / length).astype(np.float32), sorted({row for query in queries for row in query.rows}))


def every_row(collection: Collection) -> Iterator[Query]:
    """Every song of a collection as a query, in order, called by its path."""
    paths = iter(collection.paths)
    for first, block in collection.blocks():
        for place in range(len(block)):
            yield Query(next(paths), block[place], (first + place,))


def _why_none(name: str, collection: Collection) -> str:
    if os.path.isfile(os.path.join(name, NAME)):
        return "a collection; --all searches for every song of one"
    if os.path.isdir(name):
        return f"a directory; of all its songs: poolembed embed {name} -o - | poolembed search -"
    return f"no such file, and no song of {collection.source}"


def _from_stdin(data: bytes, failures: dict[str, PoolembedError]) -> Iterator[_Vector]:
    if data.startswith(b"\x93NUMPY"):
        yield from _numbered(STDIN, read_npy(io.BytesIO(data), STDIN, [1, 2]))
        return
    lines = [line for line in data.splitlines() if line.strip()]
    if not lines:
        raise VectorsError("nothing there", hint="for example: poolembed embed new/ -o - | poolembed search -")
    if not lines[0].lstrip().startswith(b"{"):
        raise VectorsError(
            "neither JSON Lines with path and embedding nor .npy",
            hint="paths go on the command line: find … -print0 | xargs -0 poolembed search",
        )
    for number, line in enumerate(lines, start=1):
        where = f"{STDIN}, line {number}"
        try:
            path, vector = parse_line(line, where)
        except VectorsError:
            failures[where] = VectorsError("no path and embedding")
            continue
        yield _Vector(path, np.atleast_1d(vector), path)


def _from_npy(path: Path) -> Iterator[_Vector]:
    numbers = map_npy(path, [1, 2])
    if numbers.ndim == 1:
        yield _known(path, numbers)
        return
    rows = open_collection(path)
    if not rows.named:
        yield from _numbered(str(path), numbers)
        return
    for name, vector in zip(rows.paths, rows.matrix, strict=True):
        yield _Vector(name, vector, name, rows.model)


def _known(path: Path, numbers: NDArray[Any]) -> _Vector:
    """One vector, with what a manifest above it knows of it."""
    whole = Path(os.path.abspath(path))  # a link is known by its own name
    for folder in whole.parents:
        if (folder / NAME).is_file():
            manifest = read_manifest(folder / NAME)
            record = manifest.records.get(whole.relative_to(folder).as_posix().removesuffix(".npy"))
            if record is not None and record.output == f"{record.key}.npy":
                return _Vector(str(path), numbers, record.abspath, manifest.header.model)
    return _Vector(str(path), numbers)


def _as_array(numbers: npt.ArrayLike) -> NDArray[Any]:
    try:
        array = np.asarray(numbers)
    except ValueError as error:
        raise UsageError(f"a query is neither a path nor a vector: {error}") from error
    if array.dtype.kind not in "fiu" or not array.ndim:
        raise UsageError(f"a query is neither a path nor a vector of numbers, but {type(numbers).__name__}")
    return array


def _numbered(name: str, numbers: NDArray[Any]) -> Iterator[_Vector]:
    if numbers.ndim == 1:
        yield _Vector(name, numbers)
        return
    for number, vector in enumerate(numbers):
        yield _Vector(f"{name}[{number}]", vector)


def locate(collection: Collection, names: Sequence[str]) -> list[list[int]]:
    """The rows of each name, ascending; none where the collection does not have it, or the name is empty.

    A name is a path first: as given, from the root, with ``./`` and links resolved, or of the same file by another way.
    One that names no file on the disk may also be a key, or the path of a song that is no longer there.
    """
    by_path: defaultdict[str, list[int]] = defaultdict(list)
    by_key: defaultdict[str, list[int]] = defaultdict(list)
    by_last: defaultdict[str, list[int]] = defaultdict(list)
    files = [_identity(name) for name in names]
    for number, name in enumerate(names):
        if not name or "\0" in name:
            continue
        real = os.path.realpath(name)
        spellings = {name, os.path.normpath(name), os.path.abspath(name), real}
        for spelling in spellings | set(map(path_text, spellings)):  # the latter in a table, which has only UTF-8
            by_path[spelling].append(number)
        if files[number] is None:
            for spelling in {name, os.path.normpath(name), path_text(name)}:
                by_key[spelling].append(number)
        else:
            for last in {os.path.basename(name), os.path.basename(real)}:
                by_last[last].append(number)
    rows: list[list[int]] = [[] for _ in names]
    lasts = {os.path.basename(path) for path in by_path}
    if not lasts:
        return rows
    for row, key, path in _candidates(collection, {*by_path, *by_key}):
        last = path.rpartition(os.sep)[2]
        if last not in lasts and key not in by_key:
            continue  # of a million rows, all but a few
        meant = {*by_path.get(_tidy(path), ()), *by_key.get(key, ())}
        alike = [number for number in by_last.get(last, ()) if number not in meant]
        if alike:
            file = _identity(path)
            meant.update(number for number in alike if files[number] == file)
        for number in meant:
            rows[number].append(row)
    return rows


def _candidates(collection: Collection, spellings: Iterable[str]) -> Iterable[tuple[int, str, str]]:
    """Row, key and path of all rows; or of those alone that a table finds by its own means."""
    if isinstance(collection.paths, NameColumn):
        return collection.paths.table.find(spellings)
    return zip(range(len(collection)), collection.keys, collection.paths, strict=True)


def _tidy(path: str) -> str:
    return os.path.normpath(path) if "/." in path or "//" in path or path.startswith("./") else path


def _identity(path: str) -> tuple[int, int] | None:
    """What tells a file from others, or None where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
