"""Text from outside, as a person is to see it."""

from __future__ import annotations

import re
from collections.abc import Mapping

_FORMER = re.compile(r"\\udc([89a-f][0-9a-f])")  # as Parquet tables of earlier versions show such a byte


def path_text(path: str) -> str:
    r"""A path where only UTF-8 is taken, as in Parquet: bytes that are not show as escapes.

    >>> print(path_text("caf\udce9.mp3"), path_text("café.mp3"))
    caf\xe9.mp3 café.mp3
    """
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _FORMER.sub(r"\\x\1", text) if "\\udc" in text else text


def printable(text: str) -> str:
    """Text on one line, in which control characters, and bytes of a path that are not UTF-8, show as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in path_text(text))


def size(count: float) -> str:
    """Bytes in words.

    >>> size(6_640_000), size(20e9)
    ('6.64 MB', '20 GB')
    """
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def passed_over(counts: Mapping[str, int]) -> str:
    """Files that were left alone for their suffixes, the most frequent first, on one line.

    >>> passed_over({".abc": 2, ".xyz": 5, "": 1})
    '8 files whose suffix is not known: .xyz 5, .abc 2, none 1'
    """
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{printable(suffix) or 'none'} {count}" for suffix, count in ranked[:5])
    total = sum(counts.values())
    more = f", and {len(ranked) - 5} more" if len(ranked) > 5 else ""
    return f"{total} file{'' if total == 1 else 's'} whose suffix is not known: {shown}{more}"
