"""A collection to an index: anew, or from the index that is there, to which only what is new is added."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from poolembed.embed.manifest import ModelIdentity
from poolembed.embed.outputs.files import PART, replacing, writing
from poolembed.errors import OutputError
from poolembed.search.collection import BLOCK, Collection
from poolembed.search.index.file import About, Contents, read_contents, starts_as_index, write_about, write_contents
from poolembed.search.index.graph import Graph
from poolembed.search.index.measuring import Recall, widen
from poolembed.search.index.names import pack
from poolembed.search.index.searching import Index, times_of

DEAD = 0.2
"""Share of a graph that may be of former songs; beyond it the graph is built anew."""

_SAMPLE = 16384  # rows that tell how vectors are spread

Progress = Callable[[str, float], None]
"""Told what is being done, and how much of that is done, 0 to 1."""


@dataclass(frozen=True)
class Built:
    """What came of building an index.

    Attributes:
        songs: in the index.
        added: of them new, or with another vector than before.
        removed: former songs, and former vectors of songs that have another now.
        recall: share of the ten nearest songs that a search finds, 0 to 1, on a sample.
        size: of the file, in bytes.
        seconds: that it took.
    """

    songs: int
    added: int
    removed: int
    recall: float
    size: int
    seconds: float


def build_index(
    collection: Collection,
    output: str | os.PathLike[str],
    *,
    paths: str | None = None,
    on_progress: Progress = lambda what, share: None,
) -> Built:
    """Build an index of a collection, or bring the one that is there up to date. It appears whole or not at all.

    Args:
        collection: what is to be found.
        output: the file.
        paths: the file of paths that `collection` was opened with, if any.
        on_progress: told how it goes.

    Raises:
        UsageError: usearch is not installed.
        VectorsError: vectors are zero or not finite, or the index that is there is damaged.
        OutputError: the file cannot be written, is something else, or is an index of another model.
    """
    began = time.perf_counter()
    path = Path(output)
    place = os.path.abspath(collection.source)  # noqa: PTH100 - links stay what they are
    listed = None if paths is None else os.path.abspath(paths)  # noqa: PTH100
    seen = times_of(place, listed)  # first of all, so that what changes meanwhile makes the index old
    with _working(path) as work:
        earlier = _earlier(path, collection)
        if earlier is not None:
            known = earlier.about
            if (known.source, known.paths, known.stamp, known.seen) == (place, listed, collection.stamp, seen):
                return Built(len(collection), 0, 0, known.recall, path.stat().st_size, time.perf_counter() - began)
        vectors = _write_vectors(collection, work / "vectors", on_progress)
        ids, graph, removed, added = _linked(vectors, earlier, on_progress)
        del earlier  # a file that is mapped cannot be replaced on Windows
        about = About(collection.model, place, listed, collection.stamp, seen, graph.scale)
        with replacing(path, work) as part:
            on_progress("writing", 0)
            graph.save(work / "graph")
            mean = graph.mean
            del graph  # the file has all of it
            saved = np.asarray(np.memmap(work / "graph", np.uint8, "r"))
            write_contents(part, about, _parts(collection, ids, mean, vectors, saved))
            del saved
            on_progress("measuring", 0)
            width, recall = _measured(part, collection)
            write_about(part, replace(about, width=width, recall=recall))
    return Built(len(collection), added, removed, recall, path.stat().st_size, time.perf_counter() - began)


@contextmanager
def _working(path: Path) -> Iterator[Path]:
    """A folder beside the index for what is not finished; gone in the end, and one run's alone."""
    work = path.with_name(f".{path.name}{PART}")
    with writing(path):
        work.mkdir(exist_ok=True)
        lock = FileLock(work / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise OutputError(
                f"another run is writing {path}", hint="wait for it to end, or choose another -o"
            ) from error
        try:
            yield work
        finally:
            lock.release()
            shutil.rmtree(work, ignore_errors=True)


def _earlier(path: Path, collection: Collection) -> Contents | None:
    """The index that is there, if it can be brought up to date with a collection."""
    if not path.exists():
        return None
    if not starts_as_index(path):
        raise OutputError(f"{path} is there, and is no index", hint="choose another -o")
    contents = read_contents(path)
    model, size = contents.about.model, contents.parts["vectors"].shape[1]
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


def _write_vectors(collection: Collection, path: Path, on_progress: Progress) -> NDArray[np.float16]:
    """A collection's vectors as the index holds them, mapped from a file."""
    with path.open("wb") as file:
        for first, block in collection.blocks():
            on_progress("reading", first / len(collection))
            file.write(block.astype("<f2").data)
    return np.asarray(np.memmap(path, "<f2", "r", shape=collection.matrix.shape))


def _linked(
    vectors: NDArray[np.float16], earlier: Contents | None, on_progress: Progress
) -> tuple[NDArray[np.int64], Graph, int, int]:
    """Every row's number in a graph of all of them, the graph, and how many were removed and added for that."""
    ids = np.full(len(vectors), -1, np.int64)
    removed = 0
    graph = None
    if earlier is not None:
        ids = _known(vectors, earlier.parts["vectors"], earlier.parts["ids"])
        removed = len(earlier.parts["ids"]) - int(np.count_nonzero(ids >= 0))
        graph = Graph.load(earlier.parts["graph"], earlier.parts["mean"].copy(), earlier.about.scale)
    added = int(np.count_nonzero(ids < 0))
    if graph is None or len(vectors) < (1 - DEAD) * (len(graph) + added):
        spread = np.linspace(0, len(vectors) - 1, min(_SAMPLE, len(vectors))).astype(np.int64)
        graph = Graph.of(vectors[spread].astype(np.float32))
        ids[:] = -1
    new = np.flatnonzero(ids < 0)
    ids[new] = np.arange(len(graph), len(graph) + len(new))
    for first in range(0, len(new), BLOCK):
        on_progress("linking", first / len(new))
        graph.add(vectors[new[first : first + BLOCK]].astype(np.float32))
    return ids, graph, removed, added


def _known(
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


def _parts(
    collection: Collection,
    ids: NDArray[np.int64],
    mean: NDArray[np.float32],
    vectors: NDArray[np.float16],
    graph: NDArray[np.uint8],
) -> dict[str, NDArray[Any]]:
    parts: dict[str, NDArray[Any]] = {"ids": ids}
    texts: dict[str, NDArray[np.uint8]] = {}
    if collection.named:
        texts["keys"], parts["key_ends"] = pack(collection.keys)
        texts["paths"], parts["path_ends"] = pack(collection.paths)
    return {**parts, "mean": mean, "vectors": vectors, **texts, "graph": graph}


def _measured(part: Path, collection: Collection) -> tuple[int, float]:
    """How wide the index in a file has to look, and its recall then."""
    index = Index(read_contents(part), str(part))
    recall = widen(index, Recall(collection))
    return index.width, recall
