"""Who made what a model is trained on, as its card has it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from models.recipe import attribution
from models.recipe.corpus import Package, read_corpus
from models.recipe.tables import write_table

Row = dict[str, object]


def package(name: str, **options: object) -> Package:
    return msgspec.convert({"name": name, "licence": f"licence of {name}", "by": f"us of {name}", **options}, Package)


PACKAGES = [
    package("game", music=("*",)),
    package("unused", music=("*",)),
    package("font", soundfonts=("*",), valid=True),
    package("tunes", midi=("*.mid",), music=("*",)),
]


def row(path: str, kind: str, source: str, seconds: float, **more: object) -> Row:
    return {"path": path, "start": 1.0, "end": 1.0 + seconds, "kind": kind, "package": source, "split": "train", **more}


ROWS = [
    row("game/a.ogg", "music", "game", 1800.0, track="game/a"),
    row("copies/game/a.ogg.mp3", "copies", "game", 900.0, track="game/a"),
    row("tunes/b.ogg", "music", "tunes", 36.0, track="tunes/b"),
    row("rendered/notes/font/000.flac", "notes", "font", 36.0),
    row("rendered/pieces/tunes/x-font.flac", "pieces", "font", 360.0, track="tunes/x"),
    row("rendered/pieces/music21/y-font.flac", "pieces", "font", 720.0, track="music21/y"),
    row("rendered/phrases/font-0000.flac", "phrases", "font", 72.0, track="phrases/font-0000"),
]


def cells(lines: list[str]) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in rows[1:]}


def written() -> list[dict[str, str]]:
    columns = ("path", "start", "end", "kind", "package", "split", "track")
    return [{column: str(row.get(column, "")) for column in columns} for row in ROWS]


def test_what_is_used_of_each() -> None:
    lines = list(attribution.table_of(PACKAGES, written(), {"game": "1.2-3"}))
    assert cells(lines) == {
        "game 1.2-3": ["licence of game", "us of game", "copies, music", "2", "0.75"],
        "font": ["licence of font", "us of font", "notes, phrases, pieces; validation only", "4", "0.33"],
        "tunes": ["licence of tunes", "us of tunes", "music, scores", "2", "0.11"],
        attribution.MUSIC21.name: [attribution.MUSIC21.licence, attribution.MUSIC21.by, "scores", "1", "0.20"],
    }
    assert lines[-1].startswith("In all 7 clips, 1.09 hours.")


def test_mixes_are_told() -> None:
    mixed = {**dict.fromkeys(written()[0], ""), "path": "mixes/a.flac", "start": "0", "end": "36", "kind": "mixes"}
    assert "\nIn all 8 clips, 1.10 hours, 1 clips of it mixes of the others." in "\n".join(
        attribution.table_of(PACKAGES, [*written(), mixed], {})
    )


def test_artists() -> None:
    tracks = [
        {"path": "game/a.ogg", "package": "game", "artist": "Ann"},
        {"path": "game/b.ogg", "package": "game", "artist": "a_b <c>"},
        {"path": "game/c.ogg", "package": "game", "artist": "a_b <c>"},
        {"path": "game/d.ogg", "package": "game", "artist": ""},
        {"path": "game/copy.ogg", "package": "game", "artist": "Ann"},
    ]
    used = {f"game/{name}.ogg" for name in "abcd"}
    assert list(attribution.list_of(tracks, used))[2:] == [r"- game: a\_b \<c\> (2), Ann (1)"]


def test_every_package_can_be_told() -> None:
    """A table stays one: a row each, of six cells."""
    packages = read_corpus()
    rows = [{**dict.fromkeys(("path", "track"), ""), "package": each.name, "kind": "music"} for each in packages]
    spans = [{**row, "start": "0", "end": "5.12"} for row in rows]
    told = cells(list(attribution.table_of(packages, spans, {})))
    assert list(told) == [each.name for each in packages]
    assert {len(cells) for cells in told.values()} == {5}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (name, *_) = (each.name for each in read_corpus())
    (tmp_path / name).mkdir()
    (tmp_path / name / "package.json").write_text(json.dumps({"file": f"{name}_1%3a0.0.26-1_all.deb"}))
    write_table(tmp_path / "corpus.csv", [row(f"{name}/a.ogg", "music", name, 5.12)])
    with pytest.raises(SystemExit):
        attribution.main([str(tmp_path)])
    assert "tracks.csv is not there" in capsys.readouterr().err
    (tmp_path / "tracks.csv").write_text(f"path,package,artist\n{name}/a.ogg,{name},Ann\n")
    assert attribution.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"| {name} 1:0.0.26-1 | " in out
    assert out.endswith(f"- {name}: Ann (1)\n")
