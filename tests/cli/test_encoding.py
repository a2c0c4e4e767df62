"""A collection in UTF-8, and names that are no text at all, in whatever locale."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from tests.cli.conftest import Cli
from tests.conftest import RATE, noise, tiny_heads

pytestmark = pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX")

NAMES = ["\u00f6.wav", "\u65e5\u672c.wav", "\U0001f600.wav", "\udcff.wav", "plain.wav"]
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}  # as ISO-8859-1, which few machines have
LATIN = {"PYTHONIOENCODING": "iso-8859-1"}


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    (tmp_path / "songs").mkdir()
    for number, name in enumerate(NAMES):
        with open(os.fsencode(tmp_path / "songs" / name), "wb") as file:  # noqa: PTH123
            soundfile.write(file, noise(4000, number), RATE, format="WAV")
    return tmp_path / "songs"


def test_every_name_survives_a_locale_that_cannot_say_it(script: Cli, cli: Cli, songs: Path) -> None:
    assert script("embed", songs, "-o", "out", "-m", "toy", "-q", **ASCII).code == 0
    assert {path.name for path in Path("out").rglob("*.npy")} == {f"{name}.npy" for name in NAMES}
    again = cli("embed", songs, "-o", "out", "--json", "-q")
    assert again.json["unchanged"] == len(NAMES)
    paths = script("search", "out", "--all", "-k", "5", "--format", "paths", "-0", **ASCII)
    assert {path.rpartition(b"/")[2] for path in paths.out.split(b"\0")[:-1]} == {os.fsencode(name) for name in NAMES}
    assert script("map", "out", "-o", "map.html", **ASCII).code == 0


def test_an_output_that_cannot_say_it_shows_it_escaped_or_as_bytes(script: Cli, cli: Cli, songs: Path) -> None:
    lines = script("embed", songs, "-o", "-", "-m", "toy", **LATIN).lines
    assert {Path(line["path"]).name for line in lines} == set(NAMES)
    cli("embed", songs, "-o", "out", "-q")
    table = script("search", "out", "--all", "-k", "5", "--format", "csv", **LATIN).out
    rows = list(csv.DictReader(io.StringIO(table.decode("utf-8", "surrogateescape"))))
    assert {row["key"] for row in rows} == set(NAMES)


def test_plain_text_on_such_an_output(
    cli: Cli, songs: Path, tmp_path: Path, save_tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_tiny(tmp_path, "labels", heads=tiny_heads())
    said = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(said, "iso-8859-1"))
    assert cli("predict", songs, "--model", model).code == 0
    sys.stdout.flush()
    assert b"\\u65e5\\u672c.wav\t" in said.getvalue()
    assert b"/\xf6.wav\t" in said.getvalue()
