"""The README's Python, run as it is written. `tests/search/test_engines.py` runs what it says of other engines."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import poolembed
from poolembed.embed.run import embed_songs, find_songs
from tests.conftest import noise
from tests.train.runs import write_clips

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def run(mark: str, names: dict[str, Any]) -> None:
    """Run the block of Python below a mark."""
    (code,) = re.findall(rf"<!-- {mark} -->\n```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, f"README, {mark}", "exec"), names)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``poolembed embed tests/clips -o embeddings`` leaves in a checkout."""
    from poolembed.embed.outputs import open_output
    from poolembed.identity import ModelIdentity

    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "tests" / "clips", folder / "tests" / "clips")
    model = poolembed.load("base")
    identity = ModelIdentity(model.name, model.fingerprint, model.embedding_size)
    output = folder / "embeddings"
    with open_output(output, format="npy", dtype="float32", timestamps=None, model=identity, overwrite=False) as sink:
        embed_songs(lambda: model, find_songs([folder / "tests" / "clips"]), sink)
    return folder


def test_the_first_screen(library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    mark = README.index("<!-- first screen -->")
    assert README[:mark].count("\n") + 9 <= 40
    monkeypatch.chdir(library)
    names: dict[str, Any] = {}
    run("first screen", names)
    *hits, last = capsys.readouterr().out.splitlines()
    assert len(hits) == 3
    assert last == "base (12, 512)"


def test_the_library(library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(library)
    clips = library / "tests" / "clips"
    for name in ("song.mp3", "new.mp3", "one.mp3", "two.mp3"):
        shutil.copy(clips / "guitar" / "chord.mp3", name)
    write_clips(library / "clips", labels=2, clips=4)
    names: dict[str, Any] = {
        "waveform": noise(30_000),
        "paths": ["one.mp3", "two.mp3"],
        "vector": np.arange(1, 513, dtype=np.float32),
    }
    for part in ("embed", "search", "models"):
        run(f"library: {part}", names)
    accuracy, song = capsys.readouterr().out.splitlines()
    assert 0 <= float(accuracy) <= 1
    assert song.startswith("song.mp3 [('")
    assert len(names["songs"].search("new.mp3", k=10)) == 10
