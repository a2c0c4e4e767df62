"""What the harnesses share: a model of a blink, work that is remembered, and zygotes side by side."""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from tests.benchmarks.common import cores, say
from tests.stress.zygote import Zygote, supported

T = TypeVar("T")


def toy(root: Path) -> Path:
    """A bundle of a model of some thousand weights, written once."""
    from poolembed.bundle import save_bundle
    from tests.conftest import tiny_network

    if not (root / "toy").exists():
        save_bundle(root / "part", tiny_network(), name="toy", license="CC0-1.0", card="for tests")
        (root / "part").rename(root / "toy")
    return root / "toy"


def options(what: str, number: int, default: int) -> tuple[argparse.Namespace, Path]:
    """The options that every harness has, and the folder that it works in; SystemExit if this machine cannot."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.stress.{what}")
    parser.add_argument(f"--{what}", type=int, default=default, dest="count", help=f"how many; default {default}")
    parser.add_argument("--seed", type=int, default=number, help="everything follows from it")
    parser.add_argument("--jobs", type=int, default=cores(), help="runs side by side")
    parser.add_argument("--work", type=Path, help="where to work; what is done there already is not done again")
    parser.add_argument("--again", action="store_true", help="forget what is done there already")
    chosen = parser.parse_args()
    if not supported():
        raise SystemExit("this needs Linux, and a kernel that lets a process look at system calls of its children")
    work = chosen.work or Path(tempfile.gettempdir()) / f"poolembed-stress-{what}-{chosen.count}-{chosen.seed}"
    if chosen.again:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    say(f"working in {work}")
    return chosen, work.resolve()


class Remembered:
    """Results by name in a file of JSON Lines, so that a harness that was stopped goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.results: dict[str, Any] = {}
        if path.exists():
            for line in path.read_bytes().splitlines():
                try:
                    name, result = json.loads(line)
                except ValueError:  # cut short when it was stopped
                    continue
                self.results[name] = result

    def put(self, name: str, result: Any) -> None:
        """Remember."""
        self.results[name] = result
        with self._path.open("a") as file:
            file.write(json.dumps([name, result]) + "\n")


def side_by_side(
    items: Iterable[T],
    name: Callable[[T], str],
    work: Callable[[Zygote, Path, T], Any],
    remembered: Remembered,
    root: Path,
    jobs: int,
    *,
    training: bool = True,
) -> None:
    """Do `work` for all items, each with a zygote and an empty folder, and remember what comes of it."""
    todo = [item for item in items if name(item) not in remembered.results]
    if not todo:
        return
    with ExitStack() as close:
        free: queue.SimpleQueue[tuple[Zygote, Path]] = queue.SimpleQueue()
        for number in range(min(jobs, len(todo))):
            free.put((close.enter_context(Zygote(training=training)), root / f"job{number}"))

        def one(item: T) -> Any:
            zygote, folder = free.get()
            try:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                return work(zygote, folder, item)
            finally:
                free.put((zygote, folder))

        pool = close.enter_context(ThreadPoolExecutor(jobs))
        running = {pool.submit(one, item): name(item) for item in todo}
        try:
            for count, done in enumerate(as_completed(running), 1):
                remembered.put(running[done], done.result())
                say(f"{count}/{len(todo)} {running[done]}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def below(root: Path) -> Iterator[tuple[str, bytes | None]]:
    """Every file below a directory with its bytes, and every directory with None, in order."""
    for path, directories, files in os.walk(root):
        for name in directories:
            yield os.path.relpath(os.path.join(path, name), root), None  # noqa: PTH118
        for name in files:
            whole = Path(path) / name
            yield str(whole.relative_to(root)), whole.read_bytes()


def megabytes(size: float) -> str:
    """Bytes in words."""
    return f"{size / 1e6:,.0f} MB"
