"""A collection in UTF-8, and names that are no text at all, in whatever locale."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from tests.cli.conftest import Cli
from tests.conftest import RATE, noise, tiny_heads
from tests.waiting import PATIENCE

pytestmark = pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX")

NAMES = ["\u00f6.wav", "\u65e5\u672c.wav", "\U0001f600.wav", "\udcff.wav", "plain.wav"]
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}  # as ISO-8859-1, which few machines have


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    (tmp_path / "songs").mkdir()
    for number, name in enumerate(NAMES):
        with open(os.fsencode(tmp_path / "songs" / name), "wb") as file:  # noqa: PTH123
            soundfile.write(file, noise(4000, number), RATE, format="WAV")
    return tmp_path / "songs"


ONE_AFTER_ANOTHER = """
import sys
from poolembed.cli import main

for line in " ".join(sys.argv[1:]).split(" ; "):
    sys.argv = ["poolembed", *line.split(" ")]
    try:
        main()
    except SystemExit as end:
        if end.code not in (None, 0, 3):
            raise
"""


def test_every_name_survives_a_locale_that_cannot_say_it(cli: Cli, songs: Path) -> None:
    names = [*NAMES, "new\nline.wav"]
    shutil.copy(songs / "plain.wav", songs / names[-1])
    (songs / "broken\udcff.mp3").write_bytes(b"no music")
    out = "out\udcff"
    given = " ".join(str(songs / name) for name in (*names, "broken\udcff.mp3"))
    lines = [
        f"embed {given} -o {out} -m toy",
        f"embed {songs} -o {out} -m toy --json -q",
        f"search {out} --all -k 5 --format paths -0",
    ]
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_ANOTHER, " ; ".join(lines)],
        check=False,
        capture_output=True,
        timeout=PATIENCE,
        env={**os.environ, **ASCII},
    )
    assert done.returncode == 0, done.stderr
    assert b"broken\\xff.mp3: not audio" in done.stderr
    assert b"Traceback" not in done.stderr
    assert {path.name for path in Path(out).rglob("*.npy")} == {f"{name}.npy" for name in names}
    summary, paths = done.stdout.split(b"\n", 1)
    assert json.loads(summary)["unchanged"] == len(names)
    assert {path.rpartition(b"/")[2] for path in paths.split(b"\0")[:-1]} == {os.fsencode(name) for name in names}
    assert cli("embed", songs, "-o", out, "--json", "-q").json["unchanged"] == len(names)


def latin_output(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """What goes to standard output from now on, which is Latin-1."""
    said = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(said, "iso-8859-1"))
    return said


def test_an_output_that_cannot_say_it_shows_it_escaped_or_as_bytes(
    cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = latin_output(monkeypatch)
    assert cli("embed", songs, "-o", "-").code == 0
    assert {Path(json.loads(line)["path"]).name for line in said.getvalue().splitlines()} == set(NAMES)
    cli("embed", songs, "-o", "out", "-q")
    said = latin_output(monkeypatch)
    assert cli("search", "out", "--all", "-k", "5", "--format", "csv").code == 0
    rows = list(csv.DictReader(io.StringIO(said.getvalue().decode("utf-8", "surrogateescape"))))
    assert {row["key"] for row in rows} == set(NAMES)


def test_plain_text_on_such_an_output(
    cli: Cli, songs: Path, tmp_path: Path, save_tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_tiny(tmp_path, "labels", heads=tiny_heads())
    said = latin_output(monkeypatch)
    assert cli("predict", songs, "--model", model).code == 0
    assert b"\\u65e5\\u672c.wav\t" in said.getvalue()
    assert b"/\xf6.wav\t" in said.getvalue()
