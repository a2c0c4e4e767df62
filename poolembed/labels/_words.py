"""Counts and lists of names as messages say them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

_MOST = 10


def count(number: int, noun: str) -> str:
    """``1 clip``, ``2 clips``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def some(names: Iterable[str]) -> str:
    """Up to ten names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more


def nearest(name: str, names: Collection[str], *, cutoff: float) -> str | None:
    """The one of the names that was probably meant: case and surrounding space do not count."""
    plain = {other.strip().casefold(): other for other in names}
    close = difflib.get_close_matches(name.strip().casefold(), plain, n=1, cutoff=cutoff)
    return plain[close[0]] if close else None
