"""What is read from standard input and from lists of paths, to an end: a pipe may have none."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import BinaryIO

from poolembed.errors import PoolembedError
from poolembed.files.reading import read_list
from poolembed.text import size

MOST_BYTES = 1 << 30
"""Bytes of vectors on standard input: some 200,000 lines with 512 numbers each."""


def read_paths(path: str, null: bool) -> list[str]:
    """The paths that a list holds, one a line, or ended by NUL.

    Args:
        path: of the list; - is standard input.
        null: they are ended by NUL.

    Raises:
        PoolembedError: the list cannot be read, or is too long.
    """
    end = b"\0" if null else b"\n"
    try:
        if path == "-":
            lines = read_list(_stdin(), end)
        else:
            # Of any kind: <(find …) is a pipe. Not Path.expanduser, which raises where there is no such user.
            with Path(os.path.expanduser(path)).open("rb") as file:  # noqa: PTH111
                lines = read_list(file, end)
    except OSError as error:
        name = "on standard input" if path == "-" else path
        hint = "-0 is for lists as find -print0 writes them" if error.errno == errno.EFBIG else None
        raise PoolembedError(f"cannot read the list of paths {name}: {error.strerror or error}", hint=hint) from error
    lines = [line for line in lines if line]
    if not null and all(line.endswith(b"\r") for line in lines):  # a list from Windows
        lines = [line[:-1] for line in lines]
    return [os.fsdecode(line) for line in lines]


def read_stdin() -> bytes:
    """All of standard input.

    Raises:
        PoolembedError: it is longer than `MOST_BYTES`.
    """
    data = _stdin().read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise PoolembedError(
            f"standard input has more than {size(MOST_BYTES)}",
            hint="put what is searched for into a directory or an .npy file, or search in several goes",
        )
    return data


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise PoolembedError("cannot read from standard input: it is closed")
    return sys.stdin.buffer
