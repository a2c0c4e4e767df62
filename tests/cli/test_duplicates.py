"""``poolembed duplicates``: groups on standard output, everything else on standard error, and nothing is deleted."""

from __future__ import annotations

import csv
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from poolembed.search import duplicates as library
from tests.cli.conftest import Cli
from tests.conftest import noise
from tests.encoders import encode
from tests.search.copies import FINGERPRINT, direction, embedded, write

NOTHING_DELETED = "Nothing was deleted, and a model can be wrong: listen before you delete.\n"


@pytest.fixture
def library_of_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five songs: two copies of one, three of another, of a model that the threshold was chosen for."""
    songs = tmp_path / "songs"
    for name, seconds, rate in (("a.wav", 3, 16_000), ("a copy.wav", 2.5, 16_000)):
        write(songs / name, seconds, rate)
    for name, rate in (("b/one.wav", 8000), ("b/two.wav", 44_100), ("b/three.wav", 16_000)):
        write(songs / name, 1, rate)
    monkeypatch.setattr(library, "MEASURED_ON", FINGERPRINT)
    degrees = {
        "a copy.wav": (1, 2.5), "a.wav": (0, 3.0), "b/one.wav": (52, 1), "b/three.wav": (51, 1), "b/two.wav": (50, 1),
    }  # fmt: skip
    return embedded(tmp_path, degrees)


def test_table(cli: Cli, library_of_copies: Path) -> None:
    done = cli("duplicates", library_of_copies, "--threshold", "0.995")
    assert done.code == 0
    assert done.out.decode() == (
        "1. 2 songs, 80 kB to free\n"
        "    keep         3.0 s  pcm_s16le   lossless      16 kHz  1 ch      96 kB  a.wav\n"
        "  0.9998         2.5 s  pcm_s16le   lossless      16 kHz  1 ch      80 kB  a copy.wav\n"
        "\n"
        "2. 3 songs, 48.1 kB to free\n"
        "    keep         1.0 s  pcm_s16le   lossless    44.1 kHz  1 ch    88.2 kB  b/two.wav\n"
        "  0.9998         1.0 s  pcm_s16le   lossless      16 kHz  1 ch      32 kB  b/three.wav\n"
        "  0.9994         1.0 s  pcm_s16le   lossless       8 kHz  1 ch      16 kB  b/one.wav\n"
        "\n"
    )
    assert done.err == (
        "groups of duplicates among 5 songs, by a cosine of at least 0.995 and lengths within 2 s: 2\n"
        f"that the best of each can stand for: 3 songs, 128 kB\n{NOTHING_DELETED}"
    )


def test_json_lines(cli: Cli, tmp_path: Path, library_of_copies: Path) -> None:
    done = cli("duplicates", library_of_copies, "--format", "jsonl")
    assert done.code == 0
    first, second = done.lines
    assert first.keys() == {"freed", "songs"}
    assert first["freed"] == (tmp_path / "songs" / "a copy.wav").stat().st_size
    assert [song["key"] for song in second["songs"]] == ["b/two.wav", "b/three.wav", "b/one.wav"]
    assert first["songs"][1] == {
        "key": "a copy.wav",
        "path": str(tmp_path / "songs" / "a copy.wav"),
        "cosine": round(np.cos(np.radians(1)), 6),
        "duration": 2.5,
        "size": first["freed"],
        "codec": "pcm_s16le",
        "lossless": True,
        "bits": 16,
        "bitrate": None,
        "sample_rate": 16_000,
        "channels": 1,
        "note": None,
        "doubt": None,
    }
    assert done.err.endswith(NOTHING_DELETED)


def test_csv(cli: Cli, library_of_copies: Path) -> None:
    done = cli("duplicates", library_of_copies, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out.decode())))
    assert [(row["group"], row["place"], row["key"]) for row in rows] == [
        ("1", "1", "a.wav"),
        ("1", "2", "a copy.wav"),
        ("2", "1", "b/two.wav"),
        ("2", "2", "b/three.wav"),
        ("2", "3", "b/one.wav"),
    ]
    assert list(rows[0])[2:] == list(cli("duplicates", library_of_copies, "--format", "jsonl").lines[0]["songs"][0])
    assert float(rows[1]["cosine"]) == round(np.cos(np.radians(1)), 6)
    assert float(rows[0]["cosine"]) == 1


@pytest.mark.parametrize(("options", "end"), [([], b"\n"), (["-0"], b"\0"), (["--null"], b"\0")])
def test_paths_of_all_but_the_best(
    cli: Cli, tmp_path: Path, library_of_copies: Path, options: list[str], end: bytes
) -> None:
    done = cli("duplicates", library_of_copies, "--format", "paths", *options)
    names = ["a copy.wav", "b/three.wav", "b/one.wav"]
    assert done.out == b"".join(os.fsencode(tmp_path / "songs" / name) + end for name in names)
    assert NOTHING_DELETED in done.err


def test_nothing_is_deleted_and_what_is_listed_can_be(cli: Cli, tmp_path: Path, library_of_copies: Path) -> None:
    """As xargs -0 rm would; afterwards each recording is there once, and a second run finds no more."""
    everything = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for format in ("table", "jsonl", "csv", "paths"):
        done = cli("duplicates", library_of_copies, "--format", format)
    assert everything == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = cli("duplicates", library_of_copies, "--format", "paths", "-0")
    for path in done.out.split(b"\0")[:-1]:
        Path(os.fsdecode(path)).unlink()
    left = sorted(path.name for path in (tmp_path / "songs").rglob("*") if path.is_file())
    assert left == ["a.wav", "two.wav"]
    done = cli("duplicates", library_of_copies)
    assert (done.code, done.out) == (0, b"")
    assert done.err == (
        "left out, for they are gone or have changed since they were embedded: 3\n"
        f"no duplicates among 5 songs, by a cosine of at least {library.THRESHOLD:g} and lengths within 2 s, "
        "and nearer and of nearer lengths below 10 s\n"
    )


def test_embeddings_is_where_it_looks(cli: Cli, library_of_copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(library_of_copies, "embeddings")
    assert cli("duplicates").out == cli("duplicates", library_of_copies).out != b""


def test_options_reach_the_search(cli: Cli, library_of_copies: Path) -> None:
    assert len(cli("duplicates", library_of_copies, "--format", "csv").out.splitlines()) == 6
    assert len(cli("duplicates", library_of_copies, "--format", "csv", "--threshold", "0.9997").out.splitlines()) == 5
    assert len(cli("duplicates", library_of_copies, "--format", "csv", "--tolerance", "0.4").out.splitlines()) == 4
    done = cli("duplicates", library_of_copies, "--threshold", "-1", "--tolerance", "inf")
    assert b"1. 5 songs" in done.out
    assert "by a cosine of at least -1: 1\n" in done.err
    assert cli("duplicates", library_of_copies, "--threshold", "1", "--format", "csv").out.count(b"\n") == 1


def test_the_model_of_the_threshold(cli: Cli, library_of_copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A threshold that was chosen for another model is told, unless the user chose one."""
    np.save("m.npy", np.eye(2, dtype=np.float32))
    assert "note:" not in cli("duplicates", library_of_copies).err
    monkeypatch.setattr(library, "MEASURED_ON", "0" * 64)
    note = f"note: {library.THRESHOLD:g} was chosen for another model than m; --threshold sets it\n"
    assert note in cli("duplicates", library_of_copies).err
    assert "note:" not in cli("duplicates", library_of_copies, "--threshold", "0.995").err
    err = cli("duplicates", "m.npy").err
    assert "chosen for another model than that of these vectors" in err
    assert "do not say how long the songs are" in err


def test_help_tells_the_tolerance(cli: Cli) -> None:
    text = " ".join(cli("duplicates", "--help").out.decode().split())
    assert f"[default: ({library.TOLERANCE:g}); x>=0]" in text


def test_links_are_told(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "songs" / "a.flac")
    (tmp_path / "songs" / "b.flac").symlink_to(tmp_path / "songs" / "a.flac")
    done = cli("duplicates", embedded(tmp_path, {"a.flac": 0, "b.flac": 0}), "--threshold", "0.9")
    assert (done.code, done.out) == (0, b"")
    assert "left out, for they lead to a file of the same group: 1\n" in done.err


def test_odd_names(cli: Cli, tmp_path: Path) -> None:
    """A line break must not make two paths of one, of which the second is another song's."""
    odd = os.fsdecode(b"\xff\n\x1b[31m.wav")
    write(tmp_path / "songs" / "plain.flac")
    write(tmp_path / "songs" / "odd.wav").rename(tmp_path / "songs" / odd)
    out = embedded(tmp_path, {"plain.flac": 0, odd: 0})
    done = cli("duplicates", out)
    assert len(done.out.splitlines()) == 4
    assert b"\\xff\\n\\x1b[31m.wav" in done.out
    assert cli("duplicates", out, "--format", "jsonl").lines[0]["songs"][1]["key"] == odd
    assert b"\xff\n\x1b[31m.wav" in cli("duplicates", out, "--format", "csv").out
    done = cli("duplicates", out, "--format", "paths", "-0")
    assert done.out == os.fsencode(tmp_path / "songs" / odd) + b"\0"
    done = cli("duplicates", out, "--format", "paths")
    assert (done.code, done.out) == (1, b"")
    assert "-0 ends paths in NUL" in done.err


def test_foreign_vectors(cli: Cli) -> None:
    np.save("m.npy", np.array([direction(degrees) for degrees in (0, 40, 1)], np.float32))
    Path("paths.txt").write_text("x.mp3\ny.mp3\nz.mp3\n")
    done = cli("duplicates", "m.npy", "--paths", "paths.txt", "--format", "paths")
    assert done.out == b""  # nobody knows how good a file is that is not there
    assert "that it may not be as good as, and --format paths leaves out: 1; --format table says why\n" in done.err
    write(Path("x.mp3"), bitrate_mode="CONSTANT", compression_level=0.5)
    write(Path("z.mp3"), bitrate_mode="CONSTANT", compression_level=0.0)
    assert cli("duplicates", "m.npy", "--paths", "paths.txt", "--format", "paths").out == b"x.mp3\n"
    done = cli("duplicates", "m.npy", "--threshold", "0.99")
    assert done.out.decode() == (
        "1. 2 songs, 0 B to free\n"
        "    keep             -          -          -           -     -          -  0\n"
        "  0.9998             -          -          -           -     -          -  2\n"
        "          not for sure: one of the two cannot be looked at\n"
        "\n"
    )
    done = cli("duplicates", "m.npy", "--format", "paths")
    assert (done.code, done.out) == (2, b"")
    assert "--paths FILE" in done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--threshold", "1.01"], "--threshold"),
        (["--threshold", "nan"], "--threshold"),
        (["--threshold", "much"], "--threshold"),
        (["--tolerance", "-1"], "--tolerance"),
        (["--tolerance", "nan"], "--tolerance"),
        (["--format", "m3u"], "--format"),
        (["-0"], "--format paths"),
        (["--format", "csv", "-0"], "--format paths"),
    ],
)
def test_wrong_use(cli: Cli, library_of_copies: Path, options: list[str], words: str) -> None:
    done = cli("duplicates", library_of_copies, *options)
    assert (done.code, done.out) == (2, b"")
    assert words in done.err


@pytest.mark.parametrize("wrong", ["missing", "empty", "nan", "zero", "pickled", "truncated", "damaged manifest"])
def test_bad_vectors(cli: Cli, library_of_copies: Path, wrong: str) -> None:
    source = Path("m.npy")
    vectors = np.ones((3, 4), np.float32)
    if wrong in ("nan", "zero"):
        vectors[1] = np.nan if wrong == "nan" else 0
    np.save(source, vectors[:0] if wrong == "empty" else vectors)
    if wrong == "missing":
        source = Path("nowhere")
    elif wrong == "pickled":
        np.save(source, np.array([{}], object), allow_pickle=True)
    elif wrong == "truncated":
        source.write_bytes(source.read_bytes()[:-8])
    elif wrong == "damaged manifest":
        source = library_of_copies
        (source / "manifest.jsonl").write_text("{}\n")
    done = cli("duplicates", source)
    assert (done.code, done.out) == (1, b"")
    assert str(source) in done.err


def test_the_script(script: Cli, library_of_copies: Path) -> None:
    done = script("duplicates", library_of_copies, "--threshold", "0.995", "--format", "paths")
    assert done.code == 0
    assert len(done.out.splitlines()) == 3


def test_from_files_to_paths(cli: Cli, tmp_path: Path) -> None:
    """Suffixes are chosen so that whoever believes them keeps the wrong ones."""
    samples = np.stack([noise(96_000)] * 2, axis=1)
    songs = tmp_path / "songs"
    encode(songs / "original.mp4", "alac.mp4", samples, 48_000)
    lossy = {"b.wav": "mp3.wav", "c.wav": "mulaw.wav", "d.m4a": "quicktime.m4a"}
    for name, encoder in lossy.items():
        encode(songs / name, encoder, samples, 48_000)
    assert cli("embed", songs, "-o", "out").code == 0
    done = cli("duplicates", "out", "--threshold", "-1", "--format", "paths")
    listed = {os.path.relpath(line, songs) for line in done.out.decode().splitlines()}
    assert listed == lossy.keys()
    done = cli("duplicates", "out", "--threshold", "-1")
    assert "alac   lossless      48 kHz  2 ch" in done.out.decode()
    assert "pcm_mulaw   768 kb/s" in done.out.decode()
    (songs / "original.mp4").unlink()
    done = cli("duplicates", "out", "--threshold", "-1", "--format", "csv")
    assert "that it may not be as good as, and --format paths leaves out: " in done.err
    doubts = [row["doubt"] for row in csv.DictReader(io.StringIO(done.out.decode())) if row["key"] in lossy]
    assert any("do not compare" in doubt for doubt in doubts)


@pytest.mark.parametrize("note", ["silent", "its channels cancel: their mean is silence"])
def test_soundless_songs_are_told(cli: Cli, tmp_path: Path, note: str) -> None:
    for name in ("a.flac", "b.flac"):
        write(tmp_path / "songs" / name)
    out = embedded(tmp_path, {"a.flac": 0, "b.flac": 0}, notes={"a.flac": note, "b.flac": note})
    done = cli("duplicates", out, "--format", "paths")
    assert (done.code, done.out) == (0, b"")
    assert "left out, for they are silent: 2\n" in done.err


def test_doubts_are_in_the_table(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "songs" / "a.flac")
    write(tmp_path / "songs" / "b.flac", channels=2)
    write(tmp_path / "songs" / "c.mp3")
    done = cli("duplicates", embedded(tmp_path, {"a.flac": (0, 9.0), "b.flac": (0, 8.0), "c.mp3": (0, 9.0)}))
    lines = done.out.decode().splitlines()
    assert [line.split()[-1] for line in (lines[1], lines[2], lines[4])] == ["b.flac", "a.flac", "c.mp3"]
    assert lines[3] == lines[5] == "          not for sure: it is 1.0 s longer than the best one"
    assert "that the best of each can stand for: 0 songs, 0 B\n" in done.err
    assert "that it may not be as good as, and --format paths leaves out: 2\n" in done.err
