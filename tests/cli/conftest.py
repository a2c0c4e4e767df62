"""A small directory of audio with everything wrong in it that can be, and two ways to run the command line."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from poolembed.cli import main, stopping
from poolembed.cli.stopping import Stop
from tests.conftest import RATE, noise
from tests.waiting import PATIENCE

GOOD = ["a.wav", "b.flac", "c.ogg", "d.mp3", "sub/a.wav", "sub/deeper/e.aiff"]
BAD = ["broken.mp3", "sub/empty.wav"]


@dataclass(frozen=True)
class Result:
    """What a run of the command came to. Whatever came in, no traceback comes out."""

    code: int
    out: bytes
    err: str

    def __post_init__(self) -> None:
        assert "Traceback" not in self.err, self.err
        assert "Exception ignored" not in self.err, self.err
        assert "Warning" not in self.err, self.err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Result]


@pytest.fixture(scope="session")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to: six songs of five formats in three folders, two broken ones, and what is none of it."""
    root = tmp_path_factory.mktemp("library") / "songs"
    for number, name in enumerate(GOOD):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, noise(2000 + 3000 * number, number), RATE)
    (root / "broken.mp3").write_bytes(b"this is no music" * 20)
    (root / "sub" / "empty.wav").write_bytes(b"")
    shutil.copy(root / "a.wav", root / ".hidden.wav")
    (root / ".git").mkdir()
    shutil.copy(root / "a.wav", root / ".git" / "a.wav")
    (root / "notes.txt").write_text("not audio")
    (root / "cover.jpg").write_bytes(b"\xff\xd8\xff")
    return root


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, save_tiny: Callable[..., Path]) -> Path:
    """``toy``, ``other`` and ``nested``, which is ``toy`` as if trained for its first 2 and 4 numbers."""
    root = tmp_path_factory.mktemp("models")
    save_tiny(root, "toy")
    save_tiny(root, "other", seed=1)
    save_tiny(root, "nested", nested=(2, 4))
    return root


@pytest.fixture
def environment(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory to write to as the working directory, and two toy models beside ``base``."""
    for name in [name for name in os.environ if name.startswith("POOLEMBED_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("POOLEMBED_MODELS", str(models))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def cli(environment: None, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    """Runs ``poolembed`` in this process. ``embed`` takes the toy model unless told otherwise."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> Result:
        command = [os.fspath(argument) for argument in arguments]
        if command[:1] == ["embed"] and not {"-m", "--model", "--help"} & set(command):
            command += ["--model", "toy"]
        monkeypatch.setattr("poolembed.cli.is_any_left", lambda: False)  # or it would end this process
        monkeypatch.setattr(sys, "argv", ["poolembed", *command])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        sys.stdout.flush()
        captured = capfdbinary.readouterr()
        return Result(code, captured.out, captured.err.decode("utf-8", "replace"))

    return run


Send = Callable[[int], None]


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> Send:
    """Sends this process a signal and waits until the command that runs in it, in whichever thread, has heard it."""
    stops: list[Stop] = []

    class Known(Stop):
        def __init__(self) -> None:
            super().__init__()
            stops.append(self)

    def send(number: int) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, number)
        assert stops[-1].wait(PATIENCE)

    monkeypatch.setattr(stopping, "Stop", Known)
    return send


SCRIPT = shutil.which("poolembed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def command(*arguments: str | bytes | Path) -> list[bytes]:
    """The real ``poolembed`` script with arguments."""
    assert SCRIPT is not None, "the poolembed script is not installed beside this Python"
    return [os.fsencode(argument) for argument in (SCRIPT, *arguments)]


@pytest.fixture
def script(environment: None) -> Cli:
    """Runs the real script in a process of its own."""

    def run(*arguments: str | bytes | Path, stdin: bytes = b"", **variables: str) -> Result:
        done = subprocess.run(
            command(*arguments),
            check=False,
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
            env={**os.environ, **variables},
        )
        return Result(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))

    return run


def npys(directory: Path) -> dict[str, NDArray[Any]]:
    """Name -> vector of every ``.npy`` below a directory."""
    return {path.relative_to(directory).as_posix(): np.load(path) for path in sorted(directory.rglob("*.npy"))}


def files(directory: Path) -> dict[str, bytes]:
    """Name -> bytes of every ``.npy`` below a directory."""
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in sorted(directory.rglob("*.npy"))}


def manifest(directory: Path) -> list[dict[str, Any]]:
    """The header and the records."""
    return [json.loads(line) for line in (directory / "manifest.jsonl").read_bytes().splitlines()]
