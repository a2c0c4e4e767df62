"""A soundfont of a few kilobytes: every preset of it is a sine."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_RATE, _CYCLE, _CYCLES = 44_000, 100, 200  # A above middle C
_KEY = 69


def write_soundfont(file: Path, presets: Sequence[tuple[int, int]]) -> None:
    """Write an SF2 file with presets of these banks and programs."""
    samples = np.sin(np.arange(_CYCLE * _CYCLES) * 2 * np.pi / _CYCLE) * 20_000
    sound = np.pad(samples, (0, 46)).astype("<i2").tobytes()  # the format asks for 46 zeros at the end
    headers = b"".join(
        struct.pack("<20sHHHIII", f"sine {bank}:{program}".encode(), program, bank, number, 0, 0, 0)
        for number, (bank, program) in enumerate(presets)
    )
    count = len(presets)
    loop = (0, len(samples), _CYCLE, len(samples) - _CYCLE)
    preset_data = (
        _chunk(b"phdr", headers + struct.pack("<20sHHHIII", b"EOP", 0, 0, count, 0, 0, 0)),
        _chunk(b"pbag", b"".join(struct.pack("<HH", number, 0) for number in range(count + 1))),
        _chunk(b"pmod", bytes(10)),
        _chunk(b"pgen", struct.pack("<HH", 41, 0) * count + bytes(4)),  # instrument 0
        _chunk(b"inst", struct.pack("<20sH", b"sine", 0) + struct.pack("<20sH", b"EOI", 1)),
        _chunk(b"ibag", struct.pack("<HH", 0, 0) + struct.pack("<HH", 2, 0)),
        _chunk(b"imod", bytes(10)),
        _chunk(b"igen", struct.pack("<HH", 54, 1) + struct.pack("<HH", 53, 0) + bytes(4)),  # looped; sample 0
        _chunk(b"shdr", struct.pack("<20sIIIIIBbHH", b"sine", *loop, _RATE, _KEY, 0, 0, 1) + bytes(46)),
    )
    info = _chunk(b"ifil", struct.pack("<HH", 2, 1)) + _chunk(b"isng", b"EMU8000\0") + _chunk(b"INAM", b"sines\0")
    lists = (b"INFO" + info, b"sdta" + _chunk(b"smpl", sound), b"pdta" + b"".join(preset_data))
    file.write_bytes(_chunk(b"RIFF", b"sfbk" + b"".join(_chunk(b"LIST", content) for content in lists)))


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
