"""Text from outside, as a person is to see it."""

from __future__ import annotations

from collections.abc import Mapping


def printable(text: str) -> str:
    """Text on one line, in which control characters, and bytes of a path that are not UTF-8, show as escapes."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
