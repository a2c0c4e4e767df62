"""The whole suite on every Python at hand, with the newest and with the lowest of every dependency; one table.

    python3 -m tests.matrix                        every row that has no result yet
    python3 -m tests.matrix --row "3.12 lowest"    that row, anew; may be repeated
    python3 -m tests.matrix --row "Debian 13"      Debian's python3.13 and torch, in a folder, by debootstrap (root)
    python3 -m tests.matrix --list                 the rows, and what is left out and why
    python3 -m tests.matrix --table                print the table of what has been run

Each row is a virtual environment of its own in a temporary folder (5 to 7 GB where torch comes with CUDA), in which the
README's test command installs what it installs, or the least that pyproject.toml allows. Results are saved row by row.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.common import RESULTS, Table, say
from tests.matrix.pythons import find
from tests.matrix.rows import DEBIAN, Row, run

SAVED, TABLE = RESULTS / "matrix.json", RESULTS / "matrix.md"
SHOWN = ["torch", "av", "soundfile", "soxr", "numpy", "scikit-learn", "matplotlib", "typer", "rich", "msgspec"]
SHOWN += ["usearch", "pylance", "pyarrow", "pandas", "librosa", "pytest"]


def rows() -> list[Row]:
    """All rows of this machine."""
    found = [
        Row(f"{python.minor} {which}", python.path, which) for python in find()[0] for which in ("newest", "lowest")
    ]
    return [*found, Row(DEBIAN, None, "newest")]


def load() -> dict[str, dict[str, Any]]:
    """The results so far, by the name of the row."""
    return json.loads(SAVED.read_text("utf-8")) if SAVED.exists() else {}


def save(results: dict[str, dict[str, Any]]) -> str:
    """Save the results, and the table, which is returned."""
    results = dict(sorted(results.items()))
    SAVED.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    tests = Table(
        "Tests", ["row", "commit", "Python", "passed", "failed", "skipped", "seconds", "install, s", "installed, MB"]
    )
    packages = Table("Packages", ["row", *SHOWN])
    remarks: list[str] = []
    for name, result in results.items():
        counts = [result[key] for key in ("passed", "failed", "skipped", "seconds", "install seconds", "megabytes")]
        tests.add(name, result["commit"], result["python"], *counts)
        packages.add(name, *(result["versions"].get(package, "-") for package in SHOWN))
        remarks += [f"- {name}: failed: {test}" for test in result["failures"]]
        remarks += [f"- {name}: {count} skipped: {reason}" for reason, count in result["skips"].items()]
        remarks += [f"- {name}: {result['note']}"] if "note" in result else []
    heading = "# Pythons and versions\n\nMade by `python3 -m tests.matrix`, row by row, on Linux x86_64."
    heading += " The lowest rows leave out mypy, for old versions' types lack names that ours refer to."
    missing = [row.name for row in rows() if row.name not in results]
    remarks.append(f"- not run: {', '.join(missing) or 'none of this machine'}")
    text = "\n\n".join([heading, tests.markdown(), packages.markdown(), "\n".join(remarks)]).rstrip() + "\n"
    TABLE.write_text(text, "utf-8")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", metavar="NAME", help="run this row, though it has a result")
    parser.add_argument("--list", action="store_true", help="name the rows and what was left out")
    parser.add_argument("--table", action="store_true", help="print the table of the results at hand")
    parser.add_argument("--folder", type=Path, help="build below this folder and keep it")
    parser.add_argument("tests", nargs="*", help="run these alone, and save nothing")
    chosen = parser.parse_args()
    every, results = {row.name: row for row in rows()}, load()
    if chosen.list:
        for name in every:
            print(name, "(has a result)" if name in results else "")
        for line in find()[1]:
            print("left out:", line)
        return 0
    if chosen.table:
        print(save(results))
        return 0
    unknown = set(chosen.row or []) - every.keys()
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))} on this machine; there are: {', '.join(every)}")
    wanted = chosen.row or [name for name in every if name not in results and name != DEBIAN]
    for name in wanted:
        folder = Path(tempfile.mkdtemp(prefix="matrix-", dir=chosen.folder))
        say(f"{name}: in {folder}")
        try:
            result = run(every[name], folder, chosen.tests)
        finally:
            if chosen.folder is None:
                shutil.rmtree(folder, ignore_errors=True)
        say(f"{name}: {result['passed']} passed, {result['failed']} failed, {result['skipped']} skipped")
        if not chosen.tests:
            results = load() | {name: result}
            save(results)
    if not chosen.tests:
        print(save(results))
    return 1 if any(results[name]["failed"] for name in wanted if name in results) else 0


if __name__ == "__main__":
    sys.exit(main())
