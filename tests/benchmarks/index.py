"""Search by index over a million vectors like real ones, beside exact search and faiss.

poolembed embed SONGS -o real --format matrix --timestamps 1 && python -m tests.benchmarks.index real
    [--rows 1000000] [--repeats 5] [--folder DIR]

Vectors are drawn from those of the seconds of real songs: a second x, moved by (a - b) / sqrt(2), a and b being two
other seconds of its song. So each differs from a real one in the directions in which that song varies, and by as much:
the covariance of the move is that of the song. Noise of one size in all directions is unlike music, and hard for every
index. The first table compares drawn and real vectors, as many of each: cosines to
neighbours, and the local intrinsic dimension (Levina and Bickel, Maximum likelihood estimation of intrinsic dimension,
2004), on which an index's work depends more than on anything else. Queries are drawn in the same way and are not in the
index.

DIR, or where temporary files go, takes 6 GB; faiss needs 8 GB of memory. All timed in turns; medians.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import usearch
from numpy.typing import NDArray

from poolembed.embed.manifest import NAME, read_manifest
from poolembed.files.npy import npy_header
from poolembed.search.collection import Collection, open_collection
from poolembed.search.exact import ExactSearch, Searcher
from poolembed.search.index import Index, open_index
from poolembed.search.index.graph import BUILDING_WIDTH, CONNECTIVITY
from poolembed.search.index.measuring import WIDTHS
from tests.benchmarks.common import POOLEMBED, Table, machine, middle, report, say

K = 10
MANY = 256
QUERIES = 1000
BLOCK = 8192
ENOUGH = 0.95
MB = 1e6
EXACT = "poolembed, exact"

Vectors = NDArray[np.float32]


class Drawn:
    """Vectors like those of real songs' seconds; see the head of this module."""

    def __init__(self, folder: Path) -> None:
        records = [record for record in read_manifest(folder / NAME).records.values() if record.timestamps is not None]
        spans = np.array([record.timestamps for record in records])
        seconds = np.load(folder / "timestamps.npy", mmap_mode="r")
        self.real: Vectors = np.concatenate([seconds[first : first + count] for first, count in spans])
        counts = spans[:, 1]
        self.songs = len(counts)
        self._first = np.repeat(np.cumsum(counts) - counts, counts)
        self._count = np.repeat(counts, counts)

    def blocks(self, rows: int, seed: int) -> Iterator[Vectors]:
        random = np.random.default_rng(seed)
        for first in range(0, rows, BLOCK):
            count = min(BLOCK, rows - first)
            x = random.integers(0, len(self.real), count)
            a, b = (self._first[x] + random.integers(0, self._count[x]) for _ in range(2))
            vectors = self.real[x] + (self.real[a] - self.real[b]) / np.float32(np.sqrt(2))
            yield vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def draw(self, rows: int, seed: int) -> Vectors:
        return np.concatenate(list(self.blocks(rows, seed)))


def likeness(drawn: Drawn) -> tuple[Table, dict[str, Any]]:
    """How drawn vectors and real ones lie, as many of each."""
    table = Table(
        "Real and drawn vectors", ["", "vectors", "cosine to 1st", "to 10th", "to any", "intrinsic dimension"]
    )
    data: dict[str, Any] = {}
    for name, vectors in (("real", drawn.real), ("drawn", drawn.draw(len(drawn.real), seed=3))):
        rows = np.random.default_rng(0).choice(len(vectors), 500, replace=False)
        cosines = vectors[rows] @ vectors.T
        cosines[np.arange(len(rows)), rows] = -1
        nearest = -np.sort(-cosines, axis=1)[:, :20]
        distances = np.sqrt(np.maximum(2 - 2 * nearest, 1e-9))
        dimension = np.median(1 / np.mean(np.log(distances[:, -1:] / distances[:, :-1]), axis=1))
        values = [*np.median(nearest[:, [0, 9]], axis=0), np.median(cosines), dimension]
        data[name] = [float(value) for value in values]
        table.add(name, f"{len(vectors):,}", *(f"{value:.2f}" for value in values[:3]), f"{dimension:.0f}")
    return table, data


def write_matrix(path: Path, drawn: Drawn, rows: int) -> None:
    with path.open("wb") as file:
        file.write(npy_header((rows, drawn.real.shape[1]), np.dtype("<f4")))
        for block in drawn.blocks(rows, seed=0):
            file.write(block.astype("<f4").tobytes())


def build(source: Path, output: Path) -> tuple[float, float]:
    """Seconds that ``poolembed index`` takes, and the most memory, in MB, that is its own and no file's."""
    began = time.perf_counter()
    process = subprocess.Popen([POOLEMBED, "index", str(source), "-o", str(output)])
    most = 0.0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            most = max(most, float(status.partition("RssAnon:")[2].split()[0]) * 1024 / MB)
        except (OSError, IndexError):  # it has just ended, or this is not Linux
            pass
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"poolembed index failed with exit code {process.returncode}")
    return time.perf_counter() - began, most


@dataclass
class Contender:
    """A way to search: queries to rows, and how many queries to time one at a time."""

    rows: Callable[[Vectors], NDArray[np.int64]]
    alone: int


def of_ours(searcher: Searcher) -> Contender:
    return Contender(lambda queries: searcher.nearest(queries, K).rows, 10)


def of_index(index: Index, width: int) -> Contender:
    def rows(queries: Vectors) -> NDArray[np.int64]:
        index.width = width
        return index.nearest(queries, K).rows

    return Contender(rows, 500)


def of_faiss(index: Any, width: int | None = None) -> Contender:
    def rows(queries: Vectors) -> NDArray[np.int64]:
        if width is not None:
            index.hnsw.efSearch = width
        found: NDArray[np.int64] = index.search(queries, K)[1]
        return found

    return Contender(rows, 10 if width is None else 500)


def share(found: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), exact.tolist(), strict=True)]))


def wide_enough(make: Callable[[int], Contender], queries: Vectors, exact: NDArray[np.int64]) -> int:
    """How wide it has to look for a recall that is `ENOUGH`, or may."""
    for width in WIDTHS:
        recall = share(make(width).rows(queries), exact)
        say(f"width {width}: recall {recall:.4f}")
        if recall >= ENOUGH:
            break
    return width


def per_second(contender: Contender, queries: Vectors, at_once: int) -> float:
    """Queries per second, so many in a call."""
    calls = [queries[first : first + at_once] for first in range(0, len(queries), at_once)]
    began = time.perf_counter()
    for call in calls:
        contender.rows(call)
    return len(queries) / (time.perf_counter() - began)


def timed(
    contenders: dict[str, Contender], queries: Vectors, exact: NDArray[np.int64], repeats: int
) -> tuple[Table, dict[str, Any]]:
    """Queries per second of each, one at a time and many at once; every round times all of them."""
    speeds: dict[str, dict[str, Any]] = {
        name: {"recall": share(contender.rows(queries), exact), "one": [], "many": []}
        for name, contender in contenders.items()
    }
    for number in range(repeats):
        for name, contender in contenders.items():
            speeds[name]["one"].append(per_second(contender, queries[: contender.alone], 1))
            speeds[name]["many"].append(per_second(contender, queries[: 2 * MANY], MANY))
        say(f"round {number + 1} of {repeats}")
    table = Table("Queries per second", ["", f"recall@{K}", "one at a time", "x exact", f"{MANY} at once", "x exact"])
    base = speeds[EXACT]
    for name, each in speeds.items():
        cells = [f"{each['recall']:.3f}"]
        for how in ("one", "many"):
            ratio = each[f"{how}, x exact"] = middle(a / b for a, b in zip(each[how], base[how], strict=True))
            cells += [f"{middle(each[how]):,.0f}", f"{ratio:.1f}"]
        table.add(name, *cells)
    return table, speeds


def build_faiss(collection: Collection) -> tuple[Any, Any, float]:
    """faiss's flat index, its HNSW with the parameters of ours, and the seconds that the latter takes."""
    flat = faiss.IndexFlatIP(collection.size)
    graph = faiss.IndexHNSWFlat(collection.size, CONNECTIVITY, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = BUILDING_WIDTH
    seconds = 0.0
    for first, block in collection.blocks(1 << 16):
        flat.add(block)
        began = time.perf_counter()
        graph.add(block)
        seconds += time.perf_counter() - began
        say(f"faiss: {first + len(block):,}")
    return flat, graph, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    about = machine() | {"usearch": usearch.__version__, "faiss-cpu": faiss.__version__}
    drawn = Drawn(options.real)
    about["drawn from"] = f"{len(drawn.real):,} seconds of {drawn.songs} songs"
    like, likenesses = likeness(drawn)
    building = Table("Building", ["", "s", "memory, MB", "file, MB"])
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        source, place = Path(name) / "matrix.npy", Path(name) / "music.index"
        fewer = max(BLOCK, options.rows * 99 // 100 // BLOCK * BLOCK)
        builds = {}
        for what, rows in (("poolembed index", fewer), ("again after 1 % more vectors", options.rows)):
            write_matrix(source, drawn, rows)
            seconds, memory = builds[what] = build(source, place)
            building.add(what, f"{seconds:.0f}", f"{memory:.0f}", f"{place.stat().st_size / MB:.0f}")
        collection = open_collection(source)
        queries = drawn.draw(QUERIES, seed=1)
        exact = ExactSearch(collection)
        rows_of_exact = exact.nearest(queries, K).rows
        began = time.perf_counter()
        index = open_index(str(place))
        opening = time.perf_counter() - began
        chosen = index.width
        flat, graph, seconds = build_faiss(collection)
        building.add("faiss-cpu IndexHNSWFlat", f"{seconds:.0f}", "", "")
        ours = wide_enough(lambda width: of_index(index, width), queries, rows_of_exact)
        theirs = wide_enough(lambda width: of_faiss(graph, width), queries, rows_of_exact)
        contenders = {
            EXACT: of_ours(exact),
            "faiss-cpu IndexFlatIP": of_faiss(flat),
            f"poolembed, index as built, width {chosen}": of_index(index, chosen),
            f"poolembed, index, width {ours}": of_index(index, ours),
            f"faiss-cpu IndexHNSWFlat, width {theirs}": of_faiss(graph, theirs),
        }
        speed, speeds = timed(contenders, queries, rows_of_exact, options.repeats)
    report(
        "index",
        f"Index: top {K} over {options.rows:,} x {collection.size}",
        "index real",
        about,
        [like, building, f"Opening the index takes {1000 * opening:.0f} ms.", speed],
        {"likeness": likenesses, "builds": builds, "faiss build": seconds, "opening": opening, "speeds": speeds},
    )


if __name__ == "__main__":
    main()
