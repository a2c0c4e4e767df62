"""``poolembed tags``, and ``search --tag``: every format to the letter, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.compass import COMPASS, compass, heard
from tests.search.copies import embedded

SONGS = {"a, b.wav": 10.0, "=c.mp3": 90.0}


@pytest.fixture
def folder(tmp_path: Path, environment: None, save_tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with ``embeddings`` of a song in the East and of one in the North."""
    models = tmp_path / "compass"
    _, fingerprint = compass(models, save_tiny)
    monkeypatch.setenv("POOLEMBED_MODELS", str(models))
    embedded(tmp_path / "work", SONGS, fingerprint=fingerprint).rename(tmp_path / "work" / "embeddings")
    return tmp_path / "work"


def test_lines(cli: Cli, folder: Path) -> None:
    done = cli("tags", "--top", "2")
    songs = folder / "songs"
    assert (done.code, done.err) == (0, "tagging: 0/2 songs\n")
    assert done.out.decode() == (
        f"{songs}/a, b.wav\tcompass\tEast 0.725\tNorth 0.424\n"
        f"{songs}/a, b.wav\thalves\tnorth 0.424\tSouth 0.155\n"
        f"{songs}/=c.mp3\tcompass\tNorth 0.953\tEast 0.269\n"
        f"{songs}/=c.mp3\thalves\tnorth 0.953\tSouth 0.007\n"
    )
    one = cli("tags", "embeddings", "--top", "1", "--label-column", "halves", "--quiet")
    assert one.err == ""
    assert one.out.decode() == f"{songs}/a, b.wav\tnorth 0.424\n{songs}/=c.mp3\tnorth 0.953\n"


def test_csv(cli: Cli, folder: Path) -> None:
    done = cli("tags", "--top", "1", "--format", "csv", "--label-column", "compass")
    first, second, third = done.out.decode().splitlines()
    assert first == "path,key,column,tag,probability"
    assert second.startswith(f'"{folder}/songs/a, b.wav","a, b.wav",compass,East,0.7250')
    assert third.startswith(f"{folder}/songs/=c.mp3,'=c.mp3,compass,North,0.9525")


def test_json(cli: Cli, folder: Path) -> None:
    done = cli("tags", "--json")
    assert [(line["key"], line["path"]) for line in done.lines] == [(key, f"{folder}/songs/{key}") for key in SONGS]
    labels = done.lines[0]["labels"]["compass"]
    assert [each["label"] for each in labels] == list(COMPASS)
    assert [each["probability"] for each in labels] == pytest.approx(
        [float(heard(tag, 10.0)) for tag in COMPASS], abs=1e-6
    )


def test_a_list_of_them(cli: Cli, folder: Path) -> None:
    everything = "compass\tEast\ncompass\tNorth\ncompass\tWest\nhalves\tnorth\nhalves\tSouth\n"
    for arguments in (["embeddings"], ["--model", "m"]):
        assert cli("tags", *arguments, "--list").out.decode() == everything
    assert cli("tags", "--list", "-m", "m", "--json").json == {"compass": [*COMPASS], "halves": ["north", "South"]}
    done = cli("tags", "--list", "-m", "m", "--label-column", "size")
    assert (done.code, done.err) == (
        2,
        "poolembed: the model 'm' has no head 'size'\n  its heads are: compass, halves\n",
    )


def test_search_by_tags(cli: Cli, folder: Path) -> None:
    done = cli("search", "--tag", "north", "--tag", "East", "-k", "1")
    assert done.err == ""
    assert done.out.decode() == "1  north 0.424  East 0.725  a, b.wav\n"
    done = cli("search", "a, b.wav", "--tag", "North", "--format", "csv", "-k1")
    assert done.out.decode().splitlines()[0] == "query,rank,cosine,path,key,title,artist,North"
    assert done.out.decode().splitlines()[1].endswith(f",{folder}/songs/=c.mp3,'=c.mp3,,,0.952574")
    done = cli("search", "--tag", "East", "--json", "-k1")
    (hit,) = done.lines[0]["neighbours"]
    assert (done.lines[0]["query"], hit["key"], hit["cosine"]) == ("East", "a, b.wav", None)
    assert hit["tags"] == pytest.approx({"East": float(heard("East", 10.0))}, abs=1e-6)
    assert cli("search", "--tag", "East", "--format", "paths").out.decode().splitlines()[0].endswith("a, b.wav")


def test_a_tag_that_is_none(cli: Cli, folder: Path) -> None:
    done = cli("search", "--tag", "Eastt")
    assert done.code == 2
    assert done.err == (
        "poolembed: the model m has no tag 'Eastt'\n  the nearest are: East, West; poolembed tags --list shows all\n"
    )


def test_a_model_without(cli: Cli, folder: Path, models: Path) -> None:
    done = cli("tags", "--list", "--model", models / "toy")
    assert done.code == 1
    assert done.err.startswith(f"poolembed: the model '{models / 'toy'}' knows no labels: it has no head\n  train one")
    done = cli("tags", "--model", models / "toy")
    assert done.code == 1
    assert "is another of that name" in done.err
