"""A table of a million songs: pushed, pushed again and searched, with the memory that each takes.

python -m tests.benchmarks.push [--rows 1000000] [--size 512] [--folder DIR]

DIR, or where temporary files go, takes the matrix and the table: 4 GB. Vectors have a rank of 24 and a little noise, as
embeddings of songs have far fewer directions than numbers. Seconds are of whole commands, start included, and beside
each is the ratio to a plain copy of the matrix made just before. Memory is what a process has for itself alone, at its
peak: pages of mapped files, which the system takes back when it needs them, are not in it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tests.benchmarks.common import POOLEMBED, Table, machine, report, say

MB = 1e6
RANK, NOISE = 24, 0.02
NEW = 1000
QUERIES = 20


def write_matrix(path: Path, rows: int, size: int, seed: int) -> None:
    """Unit vectors, a block at a time; fewer rows are the first of more."""
    directions = np.random.default_rng(0).standard_normal((RANK, size), np.float32)
    random = np.random.default_rng(seed)
    matrix = np.lib.format.open_memmap(path, "w+", np.float32, (rows, size))
    for first in range(0, rows, 1 << 14):
        count = min(1 << 14, rows - first)
        block = random.standard_normal((1 << 14, RANK), np.float32)[:count] @ directions
        block += NOISE * np.sqrt(RANK) * random.standard_normal((1 << 14, size), np.float32)[:count]
        matrix[first : first + count] = block / np.linalg.norm(block, axis=1, keepdims=True)
    matrix.flush()


def run(*arguments: str | Path) -> tuple[float, float, str]:
    """Seconds of a command, most memory of its own, in MB, and what it printed."""
    began = time.perf_counter()
    most = 0.0
    with tempfile.TemporaryFile("w+") as out:
        process = psutil.Popen([POOLEMBED, *map(str, arguments)], stdout=out, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            try:
                memory = process.memory_info()
            except psutil.Error:
                break
            most = max(most, (memory.rss - memory.shared) / MB)
            time.sleep(0.02)
        if process.wait():
            raise SystemExit(f"poolembed {arguments[0]} failed with exit code {process.returncode}")
        seconds = time.perf_counter() - began
        out.seek(0)
        return seconds, most, out.read()


def benchmark(folder: Path, rows: int, size: int) -> tuple[Table, dict[str, Any]]:
    """Every step in turn, each once."""
    before, after, table = folder / "before.npy", folder / "after.npy", folder / "songs.lance"
    say(f"writing {rows:,} vectors")
    write_matrix(before, rows, size, 1)
    write_matrix(after, rows + NEW, size, 1)
    write_matrix(folder / "queries.npy", QUERIES, size, 2)
    names = [f"/music/artist {row // 100}/album {row // 10}/song {row}.mp3" for row in range(rows + NEW)]
    for path, count in ((before, rows), (after, rows + NEW)):
        path.with_suffix(".txt").write_text("\n".join(names[:count]) + "\n")
    push_before: list[str | Path] = ["push", before, "--paths", before.with_suffix(".txt"), "--to", table, "--json"]
    push_after: list[str | Path] = ["push", after, "--paths", after.with_suffix(".txt"), "--to", table, "--json"]
    search: list[str | Path] = ["search", folder / "queries.npy", "-k", "10", "--format", "jsonl", "--in"]
    steps: dict[str, list[str | Path]] = {
        "push": push_before,
        "push again": push_before,
        f"push with {NEW:,} new songs": push_after,
        f"{QUERIES} queries, the matrix": [*search, after],
        f"{QUERIES} queries, the table": [*search, table],
    }
    shown = Table(f"{rows:,} x {size} float32, {before.stat().st_size / MB:,.0f} MB", ["what", "s", "x copy", "MB"])
    data: dict[str, Any] = {}
    for name, command in steps.items():
        say(name)
        began = time.perf_counter()
        shutil.copyfile(before, folder / "copy.npy")
        copied = time.perf_counter() - began
        (folder / "copy.npy").unlink()
        seconds, most, printed = run(*command)
        shown.add(name, f"{seconds:.1f}", f"{seconds / copied:.1f}", f"{most:.0f}")
        data[name] = {"seconds": seconds, "copy_seconds": copied, "memory_mb": most}
        if command[0] == "push":
            data[name]["counts"] = json.loads(printed)
    return shown, data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--folder")
    arguments = parser.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        table, data = benchmark(Path(folder), arguments.rows, arguments.size)
        on_disk = sum(file.stat().st_size for file in (Path(folder) / "songs.lance").rglob("*") if file.is_file())
    remark = f"The table takes {on_disk / MB:,.0f} MB on the disk."
    report("push", "A table of songs", "push", about, [table, remark], {"steps": data, "table_mb": on_disk / MB})


if __name__ == "__main__":
    main()
