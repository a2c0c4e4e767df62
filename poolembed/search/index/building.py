"""A collection to an index: anew, or from the index that is there, to which only what is new is added."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.errors import OutputError
from poolembed.files.claims import working
from poolembed.files.writing import replacing
from poolembed.identity import ModelIdentity
from poolembed.progress import Progress, silent
from poolembed.search.collection import BLOCK, Collection
from poolembed.search.exact import QUERIES, ExactSearch
from poolembed.search.index.file import (
    About,
    Contents,
    complete,
    is_index,
    is_of_first_version,
    open_origin,
    pack,
    read_contents,
    slots,
)
from poolembed.search.index.searching import LARGEST, Index, new_graph, restore, round_off

DEAD = 0.2
"""Share of a graph that may be left empty by former songs; beyond it the graph is built anew."""

MEASURED = 32
"""New songs that recall is measured with, at least; where that would be more than half of them, what was measured
before stays."""

AT = 10
"""Neighbours whose recall is measured."""

ENOUGH = 0.96
"""Recall that a search is made wide enough for; a little more than 0.95, for it is measured on a few hundred songs."""

WIDTHS = (64, 96, 128, 192, 256, 384, 512, 768, 1024)

FEW = 256
"""As many are added by one thread, and so always come out the same, to the byte; several threads link what they see."""

_SPREAD = 16384  # rows that tell how vectors are spread
_FAR = 1 << 40  # beyond all rows
_NO_NAMES = np.empty(0, np.uint8), np.empty(0, np.int64)


@dataclass(frozen=True)
class Built:
    """What came of building an index.

    Attributes:
        songs: in the index.
        added: of them new, or with another vector than before.
        removed: former songs, and former vectors of songs that have another now.
        dimensions: of a vector.
        model: whose vectors they are, or None where nothing says so.
        recall: share of the ten nearest songs that a search finds, 0 to 1.
        size: of the file, in bytes.
        seconds: that it took.
    """

    songs: int
    added: int
    removed: int
    dimensions: int
    model: ModelIdentity | None
    recall: float
    size: int
    seconds: float


def build_index(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    paths: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Built:
    """Build an index of a collection, or bring the one that is there up to date. It appears whole or not at all.

    Memory grows with what the graph takes, 0.9 kB a vector of 512 numbers, and with the names; vectors pass by in
    blocks.

    Args:
        source: the collection, as `poolembed.search.collection.open_collection` takes it.
        output: the file.
        paths: the file of its paths, likewise.
        progress: told how far it is.

    Raises:
        UsageError: usearch is not installed.
        VectorsError: the collection cannot be read, or vectors are zero or not finite; or the index that is there is
            damaged.
        OutputError: the file cannot be written, is something else, or is an index of another model; or the
            collection's manifest is damaged.
    """
    began = time.perf_counter()
    path = Path(output)
    collection, origin = open_origin(source, paths)
    added = removed = 0
    with working(path, "the index that was there, if any, is as it was") as work:
        earlier = _earlier(path, collection)
        if earlier is not None and earlier.about.origin == origin:
            recall = earlier.about.recall
        else:
            stored = _write_vectors(collection, work / "vectors", progress)
            former = np.full(len(stored), -1)
            if earlier is not None:
                former = known_rows(stored.matrix, earlier.vectors)
                removed = len(earlier.vectors) - int(np.count_nonzero(former >= 0))
            added = int(np.count_nonzero(former < 0))
            if earlier is not None and len(stored) >= (1 - DEAD) * slots(earlier.graph)[0]:
                index = _continued(stored, earlier, former, path)
                recall = _add(index, np.flatnonzero(former < 0), earlier.about.recall, progress)
            else:
                index = _begun(stored)
                recall = _add(index, np.arange(len(stored)), None, progress)
            del earlier  # a file that is mapped cannot be replaced on Windows
            progress("writing", 0, 0)
            text, bounds = pack(chain(collection.keys, collection.paths)) if collection.named else _NO_NAMES
            about = About(collection.model, origin, index.scale, index.width, recall)
            with replacing(path, work) as part:
                _save(index.graph, part)
                complete(part, about, [stored.matrix, bounds, index.mean, text])
    size, seconds = path.stat().st_size, time.perf_counter() - began
    return Built(len(collection), added, removed, collection.size, collection.model, recall, size, seconds)


def _earlier(path: Path, collection: Collection) -> Contents | None:
    """The index that is there, if it can be brought up to date with a collection."""
    if not os.path.lexists(path):
        return None
    if not is_index(path):
        raise OutputError(f"{path} is there, and is no index", hint="choose another -o")
    if is_of_first_version(path):
        return None
    contents = read_contents(path)
    model, size = contents.about.model, contents.about.shape[1]
    if (model and model.fingerprint) != (collection.model and collection.model.fingerprint) or size != collection.size:
        raise OutputError(
            f"{path} is an index of {_words(model, size)}, and {collection.source} holds "
            f"{_words(collection.model, collection.size)}",
            hint="choose another -o, or delete the index to build it anew",
        )
    return contents


def _words(model: ModelIdentity | None, size: int) -> str:
    whose = "an unknown model" if model is None else f"the model {model.name} ({model.fingerprint[:8]})"
    return f"vectors of {whose} with {size} numbers"


def _write_vectors(collection: Collection, path: Path, progress: Progress) -> Collection:
    """A collection with its vectors as the index holds them, mapped from a file."""
    with path.open("wb") as file:
        for first, block in collection.blocks():
            progress("reading", first, len(collection))
            file.write(block.astype("<f2").data)
    matrix = np.asarray(np.memmap(path, "<f2", "r", shape=collection.matrix.shape))
    return replace(collection, matrix=matrix, unit=False)


def _begun(stored: Collection) -> Index:
    """An empty index for a collection."""
    spread = np.linspace(0, len(stored) - 1, min(_SPREAD, len(stored))).astype(np.int64)
    sample = stored.matrix[spread].astype(np.float32)
    mean = sample.mean(axis=0)
    scale = LARGEST / (float(np.abs(sample - mean).max()) or 1.0)
    return Index(stored, new_graph(stored.size), mean, scale, WIDTHS[0])


def _continued(stored: Collection, earlier: Contents, former: NDArray[np.int64], path: Path) -> Index:
    """The index of before, of those vectors that it knows and with their rows of now."""
    graph = restore(earlier, path, view=False)
    graph.remove(np.setdiff1d(np.arange(len(earlier.vectors)), former))
    moved = np.flatnonzero((former >= 0) & (former != np.arange(len(former))))
    if len(moved):  # by way of keys that no other vector has
        graph.rename(former[moved], former[moved] + _FAR)
        graph.rename(former[moved] + _FAR, moved)
    return Index(stored, graph, earlier.mean.copy(), earlier.about.scale, earlier.about.width)


def _add(index: Index, new: NDArray[np.int64], known_recall: float | None, progress: Progress) -> float:
    """Link rows, and return the index's recall, measured with some of them before they are in the graph.

    The neighbours of a song that is not in the graph are the hardest to find.
    """
    sample = np.sort(np.random.default_rng(0).choice(new, min(QUERIES, len(new) // 2), replace=False))

    def link(rows: NDArray[np.int64]) -> None:
        for first in range(0, len(rows), BLOCK):
            progress("linking", first, len(rows))
            part = rows[first : first + BLOCK]
            rounded = round_off(index.collection.matrix[part].astype(np.float32), index.mean, index.scale)
            index.graph.add(part, rounded, threads=1 if len(part) <= FEW else 0)

    link(np.setdiff1d(new, sample))
    recall = 1.0 if known_recall is None else known_recall
    if len(sample) >= (1 if known_recall is None else MEASURED):
        progress("measuring", 0, 0)
        recall = _widen(index, sample)
    link(sample)
    return recall


def _widen(index: Index, sample: NDArray[np.int64]) -> float:
    """Let an index look as wide as it has to for a recall that is `ENOUGH`, or as wide as it may.

    Args:
        index: its `width` is set.
        sample: rows to search the others for.

    Returns:
        The recall: which share, 0 to 1, of the ten nearest songs is found, on average. A song that is as near as the
        tenth counts, whichever of them the exact search has listed.
    """
    others = np.ones(len(index.collection), bool)
    others[sample] = False
    queries = index.collection.unit_rows(sample)
    exact = ExactSearch(index.collection).nearest(queries, AT, others)
    last = np.nanmin(exact.cosines, axis=1)[:, None]
    recall = 0.0
    for index.width in WIDTHS:
        as_near = index.nearest(queries, AT, others).cosines >= last
        recall = float(np.mean(as_near.sum(axis=1) / (exact.rows >= 0).sum(axis=1)))
        if recall >= ENOUGH:
            break
    return recall


def known_rows(vectors: NDArray[np.float16], former: NDArray[np.float16]) -> NDArray[np.int64]:
    """For each vector the row of an equal one of before, each of those taken once; or -1.

    Whatever the songs are called: one that was renamed or moved keeps its place in the graph.
    """
    new, old = _digests(vectors), _digests(former)
    new_order, old_order = np.argsort(new, kind="stable"), np.argsort(old, kind="stable")
    new, old = new[new_order], old[old_order]
    # The n-th of some equal vectors is matched with the n-th of those of before.
    place = np.searchsorted(old, new) + np.arange(len(new)) - np.searchsorted(new, new)
    there = place < len(old)
    there[there] = old[place[there]] == new[there]
    rows = np.full(len(vectors), -1, np.int64)
    rows[new_order[there]] = old_order[place[there]]
    return rows


def _digests(vectors: NDArray[np.float16]) -> NDArray[np.uint64]:
    """Eight bytes for each vector. Two that differ have equal ones in 1 of 10^19 cases; the graph then lacks one."""
    digests = b"".join(hashlib.blake2b(vector, digest_size=8).digest() for vector in vectors)
    return np.frombuffer(digests, np.uint64)


def _save(graph: Any, path: Path) -> None:
    """Write a graph.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        graph.save(path)
    except RuntimeError as error:  # a full disk, for example
        raise OutputError(f"cannot write {path}: {error}") from error
    # What usearch writes last is written when it closes the file, and whether that went well it does not look at.
    if path.stat().st_size != graph.serialized_length:
        raise OutputError(f"cannot write {path}: it came out short", hint="is there room on its disk?")
