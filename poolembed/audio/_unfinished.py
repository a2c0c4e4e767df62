"""Headers that libsndfile would misread, put right on the fly.

They have no length, for their writer never came back to fill it in, or fewer bits than their samples have room for.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

from poolembed.audio._chunks import Chunk, Chunks
from poolembed.audio._promise import aiff_frame

_LARGEST = 0xFFFF_FFFE


def missing_sizes(file: BinaryIO, chunks: Chunks | None) -> dict[int, bytes]:
    """What belongs where in the header of a file that states no length, though it holds samples; else nothing.

    Args:
        file: open for reading; its position is moved.
        chunks: its chunks, if it is made of any.
    """
    if chunks is None:
        return _au(file)
    samples = chunks.samples
    left = chunks.size - samples.start if samples is not None else 0
    if samples is None or samples.size > chunks.head or left <= chunks.head:
        return {}
    if chunks.kind in (b"RIFF", b"RIFX"):
        size = ">I" if chunks.kind == b"RIFX" else "<I"
        return {
            4: struct.pack(size, min(chunks.size - 8, _LARGEST)),
            samples.start - 4: struct.pack(size, min(left, _LARGEST)),
        }
    if chunks.kind in (b"RF64", b"BW64"):
        return _rf64(file, chunks, samples, left)
    if chunks.kind == b"FORM":
        return _aiff(file, chunks, samples, left)
    # CAF and W64, whose sizes have eight bytes; that of W64 counts its own header of 24 bytes in.
    return {samples.start - 8: struct.pack(">q", left) if chunks.kind == b"caff" else struct.pack("<q", left + 24)}


def sample_width(file: BinaryIO, chunks: Chunks | None) -> dict[int, bytes]:
    """The bits of a sample with those that only fill it up, where a plain WAV counts 20, say, in samples of 32.

    Args:
        file: open for reading; its position is moved.
        chunks: its chunks, if it is made of any.
    """
    fmt = chunks.find(b"fmt ") if chunks is not None and chunks.kind in (b"RIFF", b"RF64", b"BW64") else None
    if fmt is None:
        return {}
    file.seek(fmt.start)
    code, channels, _, _, block_align, bits = struct.unpack("<HHIIHH", file.read(16).ljust(16, b"\0"))
    room = 8 * block_align // max(1, channels)
    is_padded = code == 1 and bits % 8 and bits <= room - 8 and room in (16, 24, 32)
    return {fmt.start + 14: struct.pack("<H", room)} if is_padded else {}


def _rf64(file: BinaryIO, chunks: Chunks, samples: Chunk, left: int) -> dict[int, bytes]:
    ds64, fmt = chunks.find(b"ds64"), chunks.find(b"fmt ")
    if ds64 is None or fmt is None or ds64.size < 24:
        return {}
    file.seek(fmt.start)
    block_align = max(1, struct.unpack_from("<H", file.read(14).ljust(14, b"\0"), 12)[0])
    return {
        0: b"RF64",
        samples.start - 4: b"\xff" * 4,
        ds64.start: struct.pack("<QQQ", chunks.size - 8, left, left // block_align),
    }


def _aiff(file: BinaryIO, chunks: Chunks, samples: Chunk, left: int) -> dict[int, bytes]:
    comm, frame = chunks.find(b"COMM"), aiff_frame(file, chunks)
    if comm is None or not frame:
        return {}
    return {
        4: struct.pack(">I", min(chunks.size - 8, _LARGEST)),
        comm.start + 2: struct.pack(">I", min((left - chunks.head) // frame, _LARGEST)),
        samples.start - 4: struct.pack(">I", min(left, _LARGEST)),
    }


def _au(file: BinaryIO) -> dict[int, bytes]:
    file.seek(0)
    head = file.read(12)
    return {8: b"\xff" * 4} if head[:4] == b".snd" and head[8:] == bytes(4) else {}


class PatchedFile(io.RawIOBase):
    """A file some bytes of which are read as others.

    Args:
        file: open for reading; stays the caller's.
        patches: the other bytes, by where they are.
    """

    def __init__(self, file: BinaryIO, patches: dict[int, bytes]) -> None:
        self._file = file
        self._patches = patches
        self._position = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of any file."""
        self._position = offset + self._position if whence == 1 else self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        """As of any file."""
        return self._position

    def readinto(self, buffer: object) -> int:
        """As of any file."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        self._file.seek(self._position)
        data = self._file.read(len(view))
        view[: len(data)] = data
        for at, patch in self._patches.items():
            for index, byte in enumerate(patch, at - self._position):
                if 0 <= index < len(data):
                    view[index] = byte
        self._position += len(data)
        return len(data)
