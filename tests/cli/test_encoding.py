"""A collection in UTF-8, and names that are no text at all, in whatever locale."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import Cli
from tests.conftest import RATE, noise

pytestmark = pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX")

NAMES = ["\u00f6.wav", "\u65e5\u672c.wav", "\U0001f600.wav", "\udcff.wav", "plain.wav"]
LOCALES = {
    "ASCII": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "an output in ISO-8859-1": {"PYTHONIOENCODING": "iso-8859-1"},
    "ISO-8859-1": {"LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0"},  # as good as C where there is no such locale
}


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    (tmp_path / "songs").mkdir()
    for number, name in enumerate(NAMES):
        with open(os.fsencode(tmp_path / "songs" / name), "wb") as file:  # noqa: PTH123
            soundfile.write(file, noise(4000, number), RATE, format="WAV")
    return tmp_path / "songs"


@pytest.mark.parametrize("locale", LOCALES.values(), ids=LOCALES)
def test_every_name_survives(script: Cli, songs: Path, locale: dict[str, str]) -> None:
    assert script("embed", songs, "-o", "here", "-m", "toy").code == 0
    assert script("embed", songs, "-o", "there", "-m", "toy", **locale).code == 0
    here, there = (sorted(os.fsencode(p.name) for p in Path(out).rglob("*.npy")) for out in ("here", "there"))
    assert here == there
    again = script("embed", songs, "-o", "here", "-m", "toy", "--json", "-q", **locale)
    assert again.json["unchanged"] == len(NAMES)
    for name in here:
        np.testing.assert_array_equal(*(np.load(os.fsencode(out) + b"/" + name) for out in ("here", "there")))

    paths = script("search", "here", "--all", "-k", "5", "--format", "paths", "-0", **locale)
    assert {os.path.basename(path) for path in paths.out.split(b"\0")[:-1]} == {os.fsencode(name) for name in NAMES}  # noqa: PTH119
    lines = script("search", "here", "--all", "-k", "5", "--format", "jsonl", **locale).lines
    assert {each["key"] for line in lines for each in line["neighbours"]} == set(NAMES)
    table = script("search", "here", "--all", "-k", "5", "--format", "csv", **locale).out
    rows = list(csv.DictReader(io.StringIO(table.decode("utf-8", "surrogateescape"))))
    assert {row["key"] for row in rows} == set(NAMES)
    for arguments in (
        ("search", "here", "--all"),
        ("search", "here", "--all", "--format", "m3u"),
        ("search", songs / NAMES[1], "--in", "here", "--format", "m3u"),
        ("duplicates", "here", "--threshold=-1", "--tolerance", "inf"),
        ("duplicates", "here", "--threshold=-1", "--format", "csv"),
        ("map", "here", "-o", "map.html"),
        ("models",),
    ):
        assert script(*arguments, **locale).code == 0, arguments
    as_lines = script("embed", songs, "-o", "-", "-m", "toy", **locale).out
    assert {Path(json.loads(line)["path"]).name for line in as_lines.splitlines()} == set(NAMES)
