"""Text from outside, as a person is to see it."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text on one line, in which control characters, and bytes of a path that are not UTF-8, show as escapes."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
