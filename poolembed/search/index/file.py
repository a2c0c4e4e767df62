"""The file of an index: first what usearch writes, and then what it does not know.

    graph    as usearch writes it: vectors of eight-bit integers, whose keys are the rows, and the links between them
    vectors  F16 (N, D)      the collection's, made of unit length
    bounds   I64 (2 N + 1,)  where each key begins, then each path, then the end; only where rows have names
    mean     F32 (D,)        what was subtracted from vectors before they were rounded to the graph's integers
    names    U8              keys, end to end, then paths
    about    JSON, then its length in eight bytes, and eight bytes that end every index

usearch reads no further than its own part, so ``usearch.index.Index.restore`` opens the file. Vectors and names are
read when they are looked at. All the rest is compared with a checksum when the file is opened: a wrong link, unlike a
wrong vector, would end the process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from poolembed.embed.manifest import NAME
from poolembed.errors import OutputError, VectorsError
from poolembed.files.reading import open_regular
from poolembed.identity import ModelIdentity
from poolembed.search.collection import Collection, open_collection

_END = b"poolemb2"
_FIRST_VERSION = b'{"__metadata__":{"poolembed_index":'  # after eight bytes; it was a file of safetensors
_AGAIN = "delete it, and build it again with poolembed index"
_ALIGNED = 8  # bytes, so that every part lies as its numbers need
_BLOCK = 1 << 24  # bytes
_NAMES = 4096


@dataclass(frozen=True)
class Origin:
    """A collection as it was.

    Attributes:
        source: file or directory, from the root.
        paths: the file of its paths, from the root, where one was given.
        stamp: of `Collection`.
        seen: path, size and time of the files that are written whenever the collection changes.
    """

    source: str
    paths: str | None
    stamp: str
    seen: list[tuple[str, int, int]]

    def has_changed(self) -> bool:
        """Whether the collection is another now. One that is gone is not: an index can be used without it.

        As long as no file is newer this takes no time, else as long as opening the collection.
        """
        if not os.path.exists(self.source) or _seen(self.source, self.paths) == self.seen:  # noqa: PTH110
            return False
        try:
            return open_collection(self.source, self.paths).stamp != self.stamp
        except (VectorsError, OutputError):
            return True


def open_origin(source: str | os.PathLike[str], paths: str | os.PathLike[str] | None) -> tuple[Collection, Origin]:
    """Open a collection; arguments and errors are those of `open_collection`."""
    place = os.path.abspath(source)  # noqa: PTH100 - links stay what they are
    listed = None if paths is None else os.path.abspath(paths)  # noqa: PTH100
    seen = _seen(place, listed)  # before it is read, so that what changes meanwhile is noticed
    collection = open_collection(source, paths)
    return collection, Origin(place, listed, collection.stamp, seen)


def _seen(source: str, paths: str | None) -> list[tuple[str, int, int]]:
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


@dataclass(frozen=True)
class About:
    """What an index knows besides its parts.

    Attributes:
        model: whose vectors they are, or None where nothing said so.
        origin: the collection that it is of.
        scale: what differences from the mean were multiplied with before they were rounded.
        width: how wide the graph has to be searched.
        recall: what was then found of the exact answer, 0 to 1.
        shape: (N, D) of the vectors.
        sizes: bytes of graph, vectors, bounds, mean and names.
        checksum: of links, bounds and mean.
    """

    model: ModelIdentity | None
    origin: Origin
    scale: float
    width: int
    recall: float
    shape: tuple[int, int] = (0, 0)
    sizes: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    checksum: int = 0


@dataclass(frozen=True)
class Contents:
    """An index file; its parts are mapped into memory, read-only."""

    about: About
    graph: NDArray[np.uint8]
    vectors: NDArray[np.float16]
    bounds: NDArray[np.int64]
    mean: NDArray[np.float32]
    names: NDArray[np.uint8]


class PackedNames(Sequence[str]):
    """Names in one run of bytes, of which only those that are asked for are read.

    Args:
        text: the bytes, perhaps mapped from a file.
        bounds: ``(N + 1,)``, where each name begins, and the last ends.
        source: the file, for messages.

    Raises:
        VectorsError: on reading a name, if it is damaged.
    """

    def __init__(self, text: NDArray[np.uint8], bounds: NDArray[np.int64], source: str) -> None:
        self._text = text
        self._bounds = bounds
        self._source = source

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, row: Any) -> Any:
        rows = range(len(self))[row]
        return self._read(rows, rows + 1)[0] if isinstance(rows, int) else [self[each] for each in rows]

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _NAMES):
            yield from self._read(first, min(first + _NAMES, len(self)))

    def _read(self, first: int, last: int) -> list[str]:
        start = int(self._bounds[first])
        bounds = (self._bounds[first : last + 1] - start).tolist()
        text = self._text[start : start + bounds[-1]].tobytes()
        try:
            return [text[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(bounds)]
        except UnicodeDecodeError as error:
            raise damaged(self._source, "it has a name that is no text") from error


def pack(names: Iterable[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Names as bytes, and their bounds; names of any characters, those of paths that are not UTF-8 included.

    >>> text, bounds = pack(["a", "", "bc"])
    >>> text.tobytes(), bounds.tolist(), list(PackedNames(text, bounds, ""))
    (b'abc', [0, 1, 1, 3], ['a', '', 'bc'])
    """
    encoded = [name.encode("utf-8", "surrogatepass") for name in names]
    bounds = np.fromiter(accumulate(map(len, encoded), initial=0), np.int64, len(encoded) + 1)
    return np.frombuffer(b"".join(encoded), np.uint8), bounds


def is_index(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of usearch, as those of ``poolembed index`` are, by its bytes."""
    try:
        with open_regular(path) as file:
            start = file.read(8)
            file.seek(8 + int.from_bytes(start[:4], "little") * int.from_bytes(start[4:], "little"))
            return file.read(7) == b"usearch" or is_of_first_version(path)
    except OSError:
        return False


def is_of_first_version(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an index as poolembed wrote them before usearch could read them."""
    with open_regular(path) as file:
        return file.read(8 + len(_FIRST_VERSION))[8:] == _FIRST_VERSION


def complete(path: Path, about: About, parts: Sequence[NDArray[Any]]) -> None:
    """Put behind what usearch has written to a file all that makes it an index.

    Args:
        path: the file.
        about: without shape, sizes and checksum, which are added.
        parts: vectors, bounds, mean and names.
    """
    graph = np.asarray(np.memmap(path, np.uint8, "r"))
    shape: Any = parts[0].shape
    sizes: Any = [len(graph), *(part.nbytes for part in parts)]
    about = replace(about, shape=shape, sizes=sizes, checksum=_checksum(graph, parts[1], parts[2]))
    text = json.dumps(dataclasses.asdict(about)).encode("ascii")
    with path.open("ab") as file:
        file.write(bytes(-len(graph) % _ALIGNED))
        for part in parts:
            flat = part.reshape(-1).view(np.uint8)
            for first in range(0, len(flat), _BLOCK):
                file.write(flat[first : first + _BLOCK].data)
            file.write(bytes(-len(flat) % _ALIGNED))
        file.write(text + len(text).to_bytes(8, "little") + _END)


def read_contents(path: Path) -> Contents:
    """Map an index into memory, and check it.

    Raises:
        VectorsError: it cannot be read, is cut short, damaged, or of another version of poolembed.
    """
    try:
        if is_of_first_version(path):
            hint = f"build it anew: poolembed index COLLECTION -o {shlex.quote(str(path))}"
            raise VectorsError(f"{path} is an index of an earlier version of poolembed", hint=hint)
        with open_regular(path) as file:
            data = np.asarray(np.memmap(file, np.uint8, "r"))
        length, end = int.from_bytes(data[-16:-8].tobytes(), "little"), len(data) - 16
        if data[-8:].tobytes() != _END or length > end:
            raise ValueError("it does not end as those of this version of poolembed do")
        about = msgspec.convert(json.loads(data[end - length : end].tobytes()), About)
        contents = Contents(about, *_split(data[: end - length], about))
        _check(contents)
    except OSError as error:
        raise VectorsError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise damaged(path, error) from error
    return contents


def _split(data: NDArray[np.uint8], about: About) -> list[NDArray[Any]]:
    """The parts of a file, as far as their sizes go together."""
    ends = list(accumulate((size + -size % _ALIGNED for size in about.sizes), initial=0))
    count, size = about.shape
    wanted = [2 * count * size, 4 * size]
    if min(about.sizes) < 0 or min(about.shape) < 1 or ends[-1] != len(data) or [*about.sizes[1::2]] != wanted:
        raise ValueError("sizes do not go together")
    parts = [data[first : first + part] for first, part in zip(ends[:-1], about.sizes, strict=True)]
    for number, dtype in ((1, "<f2"), (2, "<i8"), (3, "<f4")):
        parts[number] = parts[number].view(dtype)
    parts[1] = parts[1].reshape(about.shape)
    return parts


def _check(contents: Contents) -> None:
    """Raise a ValueError unless the parts belong together. That the graph's links lead to vectors is not looked at."""
    about, bounds = contents.about, contents.bounds
    count, size = about.shape
    rows, numbers = slots(contents.graph)
    if rows < count or numbers != size or len(contents.graph) < 8 + rows * size:
        raise ValueError("vectors and graph do not belong together")
    if _checksum(contents.graph, bounds, contents.mean) != about.checksum:
        raise ValueError("a checksum does not agree")
    if len(bounds) and (
        len(bounds) != 2 * count + 1 or bounds[0] or bounds[-1] != len(contents.names) or (np.diff(bounds) < 0).any()
    ):
        raise ValueError("the names are not those of the vectors")
    if not (np.isfinite(contents.mean).all() and np.isfinite(about.scale) and 0 < about.width < 1 << 31):
        raise ValueError("scale, width or mean cannot be")


def slots(graph: NDArray[np.uint8]) -> tuple[int, int]:
    """How many vectors a graph has room for, and the bytes of each: it begins with them, and then the vectors come."""
    rows, size = graph[:8].view("<u4").tolist()
    return rows, size


def damaged(path: object, why: object) -> VectorsError:
    """What to say of an index that is not as it was written."""
    return VectorsError(f"{path} is no index, or is damaged: {why}", hint=_AGAIN)


def _checksum(graph: NDArray[np.uint8], bounds: NDArray[np.int64], mean: NDArray[np.float32]) -> int:
    rows, size = slots(graph)
    total = zlib.crc32(graph[8 + rows * size :].data, zlib.crc32(graph[:8].data))
    return zlib.crc32(mean.view(np.uint8).data, zlib.crc32(bounds.view(np.uint8).data, total))
