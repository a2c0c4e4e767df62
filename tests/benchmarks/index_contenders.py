"""What `tests/benchmarks/index.py` compares: ways to build an index of a matrix, and to search it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.search.collection import open_collection
from poolembed.search.exact import ExactSearch

K = 10
BLOCK = 8192
EFFORTS: Sequence[int] = (16, 32, 64, 96, 128, 192, 256, 384, 512)

Vectors = NDArray[np.float32]
Search = Callable[[Vectors, int], NDArray[np.int64]]
"""Queries ``(Q, D)`` and an effort to rows ``(Q, K)``."""


class Contender:
    """A way to search.

    Attributes:
        name: in the tables.
        package: the library that it needs, or None.
        efforts: how far it may look; the first that finds enough is timed, or else the last.
    """

    name: str
    package: str | None = None
    efforts: Sequence[int] = (0,)

    def build(self, matrix: Path, place: Path) -> None:
        """Write an index of the matrix to a place."""

    def open(self, matrix: Path, place: Path) -> Search:
        """What searches it."""
        raise NotImplementedError


class Exact(Contender):
    """What the others are compared with."""

    name = "poolembed, exact"

    def open(self, matrix: Path, place: Path) -> Search:
        exact = ExactSearch(open_collection(matrix))
        return lambda queries, effort: exact.nearest(queries, K).rows


class Usearch(Contender):
    """What ``poolembed index`` makes; searched as wide as it was found to need when it was built."""

    name, package = "usearch HNSW, poolembed index", "usearch"

    def build(self, matrix: Path, place: Path) -> None:
        from poolembed.search.index import build_index

        build_index(matrix, place)

    def open(self, matrix: Path, place: Path) -> Search:
        from poolembed.search.index import open_index

        index = open_index(str(place))
        return lambda queries, effort: index.nearest(queries, K).rows


class Lance(Contender):
    """Inverted lists with RaBitQ, a bit a number, in a table; ten times as many as wanted are compared exactly."""

    name, package, efforts = "Lance IVF_RQ", "pylance", (60, 120, 240)

    def build(self, matrix: Path, place: Path) -> None:
        import lance
        import pyarrow as pa

        stored = np.load(matrix, mmap_mode="r")
        vector = pa.list_(pa.float32(), stored.shape[1])

        def batches() -> Iterator[Any]:
            for first in range(0, len(stored), BLOCK):
                block = pa.array(stored[first : first + BLOCK].reshape(-1))
                yield pa.record_batch([pa.FixedSizeListArray.from_arrays(block, type=vector)], ["embedding"])

        schema = pa.schema([("embedding", vector)])
        lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches()), str(place))
        lance.dataset(str(place)).create_index("embedding", "IVF_RQ", metric="cosine")

    def open(self, matrix: Path, place: Path) -> Search:
        import lance

        dataset = lance.dataset(str(place))

        def search(queries: Vectors, effort: int) -> NDArray[np.int64]:
            rows = np.full((len(queries), K), -1, np.int64)
            for query, vector in enumerate(queries):
                nearest = {"column": "embedding", "q": vector, "k": K, "minimum_nprobes": effort, "refine_factor": 10}
                found = dataset.scanner(
                    columns=["_rowoffset"], nearest=nearest, disable_scoring_autoprojection=True
                ).to_table()["_rowoffset"]
                rows[query, : len(found)] = found.to_numpy()
            return rows

        return search


class FaissHNSW(Contender):
    """With usearch's parameters; vectors as float32."""

    name, package = "faiss-cpu IndexHNSWFlat", "faiss-cpu"
    efforts = EFFORTS
    parameter = "efSearch"

    def build(self, matrix: Path, place: Path) -> None:
        import faiss

        from poolembed.search.index.searching import BUILDING_WIDTH, CONNECTIVITY

        stored = np.load(matrix, mmap_mode="r")
        index = faiss.IndexHNSWFlat(stored.shape[1], CONNECTIVITY, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = BUILDING_WIDTH
        for first in range(0, len(stored), 1 << 16):
            index.add(stored[first : first + (1 << 16)])
        faiss.write_index(index, str(place))

    def open(self, matrix: Path, place: Path) -> Search:
        import faiss

        index: Any = faiss.read_index(str(place))

        def search(queries: Vectors, effort: int) -> NDArray[np.int64]:
            faiss.ParameterSpace().set_index_parameter(index, self.parameter, effort)
            rows: NDArray[np.int64] = index.search(queries, K)[1]
            return rows

        return search


class FaissIVF(FaissHNSW):
    """Inverted lists of eight-bit numbers, four times as many lists as the square root of the vectors."""

    name, parameter = "faiss-cpu IVF, SQ8", "nprobe"
    efforts = (4, 8, *EFFORTS)

    def build(self, matrix: Path, place: Path) -> None:
        import faiss

        stored = np.load(matrix, mmap_mode="r")
        lists = int(4 * np.sqrt(len(stored)))
        index = faiss.index_factory(stored.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        index.train(stored[:: max(1, len(stored) // (40 * lists))])
        for first in range(0, len(stored), 1 << 16):
            index.add(stored[first : first + (1 << 16)])
        faiss.write_index(index, str(place))


CONTENDERS: Sequence[type[Contender]] = (Exact, Usearch, Lance, FaissHNSW, FaissIVF)
