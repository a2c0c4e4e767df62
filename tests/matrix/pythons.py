"""Which Pythons are at hand: one a minor version, found by looking, each able to make virtual environments.

    python3 -m tests.matrix.pythons

prints a version and a path a line; what was left out, and why, goes to standard error. Needs nothing but Python.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

_ASK = """
import sys, sysconfig
print(*sys.version_info[:3])
print(sys.implementation.name, bool(sysconfig.get_config_var("Py_GIL_DISABLED")), sys.version_info.releaselevel)
import ensurepip, venv
"""


@dataclass(frozen=True, order=True)
class Python:
    """An interpreter.

    Attributes:
        version: such as ``(3, 12, 1)``.
        path: of its program.
    """

    version: tuple[int, ...]
    path: Path

    @property
    def minor(self) -> str:
        """Such as ``3.12``."""
        return "{}.{}".format(*self.version)


def supported() -> list[str]:
    """The minor versions that the classifiers name."""
    found = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    return sorted(found, key=lambda minor: int(minor.partition(".")[2]))


def find() -> tuple[list[Python], list[str]]:
    """The newest interpreter of each minor version from the oldest supported one on, and what was left out and why."""
    best: dict[str, Python] = {}
    left_out: list[str] = []
    oldest = tuple(map(int, re.findall(r"\d+", PROJECT["requires-python"])))
    seen: set[Path] = set()
    for path in _candidates():
        if (real := path.resolve()) in seen:
            continue
        seen.add(real)
        python = _ask(path, left_out)
        if python is None:
            continue
        if python.version[: len(oldest)] < oldest:
            continue  # machines have many; nobody expects them to be run
        other = best.get(python.minor)
        if other is None or python.version > other.version:
            best[python.minor] = python
    left_out += [f"Python {minor}: none found on this machine" for minor in supported() if minor not in best]
    return sorted(best.values()), [line for line in left_out if not any(line.startswith(f"Python {m}:") for m in best)]


def _candidates() -> Iterator[Path]:
    names = ["python3", *(f"python3.{minor}" for minor in range(11, 30))]
    folders = [Path(folder) for folder in os.get_exec_path()]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    uv = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "uv/python"
    for folder in [*folders, *sorted(pyenv.glob("versions/*/bin")), *sorted(uv.glob("*/bin"))]:
        if folder != pyenv / "shims":  # which answer for the versions that are looked at one by one
            yield from (folder / name for name in names if (folder / name).is_file())


def _ask(path: Path, left_out: list[str]) -> Python | None:
    done = subprocess.run([path, "-I", "-c", _ASK], check=False, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    if len(lines) < 2:
        left_out.append(f"{path}: does not start")
        return None
    version = tuple(map(int, lines[0].split()))
    name = "Python {}.{}".format(*version)
    implementation, is_free_threaded, level = lines[1].split()
    reason = None
    if implementation != "cpython" or is_free_threaded == "True":
        reason = "not tried: not CPython with its lock"
    elif level != "final":
        reason = f"not tried: a {level} release"
    elif done.returncode:
        reason = "cannot make virtual environments (no ensurepip)"
    if reason is not None:
        left_out.append(f"{name}: {path}: {reason}")
        return None
    return Python(version, path)


if __name__ == "__main__":
    pythons, others = find()
    for python in pythons:
        print(".".join(map(str, python.version)), python.path)
    for line in others:
        print("left out:", line, file=sys.stderr)
