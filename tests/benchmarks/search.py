"""Exact search over a million vectors, beside reading them once, one bare matrix product, and faiss.

python -m tests.benchmarks.search [--rows 1000000] [--size 512] [--repeats 7] [--songs 20000] [--folder DIR]

DIR, or where temporary files go, takes the matrix: 2 GB. It is in the page cache when the clocks start. faiss holds a
copy of its own in memory, and the bare product writes all cosines, 1 GB: 6 GB of memory are needed.

All is timed in turns, once a round, and the median of the rounds is given; ratios are medians of ratios within a round.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from poolembed.audio.find import FoundFile
from poolembed.embed.manifest import Format
from poolembed.embed.outputs import open_output
from poolembed.embed.song import Embedded
from poolembed.files.npy import npy_header
from poolembed.identity import ModelIdentity
from poolembed.search.collection import open_collection
from poolembed.search.exact import ExactSearch
from tests.benchmarks.common import POOLEMBED, Table, machine, middle, report, say

K = 10
MANY = 256
MB = 1e6
FORMATS: tuple[Format, ...] = ("npy", "matrix", "parquet", "jsonl")

READ, PRODUCT = "np.add.reduce, the matrix read once", f"bare product with {MANY} queries"


def write_matrix(path: Path, rows: int, size: int) -> None:
    """Noise of unit length, a block at a time."""
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(npy_header((rows, size), np.dtype("<f4")))
        for first in range(0, rows, 1 << 14):
            block = random.standard_normal((min(1 << 14, rows - first), size), np.float32)
            file.write((block / np.linalg.norm(block, axis=1, keepdims=True)).astype("<f4").tobytes())


def rounds(contenders: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(repeats + 1):
        for name, work in contenders.items():
            began = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - began)
        say(f"round {number} of {repeats}")
    return seconds


def searches(path: Path, repeats: int) -> dict[str, list[float]]:
    """Time what is to be compared over one matrix."""
    collection = open_collection(path)
    matrix: NDArray[np.float32] = collection.matrix
    random = np.random.default_rng(1)
    queries = random.standard_normal((MANY, collection.size), np.float32)
    products = np.empty((len(matrix), MANY), np.float32)
    flat = faiss.IndexFlatIP(collection.size)
    for first in range(0, len(matrix), 1 << 16):
        flat.add(matrix[first : first + (1 << 16)])
    searcher = ExactSearch(collection)
    contenders: dict[str, Callable[[], object]] = {
        READ: lambda: np.add.reduce(matrix, axis=None),
        "poolembed, 1 query, vectors not checked before": lambda: ExactSearch(collection).nearest(queries[:1], K),
        "poolembed, 1 more query": lambda: searcher.nearest(queries[:1], K),
        "faiss-cpu IndexFlatIP, 1 query": lambda: flat.search(queries[:1], K),
        PRODUCT: lambda: np.matmul(matrix, queries.T, out=products),
        f"poolembed, {MANY} queries, vectors not checked before": lambda: ExactSearch(collection).nearest(queries, K),
        f"faiss-cpu IndexFlatIP, {MANY} queries": lambda: flat.search(queries, K),
    }
    found = searcher.nearest(queries, K)
    agree = np.mean(found.rows == flat.search(queries, K)[1])
    say(f"{agree:.2%} of the rows are those of faiss, in their places")
    return rounds(contenders, repeats)


def speed_table(seconds: dict[str, list[float]]) -> tuple[Table, dict[str, Any]]:
    """Medians, and ratios to what bounds each."""
    table = Table("Speed", ["what", "ms", f"x {READ.split(',')[0]}", "x bare product"])
    ratios: dict[str, Any] = {}
    for name, times in seconds.items():
        bound = PRODUCT if str(MANY) in name else READ
        ratio = middle(one / other for one, other in zip(times, seconds[bound], strict=True))
        ratios[name] = {"to": bound, "ratio": ratio}
        cells = ["", f"{ratio:.2f}"] if bound == PRODUCT else [f"{ratio:.2f}", ""]
        table.add(name, f"{1000 * middle(times):.1f}", *cells)
    return table, ratios


def peak(*arguments: str) -> tuple[float, float]:
    """Most memory, in MB, that a ``poolembed search`` had resident at once, and its wall time in seconds."""
    began = time.perf_counter()
    process = subprocess.Popen([POOLEMBED, "search", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"poolembed search failed with exit code {process.returncode}")
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return usage.ru_maxrss * unit / MB, time.perf_counter() - began


def memory_table(path: Path, folder: Path) -> tuple[Table, dict[str, Any]]:
    """Peaks of the whole command over the matrix."""
    size = open_collection(path).size
    stored = path.stat().st_size / MB
    table = Table("Memory of the whole command", ["queries", "matrix, MB", "peak, MB", "more than the matrix, MB", "s"])
    data: dict[str, Any] = {}
    for count in (1, MANY):
        np.save(folder / "queries.npy", np.random.default_rng(2).standard_normal((count, size), np.float32))
        most, seconds = peak(str(folder / "queries.npy"), "--in", str(path), "-k", str(K))
        table.add(count, f"{stored:.0f}", f"{most:.0f}", f"{most - stored:.0f}", f"{seconds:.1f}")
        data[str(count)] = {"matrix_mb": stored, "peak_mb": most, "seconds": seconds}
    return table, data


def opening_table(folder: Path, songs: int, size: int, repeats: int) -> tuple[Table, dict[str, Any]]:
    """How long it takes to open what ``poolembed embed`` wrote of so many songs, and to search it for one."""
    random = np.random.default_rng(3)
    keys = [f"artist {number // 100}/song {number}.mp3" for number in range(songs)]
    table = Table(f"Collections of {songs:,} songs", ["format", "open, s", "and one query, s"])
    data: dict[str, Any] = {}
    for format in FORMATS:
        model = ModelIdentity("m", "f" * 64, size)
        out = folder / format
        with open_output(out, format=format, dtype="float32", timestamps=None, model=model, overwrite=False) as output:
            for job in output.plan([FoundFile(f"/music/{key}", key, "music") for key in keys]).todo:
                vector = random.standard_normal(size, np.float32)
                output.write(job, Embedded(0, vector / np.linalg.norm(vector), 200.0))
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            collection = open_collection(out)
            opened = time.perf_counter() - began
            ExactSearch(collection).nearest(collection.unit_rows([0]), K)
            times.append((opened, time.perf_counter() - began))
        table.add(format, *(f"{middle(column):.2f}" for column in zip(*times, strict=True)))
        data[format] = times
        say(f"{format}: {middle(opened for opened, _ in times):.2f} s")
    return table, data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--songs", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    about = machine() | {"numpy": np.__version__, "faiss-cpu": faiss.__version__}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        path = folder / "matrix.npy"
        say(f"writing {options.rows:,} vectors of {options.size} numbers")
        write_matrix(path, options.rows, options.size)
        memory, peaks = memory_table(path, folder)  # first, for a process starts with its parent's peak
        seconds = searches(path, options.repeats)
        speed, ratios = speed_table(seconds)
        path.unlink()
        opening, openings = opening_table(folder, options.songs, options.size, options.repeats)
    report(
        "search",
        f"Exact search: top {K} over {options.rows:,} x {options.size} float32",
        "search",
        about,
        [speed, memory, opening],
        {"seconds": seconds, "ratios": ratios, "memory": peaks, "opening": openings},
    )


if __name__ == "__main__":
    main()
