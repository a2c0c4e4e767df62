"""The few ways in which an output directory is written, and what a failing disk is called."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from poolembed.errors import OutputError

WORK = ".poolembed"  # the folder, inside the output directory, of everything that is not finished
PART = ".part"
FAULTS = "faults.log"  # in that folder, the tracebacks of faults of poolembed itself

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@contextmanager
def writing(path: Path, way_on: str = "the same command again continues where this one stopped") -> Iterator[None]:
    """Turn an OSError inside the block into an OutputError about ``path``, with the way on."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            way_on = f"make room; {way_on}"
        elif error.errno in _FORBIDDEN:
            way_on = f"make it writable, or choose another directory with -o; {way_on}"
        raise OutputError(f"cannot write {path}: {error.strerror or error}", hint=way_on) from error


def open_bytes(path: Path, flags: int) -> int:
    """``os.open`` without newline translation where that exists."""
    return os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)


def write_at(file: int, data: bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``: straight to the operating system, so that SIGKILL cannot lose it."""
    os.lseek(file, offset, os.SEEK_SET)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


@contextmanager
def replacing(path: Path, work: Path) -> Iterator[Path]:
    """Yield a path in ``work`` to write; it takes the place of ``path`` if the block ends well.

    Flushed to the disk first: this replaces the only copy of something, unlike a song that can be embedded again.
    """
    part = work / (path.name + PART)
    try:
        yield part
        file = open_bytes(part, os.O_RDWR)
        try:
            os.fsync(file)
        finally:
            os.close(file)
        part.replace(path)
    finally:
        # Gone by now if all went well. On a full disk it should not keep its space.
        with suppress(OSError):
            part.unlink(missing_ok=True)


def create(path: Path, data: bytes, work: Path) -> None:
    """Put a file of ``data`` at ``path`` in one step, making its directory if need be."""
    part = work / ("song" + PART)
    file = open_bytes(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_at(file, data, 0)
    finally:
        os.close(file)
    try:
        part.replace(path)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.replace(path)


def offset_of_line(file: BinaryIO, number: int) -> tuple[int, int]:
    """Where line ``number`` starts: ``(whole lines before it, their bytes)``; fewer if the file has fewer lines."""
    lines = offset = 0
    while lines < number and (block := file.read(1 << 20)):
        found = block.count(b"\n")
        if lines + found < number:
            lines += found
            # A line cut short at the end of the file must not count as bytes of whole lines.
            last = block.rfind(b"\n") + 1
            if last:
                offset = file.tell() - len(block) + last
            continue
        at = -1
        for _ in range(number - lines):
            at = block.index(b"\n", at + 1)
        return number, file.tell() - len(block) + at + 1
    return lines, offset
