"""How many bytes of a file are sound: tags, pictures and padding are none, and would pass for a better bit rate."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

_ID3V1 = 128  # bytes of such a tag
_APE = 32  # bytes at the end of an APE tag, and at its beginning if it has a header
_HAS_HEADER = 1 << 31
_BLOCK = 1 << 16
_MOST_BOXES = 100_000

Read = Callable[[int, int], bytes]
"""Position and number of bytes -> those of the file."""


def payload(descriptor: int, start: int) -> int:
    """The bytes of a file's sound.

    Args:
        descriptor: of a file with no other sound or film in it; its position is moved.
        start: where the first packet of the sound is.
    """

    def read(position: int, size: int) -> bytes:
        os.lseek(descriptor, position, os.SEEK_SET)
        return os.read(descriptor, size)

    size = os.lseek(descriptor, 0, os.SEEK_END)
    if read(4, 4) in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return _media_data(read, size) or size - start
    return _end(read, start, size) - start


def _media_data(read: Read, size: int) -> int:
    """Bytes of the boxes of an MP4 that hold media; all others are headers, tags, pictures and room for them."""
    position = total = 0
    for _ in range(_MOST_BOXES):
        head = read(position, 16)
        if len(head) < 8:
            break
        length, header = int.from_bytes(head[:4], "big"), 8
        if length == 1:
            length, header = int.from_bytes(head[8:], "big"), 16
        length = min(length or size, size - position)
        if length < header:
            break
        if head[4:8] == b"mdat":
            total += length - header
        position += length
    return total


def _end(read: Read, start: int, size: int) -> int:
    """Where the sound ends: in front of zeros, and of tags as they stand behind MP3, AAC, Musepack and WavPack."""
    end, before = size, -1
    while start < end != before:
        before = end
        while end > start:
            block = read(max(start, end - _BLOCK), min(_BLOCK, end - start))
            end -= len(block) - len(block.rstrip(b"\0"))
            if block.strip(b"\0"):
                break
        end = max(start, _tag_start(read, end))
    return end


def _tag_start(read: Read, end: int) -> int:
    """Where a tag begins that ends there, or would but for zeros; `end` if there is none."""
    first = max(0, end - _ID3V1)
    tail = read(first, end - first)
    footer = tail.rfind(b"APETAGEX")
    if footer >= len(tail) - _APE and len(fields := read(first + footer, _APE)) == _APE:
        _, length, _, flags = struct.unpack_from("<IIII", fields, 8)
        return first + footer + _APE - int(length) - (_APE if flags & _HAS_HEADER else 0)
    if tail.endswith(b"LYRICS200") and tail[-15:-9].isdigit():
        return end - 15 - int(tail[-15:-9])
    tag = tail.rfind(b"TAG")
    return end if tag < 0 else first + tag
