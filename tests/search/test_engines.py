"""What the README says of other engines: its code, run on what ``embed`` writes, finds what exact search finds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from poolembed.search.collection import open_collection
from poolembed.search.exact import ExactSearch
from tests.search.copies import embedded

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("engine", "format", "folder"), [("faiss", "matrix", "matrix"), ("duckdb", "parquet", "table")]
)
def test_the_readme(
    engine: str,
    format: Literal["matrix", "parquet"],
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip(engine)
    if format == "parquet":
        pytest.importorskip("pyarrow")
    song = "Artist/Album/song.mp3"
    degrees = np.random.default_rng(0).permutation(80) * 1.0
    out = embedded(tmp_path, {song: 33.4} | {f"{each:g}.mp3": each for each in degrees.tolist()}, format)
    out.rename(tmp_path / folder)
    (code,) = re.findall(rf"<!-- {engine} -->\n```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"README of {engine}", "exec"), {"__name__": "readme"})
    found = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    collection = open_collection(folder)
    hits = ExactSearch(collection).nearest(collection.unit_rows([0]), 11)
    expected = [collection.keys[row] for row in hits.rows[0]]
    assert expected[0] == song
    assert [key for _, key in found] == expected
    assert [float(cosine) for cosine, _ in found] == pytest.approx(hits.cosines[0].tolist(), abs=1e-4)
