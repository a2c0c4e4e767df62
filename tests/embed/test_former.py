"""Directories that commit 3b3aea2 wrote in every format are searched and extended, also where it was killed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolembed.embed.manifest import Format
from poolembed.errors import VectorsError
from poolembed.vectors import read_vectors
from tests.embed.test_outputs import FORMATS, embed, find, put, read_rows, run, segments_in, vector

FORMER = Path(__file__).with_name("former")


def restored(tmp_path: Path, name: str) -> tuple[Path, Path]:
    """The directory, and the library that it is of: it was /music/lib, and has moved since."""
    if name.startswith("parquet"):
        pytest.importorskip("pyarrow")
    odd = "\udcff" if name.startswith(("parquet", "jsonl")) else ""
    put(tmp_path / "lib", a="1", b="bad", c="12", **{f"sub__d{odd}": "123"})
    return Path(shutil.copytree(FORMER / name, tmp_path / "out")), tmp_path / "lib"


def check(out: Path, format: Format, texts: dict[str, str]) -> None:
    rows = read_rows(out, format)
    assert [Path(path).name[0] for path, _ in rows] == list(texts)
    for (_, row), text in zip(rows, texts.values(), strict=True):
        np.testing.assert_array_equal(row, vector(text))
    found = read_vectors(out)
    assert [Path(path).read_text() for path in found.paths] == list(texts.values())
    np.testing.assert_array_equal(found.matrix, [vector(text) for text in texts.values()])
    if format != "npy":
        segments: list[Any] = [embed(0, text).segments for text in texts.values()]
        expected = [(one.times.tolist(), one.embeddings.tolist()) for one in segments]
        there = {Path(key).name[0]: found for key, found in segments_in(out, format).items()}
        assert there == dict(zip(texts, expected, strict=True))


@pytest.mark.parametrize("format", FORMATS)
def test_searched_and_extended(tmp_path: Path, format: Format) -> None:
    out, library = restored(tmp_path, format)
    np.testing.assert_array_equal(read_vectors(out).matrix, [vector(text) for text in ("1", "12", "123")])
    put(library, a="one", z="new")
    plan = run(out, find(library), format, 2.0)
    assert ([job.key for job in plan.todo], plan.unchanged) == (["a", "b", "z"], 2)
    check(out, format, {"a": "one", "c": "12", "d": "123", "z": "new"})
    plan = run(out, find(library), format, 2.0)
    assert ([job.key for job in plan.todo], plan.unchanged) == (["b"], 4)


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_killed_while_it_was_extended(tmp_path: Path, format: Format) -> None:
    out, library = restored(tmp_path, f"{format}-killed")
    with pytest.raises(VectorsError, match="not finished"):
        read_vectors(out)
    put(library, a="one", e="new")
    plan = run(out, find(library), format, 2.0)
    assert [job.key for job in plan.todo] == (["a", "b", "e"] if format == "parquet" else ["a", "b"])
    check(out, format, {"a": "one", "c": "12", "d": "123", "e": "new"})
    assert [path.name for path in (out / ".poolembed").iterdir() if path.is_file()] in ([], ["lock"])
