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
    """Bytes in words, to three digits.

    >>> size(0), size(40_300), size(6_640_000), size(999_999), size(20e9)
    ('0 B', '40.3 kB', '6.64 MB', '1 MB', '20 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def duration(seconds: float) -> str:
    """A length of time in words: with tenths below ten seconds, and without seconds from an hour on.

    >>> duration(0.31), duration(9.96), duration(59.7), duration(95), duration(3599.8), duration(7530)
    ('0.3 s', '10 s', '1 min', '1 min 35 s', '1 h', '2 h 6 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min" + (f" {rest} s" if rest else "")
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours:,} h" + (f" {rest} min" if rest else "")


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
