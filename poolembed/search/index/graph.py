"""The graph of an index: which vectors are near which, so that a search looks at few of them. All that is of usearch.

It is HNSW (Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using Hierarchical Navigable
Small World graphs, 2018) over vectors of eight-bit integers, which a processor compares fastest and memory delivers
soonest; who needs the order of what is found compares the vectors themselves. Squared distances between vectors of unit
length are in the order of their cosines, and stay the same when one vector is subtracted from all, so the mean is: of
embeddings that crowd in one direction the integers then tell what they differ in.

Connectivity, and how wide a search for the neighbours of a new vector looks, are what `tests/benchmarks/index.py`
found good.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from poolembed.errors import OutputError, UsageError

CONNECTIVITY = 48
BUILDING_WIDTH = 192

_LARGEST = 127
# As many are added by one thread, and so always come out the same, to the byte; several threads link what they see.
_FEW = 256


class Graph:
    """Vectors of unit length with links between them, numbered as they come.

    Args:
        mean: ``(D,)`` float32, subtracted from every vector.
        scale: multiplied with every difference before it is rounded; beyond 127 is cut off.

    Raises:
        UsageError: usearch is not installed.
    """

    def __init__(self, mean: NDArray[np.float32], scale: float) -> None:
        self.mean = mean
        self.scale = scale
        self._mapped: NDArray[np.uint8] | None = None
        self._index = _usearch().Index(
            ndim=len(mean),
            metric="l2sq",
            dtype="i8",
            connectivity=CONNECTIVITY,
            expansion_add=BUILDING_WIDTH,
            enable_key_lookups=False,
        )

    @classmethod
    def of(cls, sample: NDArray[np.float32]) -> Self:
        """An empty graph for vectors that are spread as these are, ``(n, D)``."""
        mean = sample.mean(axis=0)
        return cls(mean, _LARGEST / (float(np.abs(sample - mean).max()) or 1.0))

    @classmethod
    def load(cls, saved: NDArray[np.uint8], mean: NDArray[np.float32], scale: float) -> Self:
        """What `save` wrote, copied into memory, so that more can be added."""
        graph = cls(mean, scale)
        graph._index.load(saved)
        return graph

    @classmethod
    def view(cls, saved: NDArray[np.uint8], mean: NDArray[np.float32], scale: float) -> Self:
        """What `save` wrote, where it is; nothing can be added."""
        graph = cls(mean, scale)
        graph._index.view(saved)
        graph._mapped = saved  # usearch does not keep it
        return graph

    def __len__(self) -> int:
        return len(self._index)

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Link vectors ``(n, D)``, on all cores if they are many; their numbers follow those that are there."""
        threads = 1 if len(vectors) <= _FEW else 0
        self._index.add(np.arange(len(self), len(self) + len(vectors)), self._rounded(vectors), threads=threads)

    def near(self, queries: NDArray[np.float32], count: int, width: int) -> NDArray[np.int64]:
        """The numbers of about the nearest vectors of each query: ``(Q, count)``, -1 where there are no more.

        Args:
            queries: ``(Q, D)`` of unit length.
            count: vectors per query.
            width: candidates that the search holds on to; at least `count`.
        """
        self._index.expansion_search = max(width, count)
        found = self._index.search(self._rounded(queries), count, threads=1 if len(queries) == 1 else 0)
        numbers = np.full((len(queries), count), -1, np.int64)
        if len(queries) == 1:  # usearch then answers without the axis, and without what is not there
            numbers[0, : len(found.keys)] = found.keys
            return numbers
        there = np.arange(count) < found.counts[:, None]
        numbers[there] = found.keys[there]
        return numbers

    def save(self, path: Path) -> None:
        """Write the graph.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            self._index.save(path)
        except RuntimeError as error:  # a full disk, for example
            raise OutputError(f"cannot write {path}: {error}") from error
        # What usearch writes last is written when it closes the file, and whether that went well it does not look at.
        if path.stat().st_size != self._index.serialized_length:
            raise OutputError(f"cannot write {path}: it came out short", hint="is there room on its disk?")

    def _rounded(self, vectors: NDArray[np.float32]) -> NDArray[np.int8]:
        numbers = np.rint((vectors - self.mean) * np.float32(self.scale)).clip(-_LARGEST, _LARGEST)
        rounded: NDArray[np.int8] = numbers.astype(np.int8)
        return rounded


def _usearch() -> Any:
    try:
        import usearch.index
    except ImportError as error:
        raise UsageError(
            "an index needs the library usearch", hint="from poolembed's checkout: pip install '.[index]'"
        ) from error
    return usearch.index
