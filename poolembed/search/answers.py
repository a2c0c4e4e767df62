"""What a search finds: hits, the answer to a query, and the answers to many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from poolembed.errors import PoolembedError


@dataclass(frozen=True, slots=True)
class Hit:
    """A song that was found.

    Attributes:
        path: of the audio file; of vectors without paths the number of the row.
        cosine: to the query, -1 to 1, rounded to six digits; None where there are tags alone to search for.
        title: from the file's tags; None where there is none, or no file. Tags are read of songs that are found, and of
            no others: some tenths of a millisecond each.
        artist: likewise.
        key: the song's name in the collection, for people: the path below the folder that was embedded.
        rank: 1 for the nearest.
        tags: of those that were searched for, how probable each is, to six digits.
    """

    path: str
    cosine: float | None
    title: str | None
    artist: str | None
    key: str
    rank: int
    tags: tuple[tuple[str, float], ...] = ()


class Answer(NamedTuple):
    """What was found for a query: its name, a path if it is a song, and the hits, nearest first."""

    query: str
    hits: list[Hit]


@dataclass
class Answers:
    """The answers to several queries. Iterating searches, some hundred queries at a time.

    Attributes:
        failures: name -> what is wrong, of what cannot be searched for.
        asked: how many queries there are besides.
    """

    failures: dict[str, PoolembedError] = field(default_factory=dict)
    asked: int = 0
    _each: Iterable[Answer] = ()

    def __iter__(self) -> Iterator[Answer]:
        return iter(self._each)
