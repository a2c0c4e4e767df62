"""The manifest reads back what was written, whatever the names, and refuses what it cannot trust."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolembed.audio.encoding import Encoding
from poolembed.embed.manifest import Header, Record, Settings, read_manifest
from poolembed.errors import OutputError
from poolembed.identity import ModelIdentity

HEADER = Header(ModelIdentity("base", "abc123", 4), Settings("matrix", "float16", 2.5), "2025-01-01T00:00:00+00:00")

# Any bytes, not all of them UTF-8, as Python spells them.
names = st.binary(min_size=1).map(lambda name: name.replace(b"\0", b"0").decode("utf-8", "surrogateescape"))
keys = st.lists(names.map(lambda name: "_" + name.replace("/", ":")), min_size=1, max_size=3).map("/".join)
spans = st.none() | st.tuples(st.integers(0, 10**6), st.integers(0, 1000))
records = st.builds(
    Record,
    key=keys,
    path=names,
    abspath=names,
    status=st.sampled_from(["ok", "failed"]),
    reason=st.none() | names,
    size=st.none() | st.integers(0, 2**50),
    mtime=st.none() | st.floats(-1e10, 1e11),
    duration=st.none() | st.floats(0, 1e6),
    output=st.just("embeddings.npy"),
    row=st.just(0),
    timestamps=spans,
    journal=st.none() | st.integers(0, 10**7),
    codec=st.none() | st.sampled_from(["flac", "mp3"]),
    lossless=st.none() | st.booleans(),
    sample_rate=st.none() | st.integers(1, 10**7),
    channels=st.none() | st.integers(1, 64),
    bits=st.none() | st.integers(1, 64),
    bitrate=st.none() | st.floats(0, 1e5),
)


def made(key: str, row: int | None = 0, **changes: Any) -> Record:
    """One that was embedded."""
    record = Record(key, key, f"/{key}", "ok", None, 1, 1.0, 1.0, "embeddings.npy", row)
    return dataclasses.replace(record, **changes)


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(lines))
    return path


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifest") / "manifest.jsonl"


@given(st.lists(records, max_size=5, unique_by=lambda record: record.key))
def test_round_trip(scratch: Path, songs: list[Record]) -> None:
    songs = [dataclasses.replace(record, row=row) for row, record in enumerate(songs)]
    manifest = read_manifest(write(scratch, HEADER.to_line(), *(song.to_line() for song in songs)))
    assert manifest.header == HEADER
    assert list(manifest.records.values()) == songs
    assert manifest.settled
    assert manifest.end == scratch.stat().st_size


@given(records)
def test_a_record_is_one_line_of_ascii(record: Record) -> None:
    line = record.to_line()
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")


def test_the_contract_of_a_line(scratch: Path) -> None:
    record = Record("a/1.mp3", "songs/a/1.mp3", "/x/songs/a/1.mp3", "ok", None, 10, 1.5, 3.0, "embeddings.npy", 0)
    assert json.loads(record.to_line()) == {
        "path": "songs/a/1.mp3",
        "abspath": "/x/songs/a/1.mp3",
        "status": "ok",
        "reason": None,
        "row": 0,
        "duration": 3.0,
        "size": 10,
        "mtime": 1.5,
        "output": "embeddings.npy",
        "key": "a/1.mp3",
    }
    absolute = Record("1.mp3", "/x/1.mp3", "/x/1.mp3", "failed", "empty", 0, 1.5)
    assert "abspath" not in json.loads(absolute.to_line())
    header = json.loads(HEADER.to_line())
    assert header["poolembed_manifest"] == 1
    assert (header["model"], header["fingerprint"], header["embedding_size"]) == ("base", "abc123", 4)
    assert header["settings"] == {"format": "matrix", "dtype": "float16", "timestamps": 2.5}


MP3: dict[str, Any] = {"codec": "mp3", "lossless": False, "sample_rate": 44_100, "channels": 2, "bitrate": 192.3}


def test_the_encoding_in_a_line(tmp_path: Path) -> None:
    record = made("k", **MP3)
    assert record.encoding == Encoding("mp3", False, 44_100, 2, None, 192.3)
    line = json.loads(record.to_line())
    assert {name: line[name] for name in MP3} == MP3
    old = json.dumps({name: value for name, value in line.items() if name not in MP3}).encode()
    read = read_manifest(write(tmp_path / "m", HEADER.to_line(), old + b"\n")).records["k"]
    assert read.encoding is None


@pytest.mark.parametrize(
    "field",
    [
        {"codec": 3},
        {"lossless": 1},
        {"lossless": "yes"},
        {"sample_rate": "44100"},
        {"sample_rate": True},
        {"channels": 2.5},
        {"bits": [16]},
        {"bitrate": "high"},
        {"bitrate": -1},
        {"bitrate": math.nan},
    ],
    ids=str,
)
def test_an_encoding_of_wrong_types_is_refused(tmp_path: Path, field: dict[str, object]) -> None:
    record = made("k", **MP3)
    line = json.dumps(json.loads(record.to_line()) | field).encode()
    with pytest.raises(OutputError, match="line 2"):
        read_manifest(write(tmp_path / "m", HEADER.to_line(), line + b"\n"))


def test_mtime_keeps_every_bit_of_the_float(tmp_path: Path) -> None:
    song = tmp_path / "song"
    song.touch()
    for nanoseconds in (1_700_000_000_123_456_789, 1, 1_700_000_000_999_999_999):
        os.utime(song, ns=(nanoseconds, nanoseconds))
        mtime = song.stat().st_mtime
        record = made("k", mtime=mtime)
        read = read_manifest(write(tmp_path / "m", HEADER.to_line(), record.to_line())).records["k"]
        assert read.mtime == mtime
        assert read.mtime != math.nextafter(mtime, math.inf)


def test_the_last_line_of_a_song_counts(tmp_path: Path) -> None:
    old = Record("k", "p", "p", "failed", "empty", 1, 1.0)
    new = made("k", path="q", size=2)
    manifest = read_manifest(write(tmp_path / "m", HEADER.to_line(), old.to_line(), new.to_line()))
    assert manifest.records == {"k": new}
    assert not manifest.settled


def test_every_torn_last_line_is_dropped(tmp_path: Path) -> None:
    first = made("a\n")
    last = made("b", 1).to_line()
    whole = HEADER.to_line() + first.to_line()
    for cut in range(len(last)):
        manifest = read_manifest(write(tmp_path / "m", whole, last[:cut]))
        assert list(manifest.records.values()) == [first]
        assert manifest.end == len(whole)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\n",
        b"[]\n",
        b'{"path": "x"}\n',
        b'{"poolembed_manifest": 1}\n',
        HEADER.to_line().replace(b"matrix", b"tsv"),
        HEADER.to_line()[:-1],
        b"\xff\xfe\n",
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, head: bytes) -> None:
    with pytest.raises(OutputError, match=r"manifest\.jsonl") as error:
        read_manifest(write(tmp_path / "manifest.jsonl", head))
    assert "--overwrite" in str(error.value.hint)


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "manifest.jsonl", b'{"poolembed_manifest": 2, "later": true}\n')
    with pytest.raises(OutputError, match="version 2"):
        read_manifest(path)


@pytest.mark.parametrize("line", [b"{}\n", b"\n", b"[1]\n", b'{"path": 1, "key": 2, "status": "ok"}\n', b"\xff\n"])
def test_damage_in_the_middle_is_refused_with_its_line(tmp_path: Path, line: bytes) -> None:
    good = made("k").to_line()
    path = write(tmp_path / "manifest.jsonl", HEADER.to_line(), good, line, good)
    with pytest.raises(OutputError, match="line 3"):
        read_manifest(path)


def test_a_missing_manifest_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot read"):
        read_manifest(tmp_path / "none")


CANNOT_BE: dict[str, tuple[Any, ...]] = {
    "row": ("0", 2.5, -1, True, [0], 10**400),
    "size": ("1", 1.5, -1, True, 2**64),
    "mtime": ("1", True, [1.0], math.nan, math.inf, 10**400),
    "duration": (-1.0, math.nan, math.inf, "1"),
    "timestamps": ([1], [1, 2, 3], [-1, 1], ["a", "b"], 1, {"a": 1}, [1, 10**30]),
    "journal": ("0", -1, 0.5, True),
    "status": ("done", None, 1),
    "reason": (1, [], {}),
    "path": (None, 1, "\ud800"),
    "abspath": (1, "\ud800"),
    "key": (
        "",
        ".",
        "..",
        "/a",
        "a/",
        "a//b",
        "a/./b",
        "a/../../b",
        "a\0b",
        "\ud800",
        1,
        ".poolembed/a",
        ".POOLEMBED/a",
    ),
    "output": ("../embeddings.npy", "/embeddings.npy", "other.npy", 1, None),
}


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in CANNOT_BE.items() for value in values],
    ids=repr,
)
def test_a_field_that_cannot_be_is_refused_with_its_line(tmp_path: Path, field: str, value: Any) -> None:
    good = json.loads(made("k").to_line())
    bad = {**json.loads(made("other", 1).to_line()), field: value}
    lines = [json.dumps(line).encode() + b"\n" for line in (good, bad)]
    path = write(tmp_path / "manifest.jsonl", HEADER.to_line(), *lines)
    with pytest.raises(OutputError, match=r"manifest\.jsonl is damaged in line 3: ") as error:
        read_manifest(path)
    assert "--overwrite" in str(error.value.hint)


@pytest.mark.parametrize("depth", [1000, 100_000])
def test_brackets_without_end_are_refused(tmp_path: Path, depth: int) -> None:
    line = made("k").to_line()[:-2] + b', "more": ' + b"[" * depth
    path = write(tmp_path / "manifest.jsonl", HEADER.to_line(), line + b"]" * depth + b"}\n", line + b"\n")
    with pytest.raises(OutputError, match=r"damaged in line [23]"):
        read_manifest(path)
    path = write(tmp_path / "manifest.jsonl", b"[" * depth + b"\n")
    with pytest.raises(OutputError, match="not a manifest"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("rows", "line", "what"), [((0, 0), 3, "another song's"), ((0, 2), 3, "no row 1"), ((1,), 2, "")]
)
def test_rows_are_0_1_2_once_each(tmp_path: Path, rows: tuple[int, ...], line: int, what: str) -> None:
    songs = [made(f"song{number}", row).to_line() for number, row in enumerate(rows)]
    path = write(tmp_path / "manifest.jsonl", HEADER.to_line(), *songs)
    with pytest.raises(OutputError, match=f"damaged in line {line}: .*{what}"):
        read_manifest(path)


def test_the_output_is_that_of_the_key_where_songs_have_one_each(tmp_path: Path) -> None:
    header = dataclasses.replace(HEADER, settings=Settings("npy", "float32", None))
    good = made("a/b", output="a/b.npy", row=None)
    assert read_manifest(write(tmp_path / "m", header.to_line(), good.to_line())).records == {"a/b": good}
    for wrong in (made("a/b", output="../secret.npy", row=None), made("a/b", output="a/b.npy")):
        with pytest.raises(OutputError, match="line 2"):
            read_manifest(write(tmp_path / "m", header.to_line(), wrong.to_line()))


def test_what_a_later_version_adds_is_passed_over(tmp_path: Path) -> None:
    line = {**json.loads(made("k").to_line()), "colour": "red", "more": [1, {"a": None}]}
    path = write(tmp_path / "m", HEADER.to_line(), json.dumps(line).encode() + b"\n")
    assert read_manifest(path).records == {"k": made("k")}


def test_a_manifest_is_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").mkdir()
    with pytest.raises(OutputError, match="it is a directory"):
        read_manifest(tmp_path / "manifest.jsonl")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OutputError, match="no regular file"):
            read_manifest(tmp_path / "pipe")
