"""The file of an index, in the layout of safetensors, so that other programs can read the vectors and names.

Eight bytes with the length of the head, the head in JSON, then the parts, one after the other:

    ids          I64 (N,)     the number of each row's vector in the graph, which also has those of former rows
    key_ends     I64 (N,)     where each key ends; this and the names only where rows have names
    path_ends    I64 (N,)     where each path ends
    mean         F32 (D,)     what was subtracted from the graph's own vectors before they were rounded to integers
    vectors      F16 (N, D)   the collection's, made of unit length
    keys, paths  U8           names, end to end
    graph        U8           as usearch writes it: vectors of eight-bit integers, and the links between them

Vectors and names are read when they are looked at. All the rest is compared with a checksum when the file is opened:
a wrong link, unlike a wrong vector, would end the process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from poolembed.errors import VectorsError
from poolembed.files.reading import open_regular
from poolembed.identity import ModelIdentity
from poolembed.search.index.origin import Origin

VERSION = 1

_START = b'{"__metadata__":{"poolembed_index":'
_DTYPES = {"I64": "<i8", "F32": "<f4", "F16": "<f2", "U8": "|u1"}
_UNCHECKED = {"vectors", "keys", "paths"}
_BLOCK = 1 << 24
_AGAIN = "delete it, and build it again with poolembed index"


@dataclass(frozen=True)
class About:
    """What an index knows besides its parts.

    Attributes:
        model: whose vectors they are, or None where nothing said so.
        origin: the collection that it is of.
        scale: what the graph's own vectors were multiplied with before they were rounded.
        width: how wide the graph has to be searched.
        recall: what was then found of the exact answer, 0 to 1.
        checksum: of all parts that are checked.
    """

    model: ModelIdentity | None
    origin: Origin
    scale: float
    width: int
    recall: float
    checksum: int = 0


@dataclass(frozen=True)
class Contents:
    """An index file; its parts are mapped into memory, read-only."""

    about: About
    parts: Mapping[str, NDArray[Any]]


def starts_as_index(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an index by its first bytes."""
    try:
        with open_regular(path) as file:
            return file.read(8 + len(_START))[8:] == _START
    except (OSError, ValueError):  # the latter of a name that no file can have
        return False


def write_contents(path: Path, about: About, parts: Mapping[str, NDArray[Any]]) -> None:
    """Write an index to `path`; `parts` come in the order of the head of this module, the checksum is added."""
    known = json.dumps(dataclasses.asdict(dataclasses.replace(about, checksum=_checksum(parts))))
    head: dict[str, Any] = {"__metadata__": {"poolembed_index": str(VERSION), "about": known}}
    end = 0
    for name, values in parts.items():
        dtype = next(dtype for dtype, numpys in _DTYPES.items() if values.dtype == numpys)
        head[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [end, end := end + values.nbytes]}
    text = json.dumps(head, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)  # so that every part lies as its numbers need
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in parts.values():
            flat = _bytes_of(values)
            for first in range(0, len(flat), _BLOCK):
                file.write(flat[first : first + _BLOCK].data)


def read_contents(path: Path) -> Contents:
    """Map an index into memory, and check it.

    Raises:
        VectorsError: it cannot be read, is cut short, damaged, or of another version of poolembed.
    """
    try:
        open_regular(path).close()
        with safe_open(path, framework="np"):  # compares the head with the length of the file
            pass
        data = np.asarray(np.memmap(path, np.uint8, "r"))
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        head = json.loads(data[8:start].tobytes())
        known = head.pop("__metadata__")
        if known["poolembed_index"] != str(VERSION):
            raise VectorsError(
                f"{path} is an index of version {known['poolembed_index']}; this poolembed reads version {VERSION}",
                hint=_AGAIN,
            )
        about = msgspec.convert(json.loads(known["about"]), About)
        parts = {}
        for name, part in head.items():
            first, last = part["data_offsets"]
            parts[name] = data[start + first : start + last].view(_DTYPES[part["dtype"]]).reshape(part["shape"])
        if _checksum(parts) != about.checksum:
            raise ValueError("a checksum does not agree")
        _check(about, parts)
    except OSError as error:
        raise VectorsError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise damaged(path, error) from error
    return Contents(about, parts)


def _check(about: About, parts: Mapping[str, NDArray[Any]]) -> None:
    """Raise a ValueError unless the parts belong together. That the graph's links lead to vectors is not looked at."""
    ids, vectors, mean = parts["ids"], parts["vectors"], parts["mean"]
    count = int(parts["graph"][:4].view("<u4")[0])
    fits = vectors.ndim == 2 and len(vectors) == len(ids) and mean.shape == vectors.shape[1:] and ids.ndim == 1
    if not fits or (len(ids) and not -1 <= ids.min() <= ids.max() < count):
        raise ValueError("vectors, numbers and graph do not belong together")
    for ends, text in (("key_ends", "keys"), ("path_ends", "paths")):
        if ends in parts or text in parts:
            bounds = np.concatenate([[0], parts[ends], [len(parts[text])]])
            if len(parts[ends]) != len(ids) or (np.diff(bounds) < 0).any() or bounds[-1] != bounds[-2]:
                raise ValueError(f"the {text} are not those of the vectors")
    if not (np.isfinite(mean).all() and np.isfinite(about.scale) and 0 < about.width < 1 << 31):
        raise ValueError("scale, width or mean cannot be")


def damaged(path: object, why: object) -> VectorsError:
    """What to say of an index that is not as it was written."""
    return VectorsError(f"{path} is no index, or is damaged: {why}", hint=_AGAIN)


def _bytes_of(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _checksum(parts: Mapping[str, NDArray[Any]]) -> int:
    total = 0
    for name, values in parts.items():
        if name == "graph":
            # It begins with the number of its vectors and the bytes of each, and then they come.
            rows, width = values[:8].view("<u4").tolist()
            total = zlib.crc32(values[8 + rows * width :].data, zlib.crc32(values[:8].data, total))
        elif name not in _UNCHECKED:
            total = zlib.crc32(_bytes_of(values).data, total)
    return total
