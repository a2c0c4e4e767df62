"""What a collection's model hears in its songs: told of every song, and searched for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from poolembed.embed.silence import is_silence
from poolembed.heads import Labels, Tagger, top
from poolembed.progress import Progress, counted, silent
from poolembed.search.collection import Collection
from poolembed.search.exact import Hits, unit_queries

_ENTRIES = 1 << 24  # scores that are held at once: queries x songs


class TaggedSong(NamedTuple):
    """What is heard in a song: per column of the model's labels the likeliest, the likeliest first; in silence none."""

    path: str
    key: str
    labels: dict[str, Labels]


def tag_songs(collection: Collection, tagger: Tagger, count: int, progress: Progress = silent) -> Iterator[TaggedSong]:
    """Tell the tags of every song, in order.

    Raises:
        VectorsError: a row is zero, or not finite.
    """
    told = counted(progress, "tagging", "songs")
    names = zip(collection.paths, collection.keys, strict=True)
    for first, units in collection.blocks():
        told(first, len(collection))
        of_heads = [(head.config, head.probabilities(units)) for head in tagger.heads]
        for row, is_silent in enumerate(is_silence(units).tolist()):
            most = 0 if is_silent else count
            labels = {config.column: top(config, probabilities[row], most) for config, probabilities in of_heads}
            yield TaggedSong(*next(names), labels)


class TagSearch:
    """Finds songs by tags: by the geometric mean of their probabilities, times the cosine to a query if there is one.

    Silent songs are not found.

    All vectors are read, whatever indexes them.

    Attributes:
        heard: ``(N, T)`` float32, the probability of each tag in each song.
    """

    def __init__(self, collection: Collection, tagger: Tagger, tags: Sequence[str]) -> None:
        self._collection, self._names = collection, tuple(tags)
        self._is_heard = ~collection.silent(np.arange(len(collection)))
        self.heard = np.concatenate([tagger.heard(units, tags) for _, units in collection.blocks()])
        with np.errstate(divide="ignore"):  # the logarithm of 0
            self._weights = np.exp(np.mean(np.log(self.heard), axis=1, dtype=np.float64))

    def of(self, row: int) -> tuple[tuple[str, float], ...]:
        """The tags with their probabilities in a song, to six digits."""
        return tuple(zip(self._names, (round(p, 6) for p in self.heard[row].tolist()), strict=True))

    def best(self, k: int, allowed: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """The rows, k at most, in which the tags are most probable, the most probable first."""
        return self._ranked(self._weights, k, allowed)

    def nearest(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None) -> Hits:
        """The k best rows of each query, with their cosines; see `poolembed.search.exact.Searcher`."""
        precise = unit_queries(queries, self._collection.size, k)
        rows = np.full((len(queries), k), -1, np.int64)
        cosines = np.full((len(queries), k), np.nan, np.float32)
        step = max(1, _ENTRIES // len(self._collection))
        for first in range(0, len(queries), step):
            rounded = precise[first : first + step].astype(np.float32)
            found = np.concatenate([units @ rounded.T for _, units in self._collection.blocks()])
            for at, cosine in enumerate(found.T, start=first):
                best = self._ranked(cosine * self._weights, k, allowed)
                rows[at, : len(best)], cosines[at, : len(best)] = best, cosine[best]
        return Hits(rows, cosines)

    def _ranked(self, scores: NDArray[np.float64], k: int, allowed: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        rows = np.flatnonzero(self._is_heard if allowed is None else self._is_heard & allowed)
        return rows[np.argsort(-scores[rows], kind="stable")[:k]]
