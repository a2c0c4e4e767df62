"""What is in a file of bare frames and is no audio: tags, zeros and text behind the sound or between joined songs."""

from __future__ import annotations

import re
from typing import BinaryIO

_TAG = re.compile(rb"ID3[\x02-\x04]|TAG|APETAGEX|LYRICSBEGIN")
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e]{32}")
# How far from its end the last frame of a file is looked for: tags and padding are shorter.
_MOST = 1 << 18

_AC3_SYNC = b"\x0b\x77"
_AC3_KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_AC3_RATES = (48_000, 44_100, 32_000)


def is_foreign(data: bytes) -> bool:
    """Whether bytes that do not decode never were audio: a tag, nothing but zeros, or text."""
    return bool(_TAG.match(data)) or not data.strip(b"\0") or bool(_TEXT.match(data))


def ac3_end(file: BinaryIO) -> int | None:
    """Where the last frame of an AC-3 or E-AC-3 file ends, if a tag, zeros or text follow it.

    FFmpeg takes what follows for a part of that frame, and then decodes neither.

    Args:
        file: open for reading; its position is moved.

    Returns:
        A position; None if nothing follows, or the file is another.
    """
    file.seek(0)
    if file.read(2) != _AC3_SYNC:
        return None
    start = max(0, file.seek(0, 2) - _MOST)
    file.seek(start)
    data = file.read()
    frame = data.rfind(_AC3_SYNC)
    while frame >= 0:
        end = frame + _ac3_size(data[frame : frame + 6])
        if frame < end < len(data) and is_foreign(data[end:]):
            return start + end
        if end == len(data) or frame < len(data) - (1 << 17):
            return None
        frame = data.rfind(_AC3_SYNC, 0, frame + 1)
    return None


def _ac3_size(header: bytes) -> int:
    """Bytes of a frame of AC-3 or E-AC-3; 0 if that is no header of one."""
    if len(header) < 6:
        return 0
    if header[5] >> 3 > 10:  # E-AC-3
        return 2 * ((header[2] & 7) << 8 | header[3]) + 2
    rate, code = header[4] >> 6, header[4] & 63
    if rate > 2 or code >= 2 * len(_AC3_KBITS):
        return 0
    # 1536 samples in words of 16 bits; at 44.1 kHz every other frame is a word longer.
    words = _AC3_KBITS[code >> 1] * 96_000 // _AC3_RATES[rate]
    return 2 * (words + (code & 1 if rate == 1 else 0))
