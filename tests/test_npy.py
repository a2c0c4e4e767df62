"""``.npy`` files of anybody: the same as numpy's own reader has, or a clear error before any room is made."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolembed.errors import VectorsError
from poolembed.files.npy import read_npy_header
from poolembed.vectors.npy import map_npy, read_npy


def npy(fields: str, body: bytes = b"", version: tuple[int, int] = (1, 0), length: int | None = None) -> bytes:
    text = fields.encode() + b"\n"
    kind = "<H" if version[0] == 1 else "<I"
    return b"\x93NUMPY" + bytes(version) + struct.pack(kind, len(text) if length is None else length) + text + body


def fields(shape: str, descr: str = "'<f4'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8", "<i8", "|u1", ">i2"])
def test_what_numpy_writes(tmp_path: Path, version: tuple[int, int], order: Any, dtype: str) -> None:
    values = np.asarray(np.arange(12).reshape(3, 4), dtype, order=order)
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, values, version=version)
    for axes in ([2], [1, 2]):
        np.testing.assert_array_equal(map_npy(tmp_path / "x.npy", axes), values)
        np.testing.assert_array_equal(read_npy(io.BytesIO((tmp_path / "x.npy").read_bytes()), "x", axes), values)


def test_what_python_2_wrote() -> None:
    data = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 1L), }", np.ones(2, "<f4").tobytes())
    assert read_npy(io.BytesIO(data), "x", [2]).tolist() == [[1.0], [1.0]]


BAD = {
    "rows of no numbers": npy(fields("(10**18, 0)".replace("10**18", str(10**18)))),
    "more than there are": npy(fields(str((10**18, 4)))),
    "more than 64 bits": npy(fields(str((2**64, 4)))),
    "a product beyond 64 bits": npy(fields(str((2**40, 2**40)))),
    "negative": npy(fields("(-1, 4)")),
    "true": npy(fields("(True, 4)")),
    "floats": npy(fields("(2.0, 4)")),
    "text": npy(fields("('2', 4)")),
    "a list": npy(fields("[2, 4]")),
    "no shape": npy("{'descr': '<f4', 'fortran_order': False}"),
    "objects": npy(fields("(2, 4)", "'|O'")),
    "structured": npy(fields("(2, 4)", "[('a', '<f4')]")),
    "complex": npy(fields("(1, 1)", "'<c8'"), b"\0" * 8),
    "times": npy(fields("(1, 1)", "'<M8[s]'"), b"\0" * 8),
    "no type": npy(fields("(2, 4)", "'nonsense'")),
    "an order that is none": npy(fields("(2, 4)", order="1")),
    "too much": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), 'more': 1}", b"\0" * 4),
    "no dict": npy("7"),
    "no literal": npy("{'descr': open('x'), 'fortran_order': False, 'shape': (1, 1)}"),
    "an open bracket": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4"),
    "a header of 4 GB": npy(fields("(2, 4)"), version=(2, 0), length=2**32 - 1),
    "a header of nothing": npy(fields("(2, 4)"), length=0),
    "version 4": npy(fields("(2, 4)"), version=(4, 0)),
    "cut in its start": b"\x93NUMP",
    "cut in its length": b"\x93NUMPY\x01\x00\x10",
    "cut short": npy(fields("(2, 4)"), b"\0" * 31),
    "nothing": b"",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(data)
    with pytest.raises(VectorsError, match=r"x\.npy"):
        map_npy(path, [2])
    with pytest.raises(VectorsError, match="the pipe"):
        read_npy(io.BytesIO(data), "the pipe", [2])


def test_no_rows_are_no_error_here(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((0, 4), np.float32))
    assert map_npy(tmp_path / "x.npy", [2]).shape == (0, 4)


def test_the_header_leaves_the_file_at_the_first_number() -> None:
    file = io.BytesIO()
    np.save(file, np.arange(3, dtype="<i4"))
    file.seek(0)
    assert read_npy_header(file) == ((3,), False, np.dtype("<i4"))
    assert file.read(4) == b"\0\0\0\0"
