"""What is searched for: songs of the collection, vectors, and songs that are still to be embedded."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.embed.manifest import NAME, read_manifest
from poolembed.errors import UsageError, VectorsError
from poolembed.identity import ModelIdentity
from poolembed.search.collection import Collection, open_collection
from poolembed.search.locating import locate
from poolembed.vectors.npy import map_npy, read_npy
from poolembed.vectors.tables import parse_line

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


@dataclass
class Queries:
    """What was asked for.

    Attributes:
        found: in the order given; a path is that of an audio file which is not in the collection.
        failures: name -> reason, of what cannot be searched for.
    """

    found: list[Query | str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Vector:
    """A vector that was given, not looked at yet; and its song and its model, where they are known."""

    name: str
    numbers: NDArray[Any]
    path: str | None = None
    model: ModelIdentity | None = None


def read_queries(
    arguments: Sequence[str], collection: Collection, stdin: bytes = b"", *, shorten: bool = False
) -> Queries:
    """Find out what each argument is.

    Args:
        arguments: paths of audio or ``.npy`` files, paths or keys of songs in the collection, or ``-`` for `stdin`.
        collection: what will be searched.
        stdin: JSON Lines as ``poolembed embed -o -`` writes them, or an ``.npy`` file.
        shorten: of longer vectors take the first D numbers.

    Raises:
        VectorsError: a vector is known to be of another model than the collection.
        OutputError: a manifest is damaged.
    """
    queries = Queries()
    given: list[_Vector | str] = []
    for argument in arguments:
        try:
            if argument == "-":
                given += _from_stdin(stdin, queries.failures)
            elif argument.lower().endswith(".npy"):
                given += _from_npy(Path(argument))
            else:
                given.append(argument)
        except VectorsError as error:
            queries.failures[argument] = str(error)
    # A vector whose song is unknown has no path, and so is nothing in the collection.
    places = locate(collection, [(each if isinstance(each, str) else each.path) or "" for each in given])
    for each, rows in zip(given, places, strict=True):
        try:
            if isinstance(each, _Vector):
                check_model(each.model, collection, each.name)
                long = shorten or (each.model is not None and collection.model is not None)
                queries.found.append(Query(each.name, unit_vector(each.numbers, collection, shorten=long), rows))
            elif rows:
                queries.found.append(Query(each, collection.unit_rows(rows[:1])[0], rows))
            elif os.path.isfile(each):  # noqa: PTH113 - quiet about names that no file can have
                queries.found.append(each)
            else:
                queries.failures[each] = _why_none(each, collection)
        except BadVectorError as error:
            queries.failures[each if isinstance(each, str) else each.name] = str(error)
    return queries


class BadVectorError(VectorsError):
    """One vector that cannot be searched for; others are unaffected. The message is the reason, without the name."""


def unit_vector(numbers: NDArray[Any], collection: Collection, *, shorten: bool) -> NDArray[np.float32]:
    """A vector as a collection's are: ``(D,)`` float32 of unit length.

    Args:
        numbers: ``(n,)``.
        collection: of D numbers a vector.
        shorten: of more numbers than D take the first.

    Raises:
        BadVectorError: it has another number of numbers, or is zero or not finite.
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
    return (vector / length).astype(np.float32)


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
    if os.path.isfile(os.path.join(name, NAME)):  # noqa: PTH113, PTH118
        return "a collection; --all searches for every song of one"
    if os.path.isdir(name):  # noqa: PTH112
        return f"a directory; of all its songs: poolembed embed {name} -o - | poolembed search -"
    return f"no such file, and no song of {collection.source}"


def _from_stdin(data: bytes, failures: dict[str, str]) -> Iterator[_Vector]:
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
            failures[where] = "no path and embedding"
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
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - a link is known by its own name
    for folder in whole.parents:
        if (folder / NAME).is_file():
            manifest = read_manifest(folder / NAME)
            record = manifest.records.get(whole.relative_to(folder).as_posix().removesuffix(".npy"))
            if record is not None and record.output == f"{record.key}.npy":
                return _Vector(str(path), numbers, record.abspath, manifest.header.model)
    return _Vector(str(path), numbers)


def _numbered(name: str, numbers: NDArray[Any]) -> Iterator[_Vector]:
    if numbers.ndim == 1:
        yield _Vector(name, numbers)
        return
    for number, vector in enumerate(numbers):
        yield _Vector(f"{name}[{number}]", vector)
