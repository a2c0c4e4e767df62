"""How long a file says it is, where its decoder does not tell: the only way to notice that its end is missing."""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple

# Writers that stream put one of these for a size they do not know yet: 0xFFFFFFFF (ffmpeg), 0x7FFFF000 (sox), 0.
_UNKNOWN = 0x7FFF_0000


class Promise(NamedTuple):
    """A length by the file's own account.

    Attributes:
        samples: per channel; None where the file gives no length.
        slack: how many of them may be missing though nothing is wrong.
        cut: the end of the file is missing for sure, whatever was decoded.
    """

    samples: int | None = None
    slack: int = 0
    cut: bool = False


def read_promise(file: BinaryIO) -> Promise:
    """The promise of a WAV, AIFF, MP3 or Ogg file, from its bytes; an empty one for everything else.

    Args:
        file: open for reading; its position is moved.
    """
    file.seek(0)
    head = file.read(12)
    if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
        return _wav(file)
    if head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        return _aiff(file)
    if head[:4] == b"OggS":
        return _ogg(file)
    if head[:3] == b"ID3":
        # The tag's size has seven bits a byte; a tag may hold a picture of many megabytes.
        size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
        return _mp3(file, 10 + size)
    return _mp3(file, 0)


def _wav(file: BinaryIO) -> Promise:
    block_align, long_size = 0, 0
    while len(chunk := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", chunk)
        if name == b"data":
            size = long_size or size
            is_known = block_align and (long_size or 0 < size < _UNKNOWN)
            return Promise(size // block_align) if is_known else Promise()
        body = file.read(min(size, 24))
        if name == b"ds64" and len(body) >= 16:
            long_size = struct.unpack_from("<Q", body, 8)[0]
        # Only PCM, float and extensible: in the others a block is more than one sample.
        if name == b"fmt " and len(body) >= 14 and struct.unpack_from("<H", body)[0] in (1, 3, 0xFFFE):
            block_align = struct.unpack_from("<H", body, 12)[0]
        file.seek(size - len(body) + size % 2, 1)
    return Promise()


def _aiff(file: BinaryIO) -> Promise:
    while len(chunk := file.read(8)) == 8:
        name, size = struct.unpack(">4sI", chunk)
        body = file.read(min(size, 6))
        if name == b"COMM" and len(body) == 6:
            samples = struct.unpack_from(">I", body, 2)[0]
            return Promise(samples) if samples < _UNKNOWN else Promise()
        file.seek(size - len(body) + size % 2, 1)
    return Promise()


def _ogg(file: BinaryIO) -> Promise:
    """Whether the last page is whole and marked as the last; a page is never longer than 65 307 bytes."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 2 * 65_307))
    tail = file.read()
    start = tail.rfind(b"OggS")
    page = tail[start:]
    if start < 0 or len(page) < 27 or len(page) < 27 + page[26]:
        return Promise(cut=True)
    is_whole = len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    is_last = bool(page[5] & 4)
    return Promise(cut=not (is_whole and is_last))


def _mp3(file: BinaryIO, start: int) -> Promise:
    """The frame count of a Xing, Info or VBRI header, which sits in the first frame."""
    file.seek(start)
    frame = file.read(64)
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # frame sync, layer III
        return Promise()
    is_mpeg1, is_mono = frame[1] & 0x18 == 0x18, frame[3] >> 6 == 3
    side_info = (17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17)
    xing, vbri = frame[4 + side_info :], frame[36:]
    if xing[:4] in (b"Xing", b"Info") and xing[7] & 1:
        frames = struct.unpack_from(">I", xing, 8)[0]
    elif vbri[:4] == b"VBRI":
        frames = struct.unpack_from(">I", vbri, 14)[0]
    else:
        return Promise()
    samples_per_frame = 1152 if is_mpeg1 else 576
    # The encoder's delay and padding, which are in the count and not in the music, are at most four frames.
    return Promise(frames * samples_per_frame, slack=4 * samples_per_frame)
