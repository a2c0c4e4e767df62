"""One row of the matrix: an environment is built, the tests run in it, and what came of it is counted."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.benchmarks.common import say
from tests.matrix.pythons import ROOT

DEBIAN = "Debian 13"
# In a name space of its own, so that what is mounted is gone with the command.
_INSIDE = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
_DEBIAN_PACKAGES = ("ca-certificates", "git", "python3-pip", "python3-torch", "python3-venv")


@dataclass(frozen=True)
class Row:
    """A Python and how its packages are chosen.

    Attributes:
        name: such as "3.12 lowest".
        python: the interpreter; None for Debian's, in a folder that debootstrap makes.
        which: "newest" or "lowest" of every dependency.
    """

    name: str
    python: Path | None
    which: str


def run(row: Row, folder: Path, tests: list[str]) -> dict[str, Any]:
    """Build a row's environment below an empty folder, run the tests, and tell versions, counts, seconds and size.

    Raises:
        subprocess.CalledProcessError: the environment cannot be built.
    """
    root = folder / "debian" if row.python is None else Path("/")
    home = root / "matrix" if row.python is None else folder
    inside: list[str] = []
    if row.python is None:
        _debian(root)
        inside = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", _INSIDE, str(root)]
    python = [*inside, "/usr/bin/python3"] if row.python is None else [str(row.python)]
    seen = Path("/matrix") if row.python is None else folder  # the folder's name for what runs in there
    copy = _copy(home / "poolembed")
    began = time.monotonic()
    options = ["--system-site-packages"] if row.python is None else []  # Debian's torch, built for the CPU
    _do([*python, "-m", "venv", *options, str(seen / "venv")])
    pip = [*inside, str(seen / "venv/bin/python"), "-m", "pip", "install", "--quiet"]
    constraints: list[str] = []
    if row.which == "lowest":
        (home / "lowest.txt").write_text(_lowest(copy, folder, str(home / "venv/bin/python")), "utf-8")
        constraints = ["--constraint", str(seen / "lowest.txt")]
    _do([*pip, *constraints, "--editable", f"{seen / 'poolembed'}[test]"])
    installed = time.monotonic()
    report = home / "junit.xml"
    if row.which == "lowest":  # whose types lack names that ours refer to
        tests = [*tests, "--deselect", "tests/test_house.py::test_tool_finds_nothing[mypy]"]
    pytest = f"{seen}/venv/bin/python -m pytest -q --junitxml={seen}/junit.xml {shlex.join(tests)}"
    script = f"cd {seen}/poolembed && exec {pytest}"
    subprocess.run([*inside, "sh", "-c", script], check=False, env=_environment(str(seen / "venv/bin")))
    done = time.monotonic()
    listed = _do([*pip[:-2], "list", "--format", "json"], capture=True)
    versions = {each["name"]: each["version"] for each in json.loads(listed)}
    version = _do([*pip[: len(inside) + 1], "-c", "import platform; print(platform.python_version())"], capture=True)
    commit = _do(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture=True)
    return {
        "python": version.strip(),
        "commit": commit.strip(),
        "install seconds": round(installed - began),
        "seconds": round(done - installed),
        "megabytes": _megabytes(home / "venv") + (_megabytes(root / "usr") if row.python is None else 0),
        "versions": versions,
        **_counted(report),
    }


def _environment(first: str) -> dict[str, str]:
    ours = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")}
    return ours | {"PATH": f"{first}:{os.environ.get('PATH', os.defpath)}"}


def _do(command: list[str], *, capture: bool = False) -> str:
    done = subprocess.run(
        command, check=True, text=True, env=_environment("/usr/bin"), stdout=subprocess.PIPE if capture else None
    )
    return done.stdout or ""


def _copy(target: Path) -> Path:
    """A copy of the checkout as it stands, without what git ignores."""
    names = _do(["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture=True)
    for name in names.split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def _lowest(project: Path, folder: Path, python: str) -> str:
    """The lowest version of every dependency that pyproject.toml allows and this Python has a wheel of.

    uv resolves, for pip only knows the newest; pip installs, for uv may not know where this machine keeps its wheels.
    """
    tools = folder / "uv"
    _do([python, "-m", "venv", str(tools)])
    _do([str(tools / "bin/pip"), "install", "--quiet", "uv"])
    command = [str(tools / "bin/uv"), "pip", "compile", str(project / "pyproject.toml"), "--quiet", "--extra", "test"]
    command += ["--resolution", "lowest-direct", "--only-binary", ":all:", "--no-annotate", "--no-header"]
    return _do([*command, "--python", python], capture=True)


def _debian(root: Path) -> None:
    """Debian 13 below a folder, from the mirror that debootstrap knows."""
    if shutil.which("debootstrap") is None:
        raise SystemExit("no debootstrap here: apt-get install debootstrap, as root")
    say("debootstrap of Debian 13 …")
    _do(["debootstrap", "--variant=minbase", "trixie", str(root)], capture=True)
    install = ["apt-get", "install", "--yes", "-qq", "--no-install-recommends", *_DEBIAN_PACKAGES]
    _do(["chroot", str(root), *install], capture=True)
    for name in ("/etc/resolv.conf", "/etc/hosts", *([os.environ["PIP_CERT"]] if "PIP_CERT" in os.environ else [])):
        if Path(name).is_file():
            (root / name[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, root / name[1:])
    (root / "matrix").mkdir()


def _megabytes(folder: Path) -> int:
    sizes = (os.lstat(Path(at) / name).st_size for at, _, names in os.walk(folder) for name in names)
    return round(sum(sizes) / 1e6)


def _counted(report: Path) -> dict[str, Any]:
    """What pytest's JUnit report says: counts, the names of what failed, and why tests were skipped."""
    if not report.exists():
        return {"passed": 0, "failed": 1, "skipped": 0, "failures": ["pytest did not run to its end"], "skips": {}}
    failures: list[str] = []
    skips: Counter[str] = Counter()
    passed = 0
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            failures.append(name)
        elif (skip := case.find("skipped")) is not None:
            skips[skip.get("message") or "no reason given"] += 1
        else:
            passed += 1
    return {
        "passed": passed,
        "failed": len(failures),
        "skipped": sum(skips.values()),
        "failures": failures,
        "skips": dict(skips.most_common()),
    }
