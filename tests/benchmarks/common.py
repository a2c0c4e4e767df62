"""What the benchmarks share: the machine in words, bare threads, and a table that is printed and saved."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

RESULTS = Path(__file__).parent / "results"
CLIPS = Path(__file__).parents[1] / "clips"
POOLEMBED = str(Path(sysconfig.get_path("scripts")) / "poolembed")

T = TypeVar("T")


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """The machine and the software, in words that name nobody's machine."""
    words: dict[str, Any] = {"cores": cores(), "processor": _processor(), "memory": _memory()}
    words["system"] = f"{platform.system()} {platform.machine()}"
    if hasattr(os, "getloadavg"):
        words["load at the start"] = f"{os.getloadavg()[0]:.1f}"
    words["python"] = platform.python_version()
    for package in ("torch", "poolembed"):
        words[package] = importlib.metadata.version(package)
    return words


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = about.get("model name", platform.processor() or "unknown")
    flags = about.get("flags", "").split()
    features = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{name} ({', '.join(features)})" if features else name


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return "unknown"
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def on_bare_threads(threads: int, items: Iterable[T], work: Callable[[T], object]) -> float:
    """Seconds that so many threads take for all items; each takes the next item when it is done with its last."""
    lock, left, errors = threading.Lock(), iter(items), []

    def loop() -> None:
        try:
            while True:
                with lock:
                    item = next(left, None)
                if item is None:
                    return
                work(item)
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    pool = [threading.Thread(target=loop) for _ in range(threads)]
    began = time.perf_counter()
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    seconds = time.perf_counter() - began
    if errors:
        raise errors[0]
    return seconds


@dataclass
class Table:
    """Rows of text under a heading."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        self.rows.append([str(cell) for cell in cells])

    def markdown(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        # The first column is words, the others are numbers.
        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        lines = []
        for first, *others in [self.columns, rule, *self.rows]:
            cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join([f"### {self.title}", "", *lines])


def report(
    name: str,
    heading: str,
    command: str,
    about: dict[str, Any],
    parts: list[Table | str],
    data: dict[str, Any],
    *,
    package: str = "benchmarks",
) -> None:
    """Print tables and remarks, and save them as ``results/<name>.md`` and, with every single value, ``.json``."""
    words = ", ".join(f"{key} {value}" for key, value in about.items())
    blocks = [f"# {heading}", f"Made by `python -m tests.{package}.{command}` on: {words}."]
    blocks += [part if isinstance(part, str) else part.markdown() for part in parts]
    text = "\n\n".join(blocks) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    saved = {"command": command, "machine": about, **data}
    (RESULTS / f"{name}.json").write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    print(text)


def say(text: str) -> None:
    """Tell on standard error how it goes."""
    print(text, file=sys.stderr, flush=True)


def middle(values: Iterable[float]) -> float:
    """Median."""
    return float(median(values))
