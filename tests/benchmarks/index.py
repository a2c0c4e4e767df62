"""Approximate search over a million vectors like real ones: HNSW of usearch and faiss, IVF of Lance and faiss, exact.

poolembed embed SONGS -o real --format matrix --timestamps 1 && python -m tests.benchmarks.index real
    [--rows 1000000] [--repeats 3] [--folder DIR]

Vectors are drawn from those of the seconds of real songs: a second x, moved by (a - b) / sqrt(2), a and b being two
other seconds of its song. So each differs from a real one in the directions in which that song varies, and by as much:
the covariance of the move is that of the song. Noise of one size in all directions is unlike music, and hard for every
index. The first table compares drawn and real vectors, as many of each: cosines to neighbours, and the local intrinsic
dimension (Levina and Bickel, Maximum likelihood estimation of intrinsic dimension, 2004), on which an index's work
depends more than on anything else. Queries are drawn in the same way and are not in the index.

Each index is built in a process of its own on all cores, and searched in two others: one that may use a single core,
whose queries are counted per second that it computes, for others may be busy, and one that may use all, whose are
counted per second. Efforts are the least that find 95 % (HNSW: candidates held on to; IVF: lists looked through).
Memory is what such a process has for itself alone at most, pages of mapped files not counted. Every round times all of
them in turn; figures are medians. The installed size of a library counts what it brings besides what poolembed needs
anyway. DIR, or where temporary files go, takes 12 GB for a million; faiss needs 8 GB of memory.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.embed.manifest import NAME, read_manifest
from poolembed.files.npy import npy_header
from tests.benchmarks.common import Table, cores, machine, middle, report, say
from tests.benchmarks.index_contenders import BLOCK, CONTENDERS, Exact, K, Search, Vectors

MANY = 256
ALONE = 200
ENOUGH = 0.95
MB = 1e6


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

    def write(self, path: Path, rows: int) -> None:
        with path.open("wb") as file:
            file.write(npy_header((rows, self.real.shape[1]), np.dtype("<f4")))
            for block in self.blocks(rows, seed=0):
                file.write(block.astype("<f4").tobytes())


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


@dataclass
class Done:
    """What a process answers.

    Attributes:
        seconds: that it took.
        cpu: seconds that its threads computed.
        memory: the most MB so far that are its own.
        rows: ``(Q, K)``, of a search.
    """

    seconds: float
    cpu: float
    memory: float
    rows: Any


def serve(end: Connection, number: int, matrix: Path, place: Path) -> None:
    """Do in a process what is asked, until None is."""
    contender = CONTENDERS[number]()
    search: Search | None = None
    most = [0.0]
    threading.Thread(target=_watch, args=(most,), daemon=True).start()
    while (asked := end.recv()) is not None:
        began, used = time.perf_counter(), time.process_time()
        rows = None
        if asked == "build":
            contender.build(matrix, place)
        elif asked == "open":
            search = contender.open(matrix, place)
        elif search is not None:
            queries, effort, at_once = asked
            calls = [queries[first : first + at_once] for first in range(0, len(queries), at_once)]
            rows = np.concatenate([search(call, effort) for call in calls])
        end.send(Done(time.perf_counter() - began, time.process_time() - used, most[0], rows))


def _watch(most: list[float]) -> None:
    """Keep the most memory that this process has had for itself, in MB."""
    while True:
        told = re.search(r"RssAnon:\s*(\d+)", Path("/proc/self/status").read_text())
        most[0] = max(most[0], int(told.group(1)) * 1024 / MB if told else 0)
        time.sleep(0.05)


class Worker:
    """A contender in a process of its own, on so many cores."""

    def __init__(self, number: int, matrix: Path, place: Path, on: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._end, other = context.Pipe()
        all_cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(all_cores)[:on])  # which the process and its threads inherit
        self._process = context.Process(target=serve, args=(other, number, matrix, place), daemon=True)
        self._process.start()
        os.sched_setaffinity(0, all_cores)
        other.close()

    def ask(self, what: object) -> Done:
        self._end.send(what)
        done: Done = self._end.recv()
        return done

    def end(self) -> None:
        self._end.send(None)
        self._process.join()


@dataclass
class Row:
    """A line of the second table: a contender at one effort."""

    name: str
    workers: Sequence[Worker]
    effort: int
    recall: float
    alone: int


def share(found: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), exact.tolist(), strict=True)]))


def on_disk(place: Path) -> float:
    files = [place] if place.is_file() else place.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file()) / MB


def installed(package: str) -> float:
    """MB of a package and of what it brings that poolembed does not need anyway."""
    brought = _needs(package) - _needs("poolembed")
    return (
        sum(
            Path(str(file.locate())).stat().st_size
            for name in brought
            for file in importlib.metadata.files(name) or []
            if Path(str(file.locate())).is_file()
        )
        / MB
    )


def _needs(package: str) -> set[str]:
    found: set[str] = set()
    left = [package]
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # needed elsewhere, not here
        if name not in found:
            found.add(name)
            left += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line]
    return found


def compare(folder: Path, queries: Vectors, repeats: int) -> tuple[list[Table], dict[str, Any]]:
    """Build and search with every contender."""
    matrix = folder / "matrix.npy"
    building = Table("Building", ["", "s", "CPU s", "memory, MB", "on disk, MB", "library installed, MB"])
    builds: dict[str, Any] = {}
    rows: list[Row] = []
    memory: dict[str, float] = {}
    exact: Any = None
    for number, contender in enumerate(CONTENDERS):
        place = folder / f"{number}.lance"
        if contender.package is not None:
            worker = Worker(number, matrix, place, cores())
            done = worker.ask("build")
            worker.end()
            sizes = on_disk(place), installed(contender.package)
            figures = builds[contender.name] = [done.seconds, done.cpu, done.memory, *sizes]
            building.add(contender.name, *(f"{figure:,.0f}" for figure in figures))
            say(f"{contender.name}: built in {done.seconds:.0f} s, {done.cpu:.0f} s of computing")
        workers = [Worker(number, matrix, place, on) for on in (1, cores())]
        for worker in workers:
            worker.ask("open")
        for effort in contender.efforts:
            found = workers[1].ask((queries, effort, MANY)).rows
            exact = found if exact is None else exact
            recall = share(found, exact)
            say(f"{contender.name}, effort {effort}: recall {recall:.4f}")
            if recall >= ENOUGH or effort == contender.efforts[-1]:
                rows.append(Row(contender.name, workers, effort, recall, 4 if contender is Exact else ALONE))
            if recall >= ENOUGH:
                break
    speeds: dict[tuple[str, int], list[list[float]]] = {(row.name, row.effort): [[], [], [], []] for row in rows}
    for turn in range(repeats):
        for row in rows:
            places = iter(speeds[row.name, row.effort])
            for worker in row.workers:
                for some, at_once in ((queries[: row.alone], 1), (queries[:MANY], MANY)):
                    done = worker.ask((some, row.effort, at_once))
                    memory[row.name] = done.memory
                    next(places).append(len(some) / (done.cpu if worker is row.workers[0] else done.seconds))
        say(f"round {turn + 1} of {repeats}")
    one, every = "one core", f"{cores()} cores"
    table = Table(
        "Queries per second",
        ["", f"recall@{K}", f"{one}: 1", f"{MANY} at once", f"{every}: 1", f"{MANY} at once", "memory, MB"],
    )
    for row in rows:
        at = f", effort {row.effort}" if row.effort else ""
        figures = [middle(each) for each in speeds[row.name, row.effort]]
        table.add(
            row.name + at,
            f"{row.recall:.3f}",
            *(f"{figure:,.0f}" for figure in figures),
            f"{memory[row.name]:,.0f}",
        )
    for worker in {worker for row in rows for worker in row.workers}:
        worker.end()
    data = {f"{name}, {effort}": figures for (name, effort), figures in speeds.items()}
    return [building, table], {"builds": builds, "speeds": data, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    about = machine()
    for package in ("usearch", "pylance", "faiss-cpu"):
        about[package] = importlib.metadata.version(package)
    drawn = Drawn(options.real)
    about["drawn from"] = f"{len(drawn.real):,} seconds of {drawn.songs} songs"
    like, likenesses = likeness(drawn)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        drawn.write(Path(name) / "matrix.npy", options.rows)
        tables, data = compare(Path(name), drawn.draw(2 * MANY, seed=1), options.repeats)
    whole = options.rows == 1_000_000
    command = "index real" if whole else f"index real --rows {options.rows}"
    heading = f"Approximate search: top {K} over {options.rows:,} x {drawn.real.shape[1]}"
    report(
        "index" if whole else f"index_{options.rows}",
        heading,
        command,
        about,
        [like, *tables],
        {"likeness": likenesses, **data},
    )


if __name__ == "__main__":
    main()
