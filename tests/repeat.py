"""Run the tests again and again, some of it on a busy machine, and show that they end the same each time.

    python -m tests.repeat 10 --busy 2              # the whole suite, the last two times with every core busy otherwise
    python -m tests.repeat 5 tests/cli tests/map    # what comes after the number is pytest's

Prints a Markdown table on standard output, and failures as they come on standard error. Ends with 1 if a run failed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def busy_cores(wanted: bool) -> Iterator[None]:
    """A process for each core that does nothing but keep it busy."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range((os.cpu_count() or 1) * wanted)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def run_once(arguments: list[str], busy: bool) -> tuple[dict[str, int], bool]:
    """One run: how many tests ended how, by pytest's own words, and whether it was green."""
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *arguments]
    with busy_cores(busy):
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    last = done.stdout.strip().rpartition("\n")[2]
    counts = {word.rstrip("s"): int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", last)}
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
    return counts, done.returncode == 0


def main() -> int:
    """Run them, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.repeat", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=int, help="how many times")
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="keep every core busy in the last N of them")
    options, arguments = parser.parse_known_args()
    print("| run | passed | failed | skipped | busy | seconds |\n|---:|---:|---:|---:|---|---:|", flush=True)
    green = True
    for number in range(1, options.runs + 1):
        busy = number > options.runs - options.busy
        began = time.monotonic()
        counts, passed = run_once(arguments, busy)
        failed = counts.get("failed", 0) + counts.get("error", 0)
        columns = [counts.get("passed", 0), failed or ("0" if passed else "?"), counts.get("skipped", 0)]
        row = [number, *columns, "yes" if busy else "no", f"{time.monotonic() - began:.0f}"]
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
        green &= passed
    return 0 if green else 1


if __name__ == "__main__":
    sys.exit(main())
