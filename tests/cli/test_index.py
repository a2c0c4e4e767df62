"""``poolembed index``, and searches in what it made: once more, after new songs, of another model, damaged and old."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from poolembed.search.index import open_index
from tests.cli.conftest import GOOD, Cli

pytest.importorskip("usearch", reason="needs poolembed[index]")


@pytest.mark.parametrize("format", ["npy", "matrix", "parquet", "jsonl"])
def test_what_embed_writes(cli: Cli, songs: Path, format: str) -> None:
    cli("embed", songs, "--format", format)
    done = cli("index")
    assert (done.code, done.out) == (0, b"")
    said = dict(line.split(maxsplit=1) for line in done.err.splitlines())
    assert said["indexed"] == "6 songs, 8 numbers each, of the model toy"
    assert (said["added"], said["removed"], said["recall@10"]) == ("6", "0", "1.000 against exact search")
    assert said["index"] == "music.index"
    assert sorted(path.name for path in Path().iterdir()) == ["embeddings", "music.index"]
    for arguments in (
        [songs / "a.wav"],
        ["sub/a.wav", "-k", "2"],
        [songs / "a.wav", songs / "b.flac", "--mean"],
        [songs / "a.wav", "--filter", "sub/*"],
    ):
        found = cli("search", *arguments, "--in", "music.index", "--format", "paths")
        assert found.code == 0, found.err
        assert found.out == cli("search", *arguments, "--format", "paths").out


def test_every_song_of_it_and_a_pipe(cli: Cli, songs: Path) -> None:
    cli("embed", songs)
    cli("index")
    every = cli("search", "music.index", "--all", "-k", "2", "--format", "jsonl")
    assert [line["query"] for line in every.lines] == [str(songs / name) for name in GOOD]
    for line, exact in zip(every.lines, cli("search", "--all", "-k", "2", "--format", "jsonl").lines, strict=True):
        for found, expected in zip(line["neighbours"], exact["neighbours"], strict=True):
            assert found == {**expected, "cosine": pytest.approx(expected["cosine"], abs=1e-3)}  # float16
    pipe = cli("embed", songs / "sub", "-o", "-").out
    found = cli("search", "-", "--in", "music.index", "-k", "1", "--format", "paths", stdin=pipe)
    assert (found.code, len(found.out.splitlines())) == (0, 2)


def test_again_after_new_songs(cli: Cli, songs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "library"
    shutil.copytree(songs, folder, ignore=shutil.ignore_patterns("sub"))
    cli("embed", folder)
    assert cli("index", "--json").json["added"] == 4
    again = cli("index", "--json").json
    assert (again["songs"], again["added"], again["removed"]) == (4, 0, 0)
    assert again["output"] == "music.index"
    shutil.copytree(songs / "sub", folder / "sub")
    cli("embed", folder)
    old = cli("search", folder / "a.wav", "--in", "music.index")
    assert (old.code, old.out) == (1, b"")
    assert "music.index is older than " in old.err
    assert "poolembed index " in old.err
    assert cli("index", "--json").json["added"] == 2
    assert len(cli("search", folder / "a.wav", "--in", "music.index", "--format", "paths").out.splitlines()) == 5


def test_vectors_of_other_systems(cli: Cli) -> None:
    vectors = np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32)
    np.save("x.npy", vectors)
    Path("names.txt").write_text("".join(f"{row}.mp3\n" for row in range(30)))
    done = cli("index", "x.npy", "--paths", "names.txt", "-o", "x.index")
    assert done.code == 0
    assert "30 songs, 5 numbers each, of an unknown model" in done.err
    np.save("query.npy", vectors[7])
    found = cli("search", "query.npy", "--in", "x.index", "-k", "1", "--format", "paths")
    assert found.out == b"7.mp3\n"
    cli("index", "x.npy", "-o", "numbers.index")
    assert open_index("numbers.index").collection.keys[7] == "7"
    for option in (["--paths", "names.txt"], ["--dim", "3"]):
        refused = cli("search", "query.npy", "--in", "x.index", *option)
        assert (refused.code, refused.out) == (2, b"")
        assert f"{option[0]} does not go with x.index" in refused.err


def test_another_model_or_dimension(cli: Cli, songs: Path) -> None:
    cli("embed", songs)
    cli("index")
    before = Path("music.index").read_bytes()
    cli("embed", songs, "-o", "others", "--model", "other")
    np.save("x.npy", np.ones((3, 5)))
    for source, words in (("others", "model other"), ("x.npy", "an unknown model")):
        done = cli("index", source)
        assert (done.code, done.out) == (1, b"")
        assert "model toy" in done.err
        assert words in done.err
        assert "choose another -o" in done.err
    assert Path("music.index").read_bytes() == before
    query = cli("search", "others/a.wav.npy", "--in", "music.index")
    assert query.code in (1, 3)
    assert "other" in query.err


def test_what_cannot_be_indexed(cli: Cli, songs: Path) -> None:
    done = cli("index")
    assert (done.code, done.out) == (1, b"")
    assert "embeddings" in done.err
    cli("embed", songs)
    Path("song.mp3").write_bytes(b"music")
    done = cli("index", "-o", "song.mp3")
    assert (done.code, Path("song.mp3").read_bytes()) == (1, b"music")
    assert "song.mp3 is there, and is no index" in done.err
    np.save("bad.npy", np.array([[1.0, 2.0], [np.nan, 0.0]]))
    done = cli("index", "bad.npy", "-o", "bad.index")
    assert done.code == 1
    assert "NaN" in done.err
    assert not Path("bad.index").exists()


def test_a_damaged_index(cli: Cli, songs: Path) -> None:
    cli("embed", songs)
    cli("index")
    path = Path("music.index")
    path.write_bytes(path.read_bytes()[:-5])
    for arguments in (["search", songs / "a.wav", "--in", "music.index"], ["index"]):
        done = cli(*arguments)
        assert (done.code, done.out) == (1, b"")
        assert "music.index is no index, or is damaged" in done.err
        assert "delete it" in done.err


def test_without_usearch(cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("embed", songs)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    done = cli("index")
    assert (done.code, done.out) == (2, b"")
    assert "pip install '.[index]'" in done.err
    assert sorted(path.name for path in Path().iterdir()) == ["embeddings"]
