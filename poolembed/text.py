"""Text from outside, as a person is to see it."""

from __future__ import annotations


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
