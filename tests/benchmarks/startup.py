"""How long ``poolembed --help`` takes, beside importing the two libraries that draw it.

python -m tests.benchmarks.startup [--runs 20]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from tests.benchmarks.common import POOLEMBED, Table, machine, middle, report

COMMANDS = {
    "poolembed --help": [POOLEMBED, "--help"],
    'python -c "import typer, rich"': [sys.executable, "-c", "import typer, rich"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    runs: int = parser.parse_args().runs
    about = machine()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for run in range(runs + 2):  # the first two fill the page cache
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if run >= 2:
                seconds[name].append(time.perf_counter() - began)
    table = Table(f"{runs} interleaved runs", ["command", "median ms", "fastest ms", "slowest ms"])
    for name, values in seconds.items():
        table.add(f"`{name}`", *(f"{1000 * value:.0f}" for value in (middle(values), min(values), max(values))))
    ours, theirs = (middle(values) for values in seconds.values())
    ratio = f"Ratio of the medians: **{ours / theirs:.2f}** (wanted: at most 1.5)."
    report("startup", "Start-up", "startup", about, [table, ratio], {"seconds": seconds, "ratio": ours / theirs})


if __name__ == "__main__":
    main()
