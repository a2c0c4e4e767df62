"""``poolembed map``: a page on disk, words on standard error, and bad input named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from tests.cli.conftest import Cli
from tests.map.test_page import unpack
from tests.search.copies import embedded, write


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """Four songs that were embedded; one of them is gone since."""
    for name in ("a.wav", "b.wav", "sub/c.wav"):
        write(tmp_path / "songs" / name)
    return embedded(tmp_path, {"a.wav": 0, "b.wav": 10, "sub/c.wav": 90, "sub/gone.wav": 100})


def test_a_map_is_made(cli: Cli, vectors: Path, tmp_path: Path) -> None:
    done = cli("map", vectors, "-o", "out/my map.html")
    assert (done.code, done.out) == (0, b"")
    header, arrays = unpack(Path("out/my map.html").read_text())
    assert header["names"] == ["a.wav", "b.wav", "c.wav", "gone.wav"]
    assert header["made"] == "Model m, 2 numbers a song, laid out by PCA."
    assert [folder["url"] for folder in header["folders"]] == [
        f"{(tmp_path / 'songs').as_uri()}/",
        f"{(tmp_path / 'songs' / 'sub').as_uri()}/",
    ]
    away = np.diff(arrays["places"].reshape(4, 2).astype(float), axis=0)
    assert np.hypot(*away.T).argmax() == 1  # from b to c
    lines = done.err.splitlines()
    assert lines[-3:-1] == [
        f"not there: {tmp_path}/songs/sub/gone.wav",
        "1 of 4 songs are on the map but cannot be played",
    ]
    assert lines[-1].startswith("4 songs by PCA in out/my map.html, ")


def test_defaults(cli: Cli, vectors: Path) -> None:
    vectors.rename("embeddings")
    assert cli("map").code == 0
    assert Path("map.html").is_file()


def test_two_at_once_keep_apart(cli: Cli, vectors: Path) -> None:
    Path(".map.html.part").mkdir()  # as a run that was killed leaves it
    with FileLock(".map.html.part/lock"):
        done = cli("map", vectors)
    assert done.code == 1
    assert "another run is writing map.html" in done.err
    assert not Path("map.html").exists()
    assert cli("map", vectors).code == 0
    assert [path.name for path in Path().iterdir()] == ["map.html"]


def test_what_is_there_stays_unless_asked(cli: Cli, vectors: Path) -> None:
    Path("map.html").write_text("mine")
    done = cli("map", vectors)
    assert done.code == 1
    assert "map.html is there already" in done.err
    assert "--overwrite" in done.err
    assert Path("map.html").read_text() == "mine"
    assert cli("map", vectors, "--overwrite").code == 0
    assert "<canvas" in Path("map.html").read_text()
    assert sorted(path.name for path in Path().iterdir()) == ["map.html"]


def test_a_bare_matrix(cli: Cli, tmp_path: Path) -> None:
    np.save("x.npy", np.eye(4, dtype=np.float32) + 0.1)
    done = cli("map", "x.npy", "-o", "1.html")
    assert done.code == 0, done.err
    assert "no song can be played: rows have no paths; --paths" in done.err
    assert "not there" not in done.err
    header, _ = unpack(Path("1.html").read_text())
    assert header["names"] == ["0", "1", "2", "3"]
    assert [folder["url"] for folder in header["folders"]] == [""]
    write(Path("music/a.wav"))
    Path("paths.txt").write_text("music/a.wav\n/else/b.wav\nmusic/gone.wav\nmusic/gone too.wav\n")
    done = cli("map", "x.npy", "--paths", "paths.txt", "-o", "2.html")
    assert done.code == 0, done.err
    header, arrays = unpack(Path("2.html").read_text())
    urls = [header["folders"][number]["url"] for number in arrays["folder"]]
    assert urls == ["./music/", "file:///else/", "", ""]
    assert "3 of 4 songs are on the map but cannot be played" in done.err


def test_of_many_missing_songs_a_few_are_named(cli: Cli, tmp_path: Path) -> None:
    done = cli("map", embedded(tmp_path, {f"{number}.wav": 10.0 * number for number in range(24)}))
    assert done.code == 0
    assert done.err.count("not there: ") == 21
    assert "not there: 4 more\n24 of 24 songs are on the map but cannot be played\n" in done.err


@pytest.mark.parametrize(
    ("songs", "message"),
    [
        ({}, "no vectors"),
        ({"a": 0, "b": 1}, "a map needs at least 3 songs"),
    ],
)
def test_too_few_songs(cli: Cli, tmp_path: Path, songs: dict[str, float], message: str) -> None:
    done = cli("map", embedded(tmp_path, songs))
    assert done.code == 1
    assert message in done.err
    assert not Path("map.html").exists()


def test_vectors_that_are_none(cli: Cli, tmp_path: Path) -> None:
    matrix = np.ones((5, 4), np.float32)
    matrix[3] = np.nan
    np.save("x.npy", matrix)
    done = cli("map", "x.npy")
    assert done.code == 1
    assert "NaN" in done.err
    assert "row 3" in done.err
    assert not Path("map.html").exists()


def test_a_place_where_nothing_can_be_written(cli: Cli, vectors: Path) -> None:
    Path("file").write_text("")
    done = cli("map", vectors, "-o", "file/map.html")
    assert done.code == 1
    assert "cannot write file/map.html" in done.err
    assert cli("map", vectors, "-o", ".").code == 1


def test_wrong_usage(cli: Cli) -> None:
    assert cli("map", "--nonsense").code == 2
    assert cli("map", "nowhere").code == 1
