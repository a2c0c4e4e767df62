"""What is read from standard input and from lists of paths, to an end: a pipe may have none."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

from poolembed.errors import PoolembedError

MOST_PATHS = 10_000_000
"""Paths of one list."""

MOST_BYTES = 1 << 30
"""Bytes of vectors on standard input: some 200,000 lines with 512 numbers each."""

_BLOCK = 1 << 20
_LONGEST = 1 << 20  # no system has longer paths than a few thousand bytes


def read_paths(path: str, null: bool) -> list[str]:
    """The paths that a list holds, one a line, or ended by NUL.

    Args:
        path: of the list; - is standard input.
        null: they are ended by NUL.

    Raises:
        PoolembedError: the list cannot be read, or is too long.
    """
    name = "standard input" if path == "-" else path
    try:
        if path == "-":
            lines = _lines(_stdin(), null, name)
        else:
            with open(os.path.expanduser(path), "rb") as file:  # noqa: PTH111, PTH123 - Path's raises where there is no such user
                lines = _lines(file, null, name)
    except OSError as error:
        raise PoolembedError(f"cannot read the list of paths {path}: {error.strerror}") from error
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
            f"standard input has more than {MOST_BYTES / 1e9:.1f} GB",
            hint="put what is searched for into a directory or an .npy file, or search in several goes",
        )
    return data


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise PoolembedError("cannot read from standard input: it is closed")
    return sys.stdin.buffer


def _lines(stream: BinaryIO, null: bool, name: str) -> list[bytes]:
    end = b"\0" if null else b"\n"
    lines: list[bytes] = []
    rest, seen = b"", 0
    while block := stream.read(_BLOCK):
        *whole, rest = (rest + block).split(end)
        lines += filter(None, whole)
        seen += len(whole)  # empty ones too, of which there may be no end either
        if seen > MOST_PATHS:
            raise PoolembedError(
                f"the list of paths on {name} has more than {MOST_PATHS:,}",
                hint="does it end? several runs with a list each can write to the same -o, one after the other",
            )
        if len(rest) > _LONGEST:
            raise PoolembedError(
                f"the list of paths on {name} has a line of more than {_LONGEST:,} bytes",
                hint="is it a list? -0 is for lists as find -print0 writes them",
            )
    return [*lines, rest] if rest else lines
