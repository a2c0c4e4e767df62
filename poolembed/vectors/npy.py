"""``.npy`` files: one that is mapped into memory, or many small ones read into one matrix."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from poolembed.errors import VectorsError
from poolembed.files.npy import HEADER_BYTES, npy_header, read_npy_header
from poolembed.files.reading import open_regular

WAYS = "what is read: a folder of poolembed embed, .jsonl, .parquet, or .npy with a text file of paths"


def map_npy(path: Path, axes: Sequence[int]) -> NDArray[Any]:
    """The numbers in a file, read only where and when they are looked at.

    Args:
        path: an ``.npy`` file.
        axes: how many it may have: 2 for ``(N, D)``, 1 for ``(D,)``.

    Raises:
        VectorsError: it cannot be read, is damaged, is shorter than its header says, or holds anything but numbers.
    """
    try:
        with open_regular(path) as file:
            shape, fortran, dtype = _read_header(file, path, axes)
            offset = file.tell()
            room = os.fstat(file.fileno()).st_size - offset
            if math.prod(shape) * dtype.itemsize > room:
                raise VectorsError(
                    f"{path} is cut short: it has {room} of the {math.prod(shape) * dtype.itemsize} bytes of numbers "
                    f"that its header promises",
                    hint="write or copy it again",
                )
            if 0 in shape:
                return np.empty(shape, dtype)
            # A plain view: slices of numpy's own memmap class cost several times as much.
            return np.asarray(np.memmap(file, dtype, "r", offset, shape, "F" if fortran else "C"))
    except OSError as error:
        raise VectorsError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, OverflowError) as error:
        raise VectorsError(f"{path} is not an .npy file, or is damaged: {error}", hint=WAYS) from error


def read_npy(file: BinaryIO, name: str, axes: Sequence[int]) -> NDArray[Any]:
    """The numbers in a stream that cannot be mapped; as `map_npy`, but `name` is what it is called."""
    try:
        shape, fortran, dtype = _read_header(file, name, axes)
        wanted = math.prod(shape) * dtype.itemsize
        data = file.read()
        if len(data) < wanted:
            raise VectorsError(f"{name} is cut short: it has {len(data)} of the {wanted} bytes of numbers")
        return np.frombuffer(data, dtype, math.prod(shape)).reshape(shape, order="F" if fortran else "C")
    except (ValueError, OverflowError) as error:
        raise VectorsError(f"{name} is not an .npy file, or is damaged: {error}", hint=WAYS) from error


def read_tree(files: Sequence[str], size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Many files of one vector each: ``(len(files), size)``.

    Raises:
        VectorsError: one cannot be read, or holds anything but so many numbers.
    """
    matrix = np.empty((len(files), size), dtype)
    room = matrix.data.cast("B")
    head = npy_header((size,), dtype)
    count = size * dtype.itemsize
    for row, name in enumerate(files):
        # numpy's reader takes ten times as long as this, and there may be very many.
        try:
            with open(name, "rb", buffering=0, opener=_without_waiting) as file:
                data = file.read(HEADER_BYTES + count + 1) or b""
        except OSError as error:
            raise VectorsError(f"cannot read {name}: {error.strerror or error}") from error
        except ValueError as error:  # a NUL in it, or a surrogate that stands for no byte
            raise VectorsError(f"cannot read {name!r}: no file can have this name") from error
        if len(data) == HEADER_BYTES + count and data.startswith(head):
            room[row * count : (row + 1) * count] = data[HEADER_BYTES:]
            continue
        vector = map_npy(Path(name), [1])
        if len(vector) != size:
            raise VectorsError(f"{name} has {len(vector)} numbers, and its manifest says {size}")
        matrix[row] = vector
    return matrix


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe is for `map_npy` to refuse


def _read_header(file: BinaryIO, name: object, axes: Sequence[int]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    shape, fortran, dtype = read_npy_header(file)
    if dtype.hasobject:
        raise VectorsError(
            f"{name} holds pickled objects, which are not read", hint="save an array of numbers with numpy.save"
        )
    # Rows of no numbers could be any number of rows.
    if len(shape) not in axes or dtype.kind not in "fiu" or shape[-1] == 0:
        shapes = " or ".join("(N, D)" if count == 2 else "(D,)" for count in axes)
        raise VectorsError(f"{name} must hold numbers {shapes}, and holds {dtype} {shape}")
    return shape, fortran, dtype
