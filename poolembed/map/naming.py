"""Groups of songs in words: what the collection's model hears in them more than in all songs."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from poolembed.embed.silence import is_silence
from poolembed.errors import BundleError, UsageError
from poolembed.heads import Tagger, load_tagger_of
from poolembed.search.collection import Collection

WORDS = 3
"""Tags that a group is called by, at most."""

_LIFT = 1.2
"""How much more probable a tag is in a group than in all songs to be told."""


def name_groups(collection: Collection, groups: NDArray[np.int64]) -> list[str]:
    """What is heard in each group of songs, in words; "" where no tag sets it apart, or nobody tells any.

    A tag's worth is p log(p / q), p its mean probability in the group and q in all songs: it is heard there, and more
    than elsewhere. Tags of one name count once, and silent songs not at all.

    Args:
        collection: N songs.
        groups: ``(N,)`` the group of each, from 0 on.

    Raises:
        VectorsError: a row is zero, or not finite.
    """
    count = int(groups.max()) + 1
    tagger = _tagger(collection)
    if tagger is None:
        return [""] * count
    names = [name for _, name in tagger.tags]
    sums, songs = np.zeros((count, len(names))), np.zeros(count)
    for first, units in collection.blocks():
        heard, of = ~is_silence(units), groups[first : first + len(units)]
        probabilities = np.concatenate([head.probabilities(units) for head in tagger.heads], axis=1)
        np.add.at(sums, of[heard], probabilities[heard])
        np.add.at(songs, of[heard], 1)
    means = sums / np.maximum(songs, 1)[:, None]
    return [_words(names, inside, sums.sum(0) / max(songs.sum(), 1)) for inside in means]


def _tagger(collection: Collection) -> Tagger | None:
    """What the collection's model tells; None where it is not known, not at hand, or knows no tags."""
    with suppress(BundleError, UsageError):
        tagger = load_tagger_of(collection.model, collection.source, None)
        tagger.check_size(collection.size, collection.source)
        return tagger
    return None


def _words(names: list[str], inside: NDArray[np.float64], everywhere: NDArray[np.float64]) -> str:
    lift = inside / np.maximum(everywhere, 1e-12)
    worth = inside * np.log(np.maximum(lift, 1e-12))
    told: dict[str, str] = {}
    for tag in np.argsort(-worth, kind="stable").tolist():
        if len(told) == WORDS or worth[tag] <= 0:
            break
        if lift[tag] >= _LIFT:
            told.setdefault(names[tag].casefold(), names[tag])
    return ", ".join(told.values())
