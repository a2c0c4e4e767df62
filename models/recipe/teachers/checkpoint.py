"""TensorFlow checkpoints ("tensor bundles") without TensorFlow: an index, which is a LevelDB table, and raw data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_FOOTER = 48
_MAGIC = 0xDB4775248B80FB57
_FLOAT = 1  # of TensorFlow's data types


def read_checkpoint(index: bytes, data: bytes) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors of a checkpoint of one shard, by name.

    Args:
        index: content of the ``.index`` file.
        data: content of the ``.data-00000-of-00001`` file.

    Raises:
        ValueError: it is no such checkpoint.
    """
    footer = index[-_FOOTER:]
    if int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise ValueError("not the index of a TensorFlow checkpoint")
    _, at = _handle(footer, 0)  # of the meta index, which is empty
    (offset, size), _ = _handle(footer, at)
    tensors = {}
    for _, handle in _entries(index[offset : offset + size]):
        (start, length), _ = _handle(handle, 0)
        for key, value in _entries(index[start : start + length]):
            fields = dict(_fields(value))
            if key and fields.get(1) == _FLOAT:
                begin, count = _number(fields.get(4, 0)), _number(fields[5])
                shape = fields.get(2, b"")
                assert isinstance(shape, bytes)
                tensors[key.decode()] = np.frombuffer(data[begin : begin + count], "<f4").reshape(_shape(shape))
    return tensors


def _shape(message: bytes) -> tuple[int, ...]:
    """A tensor's shape: field 2 is an axis, and of that field 1 its length."""
    return tuple(_number(dict(_fields(axis)).get(1, 0)) for number, axis in _fields(message) if number == 2)


def _number(value: int | bytes) -> int:
    return value if isinstance(value, int) else int.from_bytes(value, "little")


def _fields(message: int | bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer: number and value."""
    assert isinstance(message, bytes)
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == 0:
            number, at = _varint(message, at)
            yield tag >> 3, number
            continue
        length = {1: 8, 5: 4}.get(tag & 7)
        if length is None:
            length, at = _varint(message, at)
        yield tag >> 3, message[at : at + length]
        at += length


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; each key begins with some of the one before."""
    restarts = int.from_bytes(block[-4:], "little")
    end, at, key = len(block) - 4 * (restarts + 1), 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return number, at
