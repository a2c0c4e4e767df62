"""The header of ``.npy`` files, written so that it can be rewritten in place, and read without evaluating anything."""

from __future__ import annotations

import ast
import re
import struct
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 128
_LONGEST_HEADER = 10_000  # as numpy has it
_SHOWN = 100


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The header of a version 1.0 ``.npy`` file, always ``HEADER_BYTES`` long so that it can be rewritten in place."""
    fields = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape!r}, }}"
    room = HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", room) + fields.ljust(room - 1).encode("ascii") + b"\n"


def read_npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type of an ``.npy`` file, which is then at its first number.

    Raises:
        ValueError: it is no such file, or no array of simple numbers, text or objects.
    """
    start = file.read(8)
    if start[:6] != b"\x93NUMPY":
        raise ValueError("it does not begin as one")
    kinds = {b"\x01\x00": ("<H", "latin-1"), b"\x02\x00": ("<I", "latin-1"), b"\x03\x00": ("<I", "utf-8")}
    if start[6:] not in kinds:
        raise ValueError(f"its version is {'.'.join(map(str, start[6:]))}")
    kind, encoding = kinds[start[6:]]
    sized = file.read(struct.calcsize(kind))
    length = struct.unpack(kind, sized)[0] if len(sized) == struct.calcsize(kind) else -1
    text = file.read(length) if 0 < length <= _LONGEST_HEADER else b""
    if not text or len(text) < length:
        raise ValueError("its header is cut short, or too long")
    try:
        # Python 2 wrote numbers as 10L.
        fields = ast.literal_eval(re.sub(r"(\d)L\b", r"\1", text.decode(encoding).strip()))
        shape, fortran, description = (fields.pop(name) for name in ("shape", "fortran_order", "descr"))
        whole = all(type(number) is int and 0 <= number < 1 << 63 for number in shape) and type(shape) is tuple
        if fields or not whole or type(fortran) is not bool or not re.fullmatch(r"[<>=|]?[a-zA-Z]\d*", description):
            raise ValueError(text)
        return shape, fortran, np.dtype(description)
    except (ValueError, SyntaxError, TypeError, LookupError, AttributeError, MemoryError, RecursionError) as error:
        raise ValueError(f"its header is {text[:_SHOWN].decode('latin-1')!r}") from error


def npy_bytes(values: NDArray[Any]) -> bytes:
    """A whole ``.npy`` file."""
    return npy_header(values.shape, values.dtype) + values.tobytes()
