"""A collection to an index: anew, or from the index that is there."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.errors import OutputError
from poolembed.files.claims import working
from poolembed.files.writing import replacing
from poolembed.identity import ModelIdentity
from poolembed.progress import Progress, silent
from poolembed.search.collection import Collection
from poolembed.search.index.file import About, Contents, read_contents, starts_as_index, write_contents
from poolembed.search.index.linking import Linked, link
from poolembed.search.index.names import pack
from poolembed.search.index.origin import open_origin


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
    with working(path, "the index that was there, if any, is as it was") as work:
        earlier = _earlier(path, collection)
        if earlier is None or earlier.about.origin != origin:
            vectors = _write_vectors(collection, work / "vectors", progress)
            linked = link(replace(collection, matrix=vectors, unit=False), earlier, progress)
            del earlier  # a file that is mapped cannot be replaced on Windows
            added, removed, recall = linked.added, linked.removed, linked.recall
            about = About(collection.model, origin, linked.graph.scale, linked.width, recall)
            progress("writing", 0, 0)
            with replacing(path, work) as part:
                linked.graph.save(work / "graph")
                graph = np.asarray(np.memmap(work / "graph", np.uint8, "r"))
                write_contents(part, about, _parts(collection, linked, vectors, graph))
        else:
            added, removed, recall = 0, 0, earlier.about.recall
    size, seconds = path.stat().st_size, time.perf_counter() - began
    return Built(len(collection), added, removed, collection.size, collection.model, recall, size, seconds)


def _earlier(path: Path, collection: Collection) -> Contents | None:
    """The index that is there, if it can be brought up to date with a collection."""
    if not os.path.lexists(path):
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


def _write_vectors(collection: Collection, path: Path, progress: Progress) -> NDArray[np.float16]:
    """A collection's vectors as the index holds them, mapped from a file."""
    with path.open("wb") as file:
        for first, block in collection.blocks():
            progress("reading", first, len(collection))
            file.write(block.astype("<f2").data)
    return np.asarray(np.memmap(path, "<f2", "r", shape=collection.matrix.shape))


def _parts(
    collection: Collection, linked: Linked, vectors: NDArray[np.float16], graph: NDArray[np.uint8]
) -> dict[str, NDArray[Any]]:
    parts: dict[str, NDArray[Any]] = {"ids": linked.ids}
    texts: dict[str, NDArray[np.uint8]] = {}
    if collection.named:
        texts["keys"], parts["key_ends"] = pack(collection.keys)
        texts["paths"], parts["path_ends"] = pack(collection.paths)
    return {**parts, "mean": linked.graph.mean, "vectors": vectors, **texts, "graph": graph}
