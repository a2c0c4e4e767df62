"""The few ways in which files are written, and what a failing disk is called.

Nothing is written through a symbolic link: an output directory that came from elsewhere could lead to any file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from poolembed.errors import OutputError
from poolembed.files.reading import check_regular

PART = ".part"

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


def refuse_link(path: Path) -> None:
    """Raise an OSError, whose `strerror` says so in words, if a file would be written through a symbolic link."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a symbolic link, through which nothing is written")


def open_bytes(path: Path, flags: int) -> int:
    """``os.open`` of a regular file to write, without newline translation where that exists.

    Raises:
        OSError: it cannot be opened, is a symbolic link or no regular file; `strerror` says so in words.
    """
    refuse_link(path)  # O_NOFOLLOW would do, but for its words and for Windows
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.open(path, flags, 0o666)
    try:
        check_regular(file)
    except OSError:
        os.close(file)
        raise
    return file


class Folders:
    """The folders inside an output directory; each is looked at once.

    Args:
        directory: the output directory, which may be a link itself.
    """

    def __init__(self, directory: Path) -> None:
        self._root = os.path.realpath(directory)
        self._inside: dict[Path, bool] = {}

    def check(self, path: Path) -> None:
        """Raise an OSError if the folder of a file leads out of the directory, by a symbolic link."""
        folder = path.parent
        inside = self._inside.get(folder)
        if inside is None:
            real = os.path.realpath(folder)
            inside = self._inside[folder] = real == self._root or real.startswith(self._root.rstrip(os.sep) + os.sep)
        if not inside:
            raise OSError(errno.ELOOP, "a symbolic link there leads out of the output directory")


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
    part.unlink(missing_ok=True)  # a link there would be written through
    try:
        yield part
        file = open_bytes(part, os.O_RDWR)
        try:
            os.fsync(file)
        finally:
            os.close(file)
        _put(part, path)
    finally:
        # Gone by now if all went well. On a full disk it should not keep its space.
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _put(part: Path, path: Path) -> None:
    while True:
        try:
            part.replace(path)
            return
        except InterruptedError:  # a signal, on a network file system; Python goes on by itself elsewhere, not here
            continue


def create(path: Path, data: bytes, work: Path) -> None:
    """Put a file of ``data`` at ``path`` in one step, making its directory if need be."""
    part = work / ("song" + PART)
    file = open_bytes(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_at(file, data, 0)
    finally:
        os.close(file)
    try:
        _put(part, path)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        _put(part, path)
