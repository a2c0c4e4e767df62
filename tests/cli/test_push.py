"""``poolembed push``, and searches in what it made: once more, with new songs, interrupted, and what goes wrong."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolembed.cli import progress
from poolembed.search import push as library
from poolembed.search.lance import open_table
from tests.cli.conftest import GOOD, Cli
from tests.search.tables import content

pytest.importorskip("lance", reason="needs poolembed[lance]")

COUNTS = ("new", "changed", "unchanged", "others", "left")


def counts(cli: Cli, *arguments: str | Path) -> tuple[int, ...]:
    done = cli("push", *arguments, "--json")
    assert done.code == 0, done.err
    return tuple(done.json[name] for name in COUNTS)


@pytest.mark.parametrize("format", ["npy", "matrix", "parquet", "jsonl"])
def test_what_embed_writes(cli: Cli, songs: Path, format: str) -> None:
    cli("embed", songs, "--format", format)
    done = cli("push", "--to", "music.lance")
    assert (done.code, done.out) == (0, b"")
    assert done.err == (
        "new        6 songs, added\nchanged    0 songs, replaced\nunchanged  0 songs\ntable      music.lance\n"
    )
    assert {key: path for path, (key, _) in content("music.lance").items()} == {
        name: str(songs / name) for name in GOOD
    }
    model = open_table("music.lance").model
    assert model is not None
    assert (model.name, model.embedding_size) == ("toy", 8)
    for query in (songs / "a.wav", "sub/a.wav"):
        in_table = cli("search", query, "--in", "music.lance", "--format", "jsonl")
        assert in_table.code == 0
        assert len(in_table.json["neighbours"]) == 5
        assert in_table.json == cli("search", query, "--format", "jsonl").json
    every = cli("search", "music.lance", "--all", "--format", "jsonl", "--filter", "sub/*")
    assert every.lines == cli("search", "--all", "--format", "jsonl", "--filter", "sub/*").lines


def test_again_with_new_and_changed_songs(cli: Cli, songs: Path, tmp_path: Path) -> None:
    library_ = tmp_path / "library"
    shutil.copytree(songs / "sub", library_ / "sub")
    cli("embed", library_)
    assert counts(cli, "--to", "music.lance") == (2, 0, 0, 0, 0)
    assert counts(cli, "--to", "music.lance") == (0, 0, 2, 0, 0)
    shutil.copy(songs / "b.flac", library_ / "b.flac")
    shutil.copy(songs / "c.ogg", library_ / "sub" / "a.wav")
    cli("embed", library_)
    done = cli("push", "embeddings", "--to", "music.lance", "--json")
    assert done.json == {
        "new": 1, "changed": 1, "unchanged": 1, "others": 0, "left": 0,
        "table": "music.lance", "collection": "embeddings",
    }  # fmt: skip
    cli("embed", songs / "a.wav", "-o", "one")
    assert counts(cli, "one", "--to", "music.lance") == (1, 0, 0, 3, 0)
    done = cli("push", "one", "--to", "music.lance")
    assert "others     3 songs, in the table alone, left there\n" in done.err


def test_a_new_song_is_searched_for_in_a_table(cli: Cli, songs: Path, tmp_path: Path) -> None:
    cli("embed", songs / "sub", songs / "c.ogg")
    cli("push", "--to", "music.lance")
    shutil.copy(songs / "c.ogg", tmp_path / "again.ogg")
    done = cli("search", tmp_path / "again.ogg", "--in", "music.lance", "-k", "1", "--format", "paths")
    assert (done.code, done.out.decode()) == (0, f"{songs / 'c.ogg'}\n")


def test_another_model(cli: Cli, songs: Path) -> None:
    cli("embed", songs)
    cli("push", "--to", "music.lance")
    cli("embed", songs, "-o", "others", "--model", "other")
    done = cli("push", "others", "--to", "music.lance")
    assert done.code == 1
    assert "the table music.lance holds vectors of the model toy (" in done.err
    assert "others has those of the model other (" in done.err
    query = cli("search", "others/a.wav.npy", "--in", "music.lance")
    assert query.code == 1
    assert "toy" in query.err
    assert "other" in query.err


def test_bare_vectors(cli: Cli) -> None:
    matrix = np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32)
    np.save("bare.npy", matrix)
    Path("paths.txt").write_text("".join(f"song {row}.mp3\n" for row in range(40)))
    assert cli("push", "bare.npy", "--to", "a.lance").code == 1
    done = cli("push", "bare.npy", "--paths", "paths.txt", "--to", "a.lance")
    assert done.code == 0
    np.save("query.npy", matrix[7])
    found = cli("search", "query.npy", "--in", "a.lance", "-k", "1", "--format", "paths")
    assert found.out == b"song 7.mp3\n"


def test_interrupted(cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("embed", songs)
    batches = library._batches

    def interrupting(*arguments: Any) -> Iterator[Any]:
        os.kill(os.getpid(), signal.SIGINT)
        yield from batches(*arguments)

    monkeypatch.setattr(library, "ADDED", 4)
    with monkeypatch.context() as patch:
        patch.setattr(library, "_batches", interrupting)
        done = cli("push", "--to", "music.lance")
    assert done.code == 130
    assert "finishing the rows in hand; once more to stop at once\n" in done.err
    assert "not reached  2 songs, run the same command again to go on\n" in done.err
    assert counts(cli, "--to", "music.lance") == (2, 0, 4, 0, 0)


def test_long_work_says_how_far_it_is(cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("embed", songs)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    monkeypatch.setattr(library, "ADDED", 3)
    done = cli("push", "--to", "music.lance")
    assert "reading: 0%\nwriting: 0%\nwriting: 50%, about " in done.err


class TestWrong:
    def test_a_name_that_no_table_has(self, cli: Cli) -> None:
        done = cli("push", "--to", "music")
        assert done.code == 2
        assert "--to music.lance" in done.err

    def test_no_name(self, cli: Cli) -> None:
        assert cli("push").code == 2

    def test_no_collection(self, cli: Cli) -> None:
        done = cli("push", "--to", "music.lance")
        assert done.code == 1
        assert "embeddings" in done.err
        assert not Path("music.lance").exists()

    def test_no_table(self, cli: Cli, songs: Path) -> None:
        done = cli("search", songs / "a.wav", "--in", "music.lance")
        assert done.code == 1
        assert "no table music.lance\n  make it: poolembed push" in done.err

    def test_a_store_without_credentials(self, cli: Cli, songs: Path) -> None:
        cli("embed", songs)
        done = cli("push", "--to", "nowhere://bucket/music.lance")
        assert done.code == 1
        assert "cannot use the table nowhere://bucket/music.lance" in done.err
        assert "environment" in done.err

    def test_the_library_is_not_installed(self, cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cli("embed", songs)
        monkeypatch.setitem(sys.modules, "lance", None)
        for arguments in (["push", "--to", "music.lance"], ["search", "a.wav", "--in", "music.lance"]):
            done = cli(*arguments)
            assert done.code == 2
            assert "pip install '.[lance]'" in done.err
