"""The chunks of a WAV, W64, AIFF or CAF file: where its samples are, and whether its sizes can be right."""

from __future__ import annotations

import re
import struct
from typing import BinaryIO, NamedTuple

_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0"
# The tags of an AVI, which are in front of its pictures and sound or behind them.
_INFO = re.compile(rb"LIST(.{4})INFO", re.DOTALL)
_ENDS = 1 << 20
# What holds the samples, and may state any size: its writer may not have known it, or its end may be missing.
_SAMPLES = (b"data", b"SSND")
# Bytes in front of the samples in their chunk: AIFF's offset and block size, CAF's number of edits.
_HEADS = {b"FORM": 8, b"caff": 4}
# Lengths beyond this (280 TB) are no lengths: writers that do not know theirs put 2^63 - 1, say.
_LARGEST = 1 << 48
# A file of more chunks than this has none that matter behind them.
_MOST = 10_000


class Chunk(NamedTuple):
    """One chunk.

    Attributes:
        name: four bytes.
        start: of its contents.
        size: of its contents by its own account; -1 where it says that it does not know.
    """

    name: bytes
    start: int
    size: int


class Chunks(NamedTuple):
    """All of a file.

    Attributes:
        kind: its first four bytes.
        size: of the file.
        all: the chunks in their order, as far as they can be followed.
        misfit: the first chunk that is no samples and does not fit into the file, or None. FFmpeg gets the memory that
            it asks for before it looks whether so much is there.
    """

    kind: bytes
    size: int
    all: tuple[Chunk, ...]
    misfit: Chunk | None

    def find(self, *names: bytes) -> Chunk | None:
        """The first chunk of one of these names."""
        return next((chunk for chunk in self.all if chunk.name in names), None)

    @property
    def samples(self) -> Chunk | None:
        """The chunk of the samples."""
        return self.find(*_SAMPLES)

    @property
    def head(self) -> int:
        """Bytes of that chunk in front of the samples."""
        return _HEADS.get(self.kind, 0)


def read_chunks(file: BinaryIO) -> Chunks | None:
    """The chunks of a file; None if it is made of none.

    Args:
        file: open for reading; its position is moved.
    """
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(40)
    kind = head[:4]
    layout = _layout(head)
    if layout is None:
        return None
    header, position, padding = layout
    chunks: list[Chunk] = []
    misfit = None
    while len(chunks) < _MOST:
        file.seek(position)
        fields = file.read(header.size)
        name, stated = _name_and_size(header, fields) if len(fields) == header.size else (b"", -1)
        if not name:
            break
        if name == b"data" and stated == 0xFFFF_FFFF and kind in (b"RF64", b"BW64"):
            stated = _long_size(file, chunks)
        chunk = Chunk(name, position + header.size, stated if stated < _LARGEST else -1)
        chunks.append(chunk)
        end = chunk.start + chunk.size
        if chunk.size < 0 or end > size:
            misfit = None if name in _SAMPLES else chunk
            break
        position = end + -end % padding
    # No samples by its own account, yet what follows is no chunk: samples whose number was never filled in.
    for index, chunk in enumerate(chunks):
        if chunk.name in _SAMPLES and chunk.size <= _HEADS.get(kind, 0) and position < size:
            return Chunks(kind, size, tuple(chunks[: index + 1]), None)
    return Chunks(kind, size, tuple(chunks), misfit)


def _layout(head: bytes) -> tuple[struct.Struct, int, int] | None:
    """How a file's chunks begin, where the first does, and to how many bytes their ends are rounded up."""
    kind, form = head[:4], head[8:12]
    if kind in (b"RIFF", b"RF64", b"BW64") and form == b"WAVE":
        return struct.Struct("<4sI"), 12, 2
    if (kind == b"RIFX" and form == b"WAVE") or (kind == b"FORM" and form in (b"AIFF", b"AIFC")):
        return struct.Struct(">4sI"), 12, 2
    if kind == b"caff":
        return struct.Struct(">4sq"), 8, 1
    if head[:16] == _W64_RIFF:
        return struct.Struct("<16sq"), 40, 8
    return None


def _name_and_size(header: struct.Struct, fields: bytes) -> tuple[bytes, int]:
    """A chunk's four letters and its size; no letters if these are remains behind the last chunk."""
    name, size = header.unpack(fields)
    if len(name) == 16:  # a GUID that begins with four letters; the size counts the header in
        name, size = name[:4], max(size - header.size, -1)
    return name if all(32 <= letter < 127 for letter in name) else b"", size


def _long_size(file: BinaryIO, chunks: list[Chunk]) -> int:
    """What an RF64 says of the size of its samples in the chunk that has room for it; -1 if nothing."""
    ds64 = next((chunk for chunk in chunks if chunk.name == b"ds64" and chunk.size >= 16), None)
    if ds64 is None:
        return -1
    file.seek(ds64.start + 8)
    size: int = struct.unpack("<q", file.read(8).ljust(8, b"\xff"))[0]
    return size


def tags_fit(file: BinaryIO) -> bool:
    """Whether the tags of an AVI, if this is one, do not claim to be larger than the file, which `read_chunks` is for
    in the other formats.

    Args:
        file: open for reading; its position is moved.
    """
    file.seek(0)
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"AVI ":
        return True
    size = file.seek(0, 2)
    for start in {0, max(0, size - _ENDS)}:
        file.seek(start)
        for match in _INFO.finditer(file.read(_ENDS)):
            if start + match.end(1) + int.from_bytes(match[1], "little") > size:
                return False
    return True


def ogg_in_chunks(file: BinaryIO, chunks: Chunks) -> tuple[int, int] | None:
    """First byte and end of the Ogg file in the place of samples, as codecs of Windows put Vorbis into a WAV; or None.

    Args:
        file: open for reading; its position is moved.
        chunks: of the file.
    """
    data = chunks.samples
    if data is None:
        return None
    file.seek(data.start)
    return (data.start, data.start + data.size if data.size > 0 else chunks.size) if file.read(4) == b"OggS" else None
