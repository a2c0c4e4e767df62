"""All vectors of a collection into a graph: a new one, or the one of before, to which only what is new is added."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poolembed.progress import Progress
from poolembed.search.collection import BLOCK, Collection
from poolembed.search.exact import QUERIES
from poolembed.search.index.file import Contents
from poolembed.search.index.graph import Graph
from poolembed.search.index.measuring import WIDTHS, widen
from poolembed.search.index.searching import Index

DEAD = 0.2
"""Share of a graph that may be of former songs; beyond it the graph is built anew."""

MEASURED = 32
"""New songs that recall is measured with, at least; where that would be more than half of them, what was measured
before stays."""

_SPREAD = 16384  # rows that tell how vectors are spread


@dataclass(frozen=True)
class Linked:
    """A graph of all of a collection's vectors, and what is to be known of it.

    Attributes:
        graph: has vectors of former songs besides.
        ids: ``(N,)``, each row's number in it.
        added: vectors that were not among those of before.
        removed: vectors of before that are not among these.
        width: how wide it has to be searched.
        recall: what is then found of the exact answer, 0 to 1.
    """

    graph: Graph
    ids: NDArray[np.int64]
    added: int
    removed: int
    width: int
    recall: float


def link(collection: Collection, earlier: Contents | None, progress: Progress) -> Linked:
    """Bring all vectors into a graph: that of before, if there is one and not too much of it is of former songs.

    Recall is measured with some of the new songs before they are in the graph, for such a song's neighbours are the
    hardest to find.

    Args:
        collection: its matrix is float16.
        earlier: the index to go on from.
        progress: told how far it is.
    """
    count, vectors = len(collection), collection.matrix
    ids = np.full(count, -1, np.int64)
    graph, removed, width, recall = None, 0, WIDTHS[0], 1.0
    if earlier is not None:
        ids = known_ids(vectors, earlier.parts["vectors"], earlier.parts["ids"])
        removed = len(earlier.parts["ids"]) - int(np.count_nonzero(ids >= 0))
        graph = Graph.load(earlier.parts["graph"], earlier.parts["mean"].copy(), earlier.about.scale)
        width, recall = earlier.about.width, earlier.about.recall
    added = int(np.count_nonzero(ids < 0))
    least = MEASURED
    if graph is None or count < (1 - DEAD) * (len(graph) + added):
        spread = np.linspace(0, count - 1, min(_SPREAD, count)).astype(np.int64)
        graph = Graph.of(vectors[spread].astype(np.float32))
        ids[:] = -1
        least = 1
    new = np.flatnonzero(ids < 0)
    sample = np.sort(np.random.default_rng(0).choice(new, min(QUERIES, len(new) // 2), replace=False))

    def add(rows: NDArray[np.int64]) -> None:
        for first in range(0, len(rows), BLOCK):
            part = rows[first : first + BLOCK]
            progress("linking", first, len(rows))
            ids[part] = np.arange(len(graph), len(graph) + len(part))
            graph.add(vectors[part].astype(np.float32))

    add(np.setdiff1d(new, sample))
    if len(sample) >= least:
        progress("measuring", 0, 0)
        index = Index(collection, graph, ids, width)
        recall = widen(index, sample)
        width = index.width
    add(sample)
    return Linked(graph, ids, added, removed, width, recall)


def known_ids(
    vectors: NDArray[np.float16], former: NDArray[np.float16], former_ids: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each vector the id of an equal one of before, each of those taken once; or -1.

    Whatever the songs are called: one that was renamed or moved keeps its place in the graph.
    """
    new, old = _digests(vectors), _digests(former)
    new_order, old_order = np.argsort(new, kind="stable"), np.argsort(old, kind="stable")
    new, old = new[new_order], old[old_order]
    # The n-th of some equal vectors is matched with the n-th of those of before.
    place = np.searchsorted(old, new) + np.arange(len(new)) - np.searchsorted(new, new)
    there = place < len(old)
    there[there] = old[place[there]] == new[there]
    ids = np.full(len(vectors), -1, np.int64)
    ids[new_order[there]] = former_ids[old_order[place[there]]]
    return ids


def _digests(vectors: NDArray[np.float16]) -> NDArray[np.uint64]:
    """Eight bytes for each vector. Two that differ have equal ones in 1 of 10^19 cases; the graph then lacks one."""
    digests = b"".join(hashlib.blake2b(vector, digest_size=8).digest() for vector in vectors)
    return np.frombuffer(digests, np.uint64)
