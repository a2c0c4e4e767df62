"""Queries to answers: their neighbours, without themselves."""

from __future__ import annotations

import fnmatch
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poolembed.errors import VectorsError
from poolembed.search.collection import Collection
from poolembed.search.exact import QUERIES, Searcher
from poolembed.search.queries import Query


@dataclass(frozen=True)
class Answer:
    """The neighbours of a query.

    Attributes:
        query: its name.
        rows: of the collection, nearest first, equally near ones in order.
        cosines: of each.
    """

    query: str
    rows: list[int]
    cosines: list[float]


def answer(
    searcher: Searcher,
    queries: Iterable[Query],
    k: int,
    allowed: NDArray[np.bool_] | None = None,
    *,
    with_query: bool = False,
) -> Iterator[Answer]:
    """Search; yields an answer a query, in order.

    Args:
        searcher: of the collection that the queries were made for.
        queries: any number, of which a few hundred are taken at once.
        k: neighbours; there are fewer where the collection has fewer.
        allowed: ``(N,)``; rows that may be neighbours. None: all.
        with_query: let songs be their own neighbours.
    """
    queries = iter(queries)
    while batch := list(itertools.islice(queries, QUERIES)):
        own = [set() if with_query else set(query.rows) for query in batch]
        hits = searcher.nearest(np.stack([query.vector for query in batch]), k + max(map(len, own)), allowed)
        for query, without, rows, cosines in zip(batch, own, hits.rows.tolist(), hits.cosines.tolist(), strict=True):
            kept = [pair for pair in zip(rows, cosines, strict=True) if pair[0] >= 0 and pair[0] not in without][:k]
            yield Answer(query.name, [row for row, _ in kept], [cosine for _, cosine in kept])


def allowed_rows(
    collection: Collection, including: Sequence[str], excluding: Sequence[str]
) -> NDArray[np.bool_] | None:
    """Which rows globs let through: those that match one of `including`, if there are any, and none of `excluding`.

    A glob matches a song if it matches all of its key or all of its path. ``*`` matches ``/`` too.

    Returns:
        ``(N,)``; or None where all rows are let through because there are no globs.

    Raises:
        VectorsError: none is let through.
    """
    if not including and not excluding:
        return None
    wanted, unwanted = (_matcher(globs) for globs in (including, excluding))
    allowed = np.fromiter(
        (
            (not including or bool(wanted(key) or wanted(path))) and not (unwanted(key) or unwanted(path))
            for key, path in zip(collection.keys, collection.paths, strict=True)
        ),
        bool,
        len(collection),
    )
    if not allowed.any():
        raise VectorsError(
            f"none of the {len(collection)} songs of {collection.source} is left by the filters",
            hint=f"names are like {collection.keys[0]}, and * matches / too",
        )
    return allowed


def _matcher(globs: Sequence[str]) -> Callable[[str], object]:
    patterns = [fnmatch.translate(os.path.expanduser(glob)) for glob in globs]  # noqa: PTH111
    return re.compile("|".join(patterns)).fullmatch if patterns else lambda name: None
