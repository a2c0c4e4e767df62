"""Files that somebody else may have written: opened so that none can hang or flood, and names in them checked.

What is read as poolembed's own data is a regular file. A pipe would be waited for, and a device read without end. Links
are followed to read: collections are kept as links by git-annex and DVC. Nothing is written through a link
(`poolembed.files.writing`): an output directory that came from elsewhere could lead to any file of the user's.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from io import BufferedReader
from typing import BinaryIO

_LONGEST_LINE = 1 << 20  # bytes; a path has 4096 at most
_LONGEST_LIST = 1 << 30
_MOST_ENTRIES = 10_000_000
_BLOCK = 1 << 20

_ODD = re.compile(r"\0|//|(?:^|/)\.{1,2}(?:/|$)|^/|/$" + (r"|[\\:]" if os.sep == "\\" else ""))


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file to read.

    Raises:
        OSError: it cannot be opened, or is no regular file; `strerror` says so in words.
    """
    try:
        # Non-blocking, or opening a named pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a NUL in it, or a surrogate that stands for no byte
        raise OSError(errno.EINVAL, "no file can have this name") from error
    try:
        check_regular(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def check_regular(descriptor: int) -> None:
    """Raise an OSError, whose `strerror` says so in words, unless an open file is a regular one."""
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a directory" if stat.S_ISDIR(mode) else "it is no regular file")


def read_regular(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """All of a file.

    Args:
        path: the file.
        limit: bytes that it may have.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger than that; `strerror` says so in words.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, and {limit:,} at most are expected")
        return file.read() if limit is None else file.read(limit + 1)[:limit]


def read_list(file: BinaryIO, end: bytes) -> list[bytes]:
    """The entries of a list that may come from a pipe, without the empty last one.

    Args:
        file: open to read.
        end: what ends each entry, one byte.

    Raises:
        OSError: it is endless, or no list: a line of a megabyte, ten million entries or a gigabyte in all.
    """
    blocks: list[bytes] = []
    size = since = count = 0
    while block := file.read(_BLOCK):
        last = block.rfind(end)
        first = block.find(end)
        longest = since + (first if first >= 0 else len(block))
        since = since + len(block) if last < 0 else len(block) - last - 1
        size += len(block)
        count += block.count(end)
        blocks.append(block)
        if count > _MOST_ENTRIES:
            raise OSError(errno.EFBIG, f"it is no list of paths, or too long a one: it has more than {_MOST_ENTRIES:,}")
        if longest > _LONGEST_LINE or size > _LONGEST_LIST:
            raise OSError(errno.EFBIG, f"it is no list of paths: it goes on for more than {size >> 20} megabytes")
    entries = b"".join(blocks).split(end)
    if not entries[-1]:
        entries.pop()
    return entries


def is_below(name: str) -> bool:
    """Whether a ``/``-separated name stays below the folder it is relative to, on every system.

    >>> [is_below(name) for name in ("a/b.npy", "..a", "", "../a", "/a", "a/../../b", "a//b", "./a", "a/", "a\\0b")]
    [True, True, False, False, False, False, False, False, False, False]
    """
    return bool(name) and _ODD.search(name) is None
