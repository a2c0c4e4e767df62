"""Four formats and a stream: what is in the files, what a second run does, and what a crash leaves behind."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolembed.audio.find import FoundFile
from poolembed.embed.manifest import FloatType, Format, Record, read_manifest
from poolembed.embed.outputs import Job, JsonLinesStream, OutputDirectory, Plan, open_output
from poolembed.embed.outputs import parquet as parquet_module
from poolembed.embed.song import Embedded, Segments
from poolembed.errors import OutputError, UsageError
from poolembed.identity import ModelIdentity

D = 4
MODEL = ModelIdentity("base", "f00d", D)
FORMATS: tuple[Format, ...] = get_args(Format)
DATA = {"matrix": "embeddings.npy", "jsonl": "embeddings.jsonl", "parquet": "embeddings.parquet"}

every_format = pytest.mark.parametrize("format", FORMATS)
with_and_without_timestamps = pytest.mark.parametrize("timestamps", [None, 2.0])


def open_(
    directory: Path,
    format: Format = "npy",
    dtype: FloatType = "float32",
    timestamps: float | None = None,
    model: ModelIdentity = MODEL,
    overwrite: bool = False,
) -> OutputDirectory:
    return open_output(directory, format=format, dtype=dtype, timestamps=timestamps, model=model, overwrite=overwrite)


def put(library: Path, **songs: str) -> list[FoundFile]:
    """Write files whose text says what their embedding is to be; ``__`` in a name is a slash."""
    library.mkdir(exist_ok=True)
    for name, text in songs.items():
        path = library / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        # One second for each version, so that a change always shows and runs can be compared byte by byte.
        os.utime(path, (len(text), len(text)))
    return find(library)


def find(library: Path) -> list[FoundFile]:
    files = sorted(path for path in library.rglob("*") if path.is_file())
    return [FoundFile(str(path), path.relative_to(library).as_posix(), library.name) for path in files]


def vector(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    values = np.random.default_rng(list(text.encode())).normal(size=D)
    return (values / np.linalg.norm(values)).astype(np.float32)


def embed(index: int, text: str) -> Embedded:
    count = len(text) % 4
    segments = np.stack([vector(f"{text} {n}") for n in range(count)]) if count else np.zeros((0, D), np.float32)
    return Embedded(
        index, vector(text), float(len(text)), None, Segments(np.arange(count, dtype=np.float64) * 2, segments)
    )


def process(output: OutputDirectory, jobs: Sequence[Job], done: list[str] | None = None) -> None:
    for index, job in enumerate(jobs):
        text = Path(job.path).read_text()
        if text.startswith("bad"):
            output.fail(job, "cannot be decoded")
        else:
            assert output.write(job, embed(index, text)) is None
        if done is not None:
            done.append(job.key)


def run(directory: Path, found: Sequence[FoundFile], format: Format, timestamps: float | None = None) -> Plan:
    with open_(directory, format, timestamps=timestamps) as output:
        plan = output.plan(found)
        process(output, plan.todo)
    return plan


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file outside the work folder; the time of creation blanked."""
    files = {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and ".poolembed" not in path.parts
    }
    files["manifest.jsonl"] = re.sub(rb'"created": "[^"]*"', b"", files["manifest.jsonl"])
    return files


def records(directory: Path) -> list[Record]:
    return list(read_manifest(directory / "manifest.jsonl").records.values())


def read_rows(directory: Path, format: Format) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """``(path, embedding)`` of every row, the way a user reads it."""
    if format == "npy":
        return [(r.path, np.load(directory / r.output)) for r in records(directory) if r.output]
    if format == "matrix":
        matrix = np.load(directory / "embeddings.npy", mmap_mode="r", allow_pickle=False)
        listed = [r for r in records(directory) if r.row is not None]
        assert [r.row for r in listed] == list(range(len(matrix)))
        return [(r.path, np.array(matrix[r.row])) for r in listed]
    if format == "jsonl":
        lines = [json.loads(line) for line in (directory / "embeddings.jsonl").read_text().splitlines()]
        assert [line["row"] for line in lines] == list(range(len(lines)))
        # The text is the shortest that gives the same number in the float type it was written from.
        dtype = read_manifest(directory / "manifest.jsonl").header.settings.dtype
        return [(line["path"], np.array(line["embedding"]).astype(dtype)) for line in lines]
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(directory / "embeddings.parquet").to_pylist()
    return [(row["path"], np.array(row["embedding"], np.float32)) for row in table]


# What is in the files


@every_format
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_embeddings_come_back_bit_for_bit(tmp_path: Path, format: Format, dtype: FloatType) -> None:
    found = put(tmp_path / "lib", a__1="one", a__2="bad", b__1="three")
    with open_(tmp_path / "out", format, dtype) as output:
        assert output.ordered == (format != "npy")
        process(output, output.plan(found).todo)
    rows = read_rows(tmp_path / "out", format)
    assert [Path(path).read_text() for path, _ in rows] == ["one", "three"]
    for (_, embedding), text in zip(rows, ["one", "three"], strict=True):
        np.testing.assert_array_equal(embedding, vector(text).astype(dtype))
        assert embedding.dtype == (dtype if format != "parquet" else np.float32)
    by_key = {record.key: record for record in records(tmp_path / "out")}
    assert (by_key["a/2"].status, by_key["a/2"].reason, by_key["a/2"].row) == ("failed", "cannot be decoded", None)
    good = by_key["b/1"]
    assert (good.status, good.reason, good.duration, good.size) == ("ok", None, 5.0, 5)
    assert good.row == (None if format == "npy" else 1)
    assert good.output == ("b/1.npy" if format == "npy" else DATA[format])
    assert not list((tmp_path / "out" / ".poolembed").glob("*.part"))


def test_timestamps_of_npy(tmp_path: Path) -> None:
    run(tmp_path / "out", put(tmp_path / "lib", a="123", b="1234"), "npy", 2.0)
    with np.load(tmp_path / "out" / "a.timestamps.npz") as archive:
        np.testing.assert_array_equal(archive["times"], [0.0, 2.0, 4.0])
        np.testing.assert_array_equal(archive["embeddings"], embed(0, "123").segments.embeddings)  # type: ignore[union-attr]
        assert archive["times"].dtype == np.float64
    with np.load(tmp_path / "out" / "b.timestamps.npz") as archive:
        assert archive["embeddings"].shape == (0, D)


def segments_in(directory: Path, format: Format) -> dict[str, tuple[list[float], list[list[float]]]]:
    name = DATA[format]
    if format == "jsonl":
        lines = [json.loads(line) for line in (directory / name).read_text().splitlines()]
        return {
            Path(line["path"]).name: (
                [s["time"] for s in line["timestamps"]],
                np.array([s["embedding"] for s in line["timestamps"]], np.float32).tolist(),
            )
            for line in lines
        }
    if format == "parquet":
        rows = pytest.importorskip("pyarrow.parquet").read_table(directory / name).to_pylist()
        return {row["key"]: (row["times"], row["segments"]) for row in rows}
    vectors = np.load(directory / "timestamps.npy", mmap_mode="r")
    times = np.load(directory / "timestamps_times.npy", mmap_mode="r")
    assert len(vectors) == len(times)
    found = {}
    for record in [record for record in records(directory) if record.row is not None]:
        assert record.timestamps is not None
        span = slice(record.timestamps[0], sum(record.timestamps))
        found[record.key] = (times[span].tolist(), vectors[span].tolist())
    return found


@pytest.mark.parametrize("format", ["matrix", "jsonl", "parquet"])
def test_timestamps_of_shared_files_follow_changes(tmp_path: Path, format: Format) -> None:
    found = put(tmp_path / "lib", a="123", b="1234", c="12345")
    run(tmp_path / "out", found, format, 2.0)
    put(tmp_path / "lib", a="12", b="4321x")  # fewer segments, more segments
    assert [job.key for job in run(tmp_path / "out", found, format, 2.0).todo] == ["a", "b"]
    expected = {}
    for key, text in {"a": "12", "b": "4321x", "c": "12345"}.items():
        segments = embed(0, text).segments
        assert segments is not None
        expected[key] = (segments.times.tolist(), segments.embeddings.tolist())
    assert segments_in(tmp_path / "out", format) == expected


def test_missing_segments_and_wrong_sizes_are_bugs_of_the_caller(tmp_path: Path) -> None:
    found = put(tmp_path / "lib", a="1")
    with open_(tmp_path / "out", "matrix", timestamps=1.0) as output:
        job = output.plan(found).todo[0]
        with pytest.raises(ValueError, match="timestamps"):
            output.write(job, Embedded(0, vector("1"), 1.0))
        with pytest.raises(ValueError, match="size 4"):
            output.write(job, Embedded(0, np.ones(3, np.float32), 1.0))
    assert np.load(tmp_path / "out" / "embeddings.npy").shape == (0, D)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@with_and_without_timestamps
@pytest.mark.parametrize("reader", ["pandas", "polars", "duckdb"])
def test_parquet_opens_elsewhere(tmp_path: Path, reader: str, dtype: FloatType, timestamps: float | None) -> None:
    library = pytest.importorskip(reader)
    found = put(tmp_path / "lib", a="1", b="bad", c="123")
    with open_(tmp_path / "out", "parquet", dtype, timestamps) as output:
        process(output, output.plan(found).todo)
    path = str(tmp_path / "out" / "embeddings.parquet")
    if reader == "pandas":
        rows = library.read_parquet(path).to_dict("records")
    elif reader == "polars":
        rows = library.read_parquet(path).to_dicts()
    else:
        relation = library.sql(f"select * from '{path}'")
        rows = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
    assert [(row["path"], row["key"], row["duration"], row["size"], row["mtime"]) for row in rows] == [
        (found[0].path, "a", 1.0, 1, 1.0),
        (found[2].path, "c", 3.0, 3, 3.0),
    ]
    np.testing.assert_array_equal(np.stack([row["embedding"] for row in rows]), [
        vector("1").astype(dtype), vector("123").astype(dtype)
    ])  # fmt: skip
    assert ("segments" in rows[0]) == (timestamps is not None)
    if timestamps is not None:
        assert list(rows[1]["times"]) == [0.0, 2.0, 4.0]
        assert np.array([list(v) for v in rows[1]["segments"]]).shape == (3, D)


def test_parquet_schema_and_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(parquet_module, "GROUP_ROWS", 4)
    monkeypatch.setattr(parquet_module, "GROUP_VECTORS", 9)
    library = tmp_path / "lib"
    found = put(library, **{f"s{n}": "x" * (n + 1) for n in range(10)})
    run(tmp_path / "parts", found[:3], "parquet", 2.0)
    run(tmp_path / "parts", found[:7], "parquet", 2.0)
    run(tmp_path / "parts", found, "parquet", 2.0)
    run(tmp_path / "whole", found, "parquet", 2.0)
    # Adding a little at a time does not leave a little row group each time.
    assert snapshot(tmp_path / "parts") == snapshot(tmp_path / "whole")
    with pq.ParquetFile(tmp_path / "whole" / "embeddings.parquet") as table:
        groups = [table.metadata.row_group(n).num_rows for n in range(table.num_row_groups)]
        assert sum(groups) == 10
        assert len(groups) > 2
        schema = table.schema_arrow
    assert schema.field("embedding").type == pa.list_(pa.float32(), D)
    assert schema.metadata == {b"poolembed_model": b"base", b"poolembed_fingerprint": b"f00d"}


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"\.\[parquet\]"):
        open_(tmp_path / "out", "parquet")
    assert not (tmp_path / "out").exists()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_the_stream_keeps_every_float(values: list[float]) -> None:
    stream = io.BytesIO()
    vectors = np.array(values, np.float32)
    with JsonLinesStream(stream, dtype="float32", timestamps=True) as output:
        job = Job('"odd\n", "embedding": [1]\udcff', "k", "/k", 1, 1.0)
        output.write(job, Embedded(0, vectors, 2.5, None, Segments(np.array([0.5]), vectors[None])))
    (line,) = stream.getvalue().splitlines()
    song = json.loads(line)
    assert (song["path"], song["duration"]) == (job.path, 2.5)
    np.testing.assert_array_equal(np.array(song["embedding"]).astype(np.float32), vectors)
    assert [stretch["time"] for stretch in song["timestamps"]] == [0.5]
    np.testing.assert_array_equal(np.array(song["timestamps"][0]["embedding"]).astype(np.float32), vectors)


def test_the_stream_plans_everything(tmp_path: Path) -> None:
    found = put(tmp_path / "lib", a="1", b="2")
    output = JsonLinesStream(io.BytesIO(), dtype="float16")
    plan = output.plan(found)
    assert ([job.path for job in plan.todo], plan.unchanged) == ([file.path for file in found], 0)


# Runs after the first


@every_format
@with_and_without_timestamps
def test_the_second_run_does_only_what_is_new(tmp_path: Path, format: Format, timestamps: float | None) -> None:
    library = tmp_path / "lib"
    found = put(library, a="1", b="bad", c="12", d="123")
    assert len(run(tmp_path / "out", found, format, timestamps).todo) == 4
    before = snapshot(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.is_file()}
    plan = run(tmp_path / "out", found, format, timestamps)
    assert ([job.key for job in plan.todo], plan.unchanged) == (["b"], 3)
    assert snapshot(tmp_path / "out") == before
    assert {path: path.stat().st_mtime_ns for path in times} == times

    found = put(library, a="new", b="good", d="bad!", e="1234")
    plan = run(tmp_path / "out", found, format, timestamps)
    assert ([job.key for job in plan.todo], plan.unchanged) == (["a", "b", "d", "e"], 1)
    embeddings = {Path(path).name: row for path, row in read_rows(tmp_path / "out", format)}
    for name, text in {"a": "new", "b": "good", "c": "12", "d": "123", "e": "1234"}.items():
        np.testing.assert_array_equal(embeddings[name], vector(text))
    failed = next(record for record in records(tmp_path / "out") if record.key == "d")
    assert failed.status == "failed"
    assert "earlier version" in str(failed.reason)
    assert failed.output is not None
    assert (failed.row is None) == (format == "npy")


def test_a_removed_output_is_made_again(tmp_path: Path) -> None:
    found = put(tmp_path / "lib", a="1", b="12")
    run(tmp_path / "out", found, "npy", 2.0)
    (tmp_path / "out" / "b.timestamps.npz").unlink()
    assert [job.key for job in run(tmp_path / "out", found, "npy", 2.0).todo] == ["b"]
    assert (tmp_path / "out" / "b.timestamps.npz").exists()


@pytest.mark.parametrize("format", ["matrix", "jsonl", "parquet"])
def test_lost_rows_are_refused(tmp_path: Path, format: Format) -> None:
    found = put(tmp_path / "lib", a="1", b="12")
    run(tmp_path / "out", found, format)
    (tmp_path / "out" / DATA[format]).unlink()
    shutil.rmtree(tmp_path / "out" / ".poolembed")
    with pytest.raises(OutputError, match=r"0 of the 2 rows.*--overwrite"):
        open_(tmp_path / "out", format)


@pytest.mark.parametrize("format", ["matrix", "jsonl", "parquet"])
def test_damaged_data_is_refused(tmp_path: Path, format: Format) -> None:
    run(tmp_path / "out", put(tmp_path / "lib", a="1"), format)
    (tmp_path / "out" / DATA[format]).write_bytes(b"not this" * 40)
    shutil.rmtree(tmp_path / "out" / ".poolembed")
    with pytest.raises(OutputError, match=r"damaged.*--overwrite"):
        open_(tmp_path / "out", format)


def test_songs_that_share_timestamps_are_refused(tmp_path: Path) -> None:
    run(tmp_path / "out", put(tmp_path / "lib", a="1", b="12"), "matrix", 2.0)
    manifest = tmp_path / "out" / "manifest.jsonl"
    manifest.write_text(re.sub(r'"timestamps": \[\d+, \d+\]', '"timestamps": [0, 3]', manifest.read_text()))
    with pytest.raises(OutputError, match="share timestamps"):
        open_(tmp_path / "out", "matrix", timestamps=2.0)


TABLES: list[Format] = ["jsonl", "parquet"]


@pytest.mark.parametrize("format", TABLES)
@pytest.mark.parametrize("damage", ["lost", "cut short"])
def test_a_lost_or_cut_table_is_written_again(tmp_path: Path, format: Format, damage: str) -> None:
    found = put(tmp_path / "lib", a="1", b="12")
    run(tmp_path / "out", found, format, 2.0)
    before = snapshot(tmp_path / "out")
    table = tmp_path / "out" / DATA[format]
    table.unlink() if damage == "lost" else table.write_bytes(table.read_bytes()[:-10])
    assert run(tmp_path / "out", found, format, 2.0).todo == []
    assert snapshot(tmp_path / "out") == before


@pytest.mark.parametrize("format", TABLES)
@pytest.mark.parametrize("name", ["embeddings.npy", "timestamps.npy", "timestamps_times.npy"])
@pytest.mark.parametrize("size", [None, 0, -1])
def test_damaged_rows_are_read_back_from_a_whole_table(
    tmp_path: Path, format: Format, name: str, size: int | None
) -> None:
    found = put(tmp_path / "lib", a="1", b="12")
    run(tmp_path / "out", found, format, 2.0)
    before = snapshot(tmp_path / "out")
    rows = tmp_path / "out" / ".poolembed" / "rows" / name
    rows.unlink() if size is None else rows.write_bytes(rows.read_bytes()[:size])
    assert run(tmp_path / "out", found, format, 2.0).todo == []
    assert snapshot(tmp_path / "out") == before


@pytest.mark.parametrize("format", TABLES)
def test_damaged_rows_of_a_killed_run_are_refused_and_left(tmp_path: Path, format: Format) -> None:
    """The table may have fewer songs than they."""
    run(tmp_path / "out", put(tmp_path / "lib", a="1", b="12"), format)
    rows = tmp_path / "out" / ".poolembed" / "rows"
    (rows / "exported").unlink()
    (rows / "embeddings.npy").write_bytes(damaged := (rows / "embeddings.npy").read_bytes()[:-1])
    with pytest.raises(OutputError, match=r"1 of the 2 rows.*--overwrite"):
        open_(tmp_path / "out", format)
    assert (rows / "embeddings.npy").read_bytes() == damaged


@pytest.mark.parametrize("format", TABLES)
@with_and_without_timestamps
def test_rows_are_read_back_where_there_are_none(tmp_path: Path, format: Format, timestamps: float | None) -> None:
    found = put(tmp_path / "lib", a="1", b="12", c="bad", d="1234")
    for directory in ("out", "copied"):
        run(tmp_path / directory, found, format, timestamps)
    shutil.rmtree(tmp_path / "copied" / ".poolembed")  # as whoever does not copy hidden folders
    found = put(tmp_path / "lib", a="123", e="12")
    for directory in ("out", "copied"):
        run(tmp_path / directory, found, format, timestamps)
    if timestamps is None:  # or the segments of what was embedded again lie elsewhere
        assert snapshot(tmp_path / "copied") == snapshot(tmp_path / "out")
    for directory in ("out", "copied"):
        assert [Path(path).name for path, _ in read_rows(tmp_path / directory, format)] == ["a", "b", "d", "e"]
    for (_, one), (_, other) in zip(*(read_rows(tmp_path / name, format) for name in ("out", "copied")), strict=True):
        np.testing.assert_array_equal(one, other)
    if timestamps is not None:
        assert segments_in(tmp_path / "copied", format) == segments_in(tmp_path / "out", format)


@pytest.mark.parametrize("format", TABLES)
def test_a_table_that_was_put_back_counts_and_not_the_rows_of_another_manifest(tmp_path: Path, format: Format) -> None:
    out = tmp_path / "out"
    run(out, put(tmp_path / "lib", a="1", b="12"), format)
    kept = {name: (out / name).read_bytes() for name in ("manifest.jsonl", DATA[format])}
    run(out, put(tmp_path / "lib", a="123"), format)
    for name, data in kept.items():
        (out / name).write_bytes(data)
    found = put(tmp_path / "lib", a="1", c="x")
    assert [job.key for job in run(out, found, format).todo] == ["c"]
    for (_, row), text in zip(read_rows(out, format), ["1", "12", "x"], strict=True):
        np.testing.assert_array_equal(row, vector(text))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": ModelIdentity("other", "beef", D)}, ["base", "f00d", "other", "beef"]),
        ({"model": ModelIdentity("base", "f00d", D + 1)}, ["embedding size 4 there, 5 asked for"]),
        ({"format": "matrix"}, ["format npy there, matrix asked for"]),
        ({"dtype": "float16"}, ["dtype float32 there, float16 asked for"]),
        ({"timestamps": 1.0}, ["timestamps None there, 1.0 asked for"]),
    ],
)
def test_another_model_or_setting_is_refused(tmp_path: Path, change: dict[str, Any], words: list[str]) -> None:
    found = put(tmp_path / "lib", a="1")
    run(tmp_path / "out", found, "npy")
    before = snapshot(tmp_path / "out")
    with pytest.raises(OutputError) as error:
        open_(tmp_path / "out", **change)
    assert all(word in str(error.value) for word in [*words, "--overwrite", "-o"])
    assert snapshot(tmp_path / "out") == before
    open_(tmp_path / "out", **change, overwrite=True).close()


def test_a_renamed_model_is_the_same_model(tmp_path: Path) -> None:
    run(tmp_path / "out", put(tmp_path / "lib", a="1"), "npy")
    open_(tmp_path / "out", model=ModelIdentity("copy", "f00d", D)).close()


@every_format
@with_and_without_timestamps
def test_overwrite_removes_its_own_and_nothing_else(tmp_path: Path, format: Format, timestamps: float | None) -> None:
    library = tmp_path / "lib"
    found = put(library, a__1="1", b="12")
    run(library, found, format, timestamps)  # beside the songs
    mine = {
        "notes.txt": "mine",
        "a/mine.npy": "mine",
        "a/1.timestamps": "mine",
        ".poolembed/mine": "mine",
        "embeddings.csv": "mine",
    }
    for name, text in mine.items():
        (library / name).write_text(text)
    open_(library, "npy", model=ModelIdentity("new", "new", D), overwrite=True).close()
    left = {p.relative_to(library).as_posix() for p in library.rglob("*") if p.is_file()}
    assert left - {".poolembed/lock", ".poolembed/pid"} == {*mine, "a/1", "b", "manifest.jsonl"}
    assert (library / "a" / "1").read_text() == "1"
    assert all((library / name).read_text() == text for name, text in mine.items())
    assert records(library) == []


def test_overwrite_of_a_song_with_the_longest_name(tmp_path: Path) -> None:
    found = put(tmp_path / "library", **{"x" * 245: "a"})
    run(tmp_path / "out", found, "npy")
    with open_(tmp_path / "out", "npy", overwrite=True) as output:
        assert len(output.plan(found).todo) == 1


def test_overwrite_follows_no_tampered_manifest(tmp_path: Path) -> None:
    run(tmp_path / "out", put(tmp_path / "lib", a="1"), "npy")
    targets = [tmp_path / "victim.npy", tmp_path / "out" / "song.mp3"]
    for target in targets:
        target.touch()
    manifest = tmp_path / "out" / "manifest.jsonl"
    original = manifest.read_text()
    for output in ("../victim.npy", str(targets[0]), "song.mp3"):
        manifest.write_text(original.replace('"a.npy"', json.dumps(output)))
        open_(tmp_path / "out", overwrite=True).close()
        assert all(target.exists() for target in targets)


@pytest.mark.parametrize("format", ["matrix", "jsonl", "parquet"])
def test_data_that_no_manifest_describes_is_refused(tmp_path: Path, format: Format) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / DATA[format]).write_text("mine")
    with pytest.raises(OutputError, match=rf"{DATA[format]}.*--overwrite"):
        open_(tmp_path, format)
    assert (tmp_path / DATA[format]).read_text() == "mine"
    open_(tmp_path, "npy").close()
    (tmp_path / "manifest.jsonl").unlink()
    open_(tmp_path, format, overwrite=True).close()
    assert read_rows(tmp_path, format) == []


def test_a_damaged_manifest_is_refused_and_can_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text("{}\n")
    with pytest.raises(OutputError, match=r"manifest\.jsonl.*--overwrite"):
        open_(tmp_path)
    open_(tmp_path, overwrite=True).close()
    assert records(tmp_path) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_second_of_two_runs_is_told(tmp_path: Path, overwrite: bool) -> None:
    found = put(tmp_path / "lib", a="1")
    with open_(tmp_path / "out") as first:
        process(first, first.plan(found).todo)
        with pytest.raises(OutputError, match=rf"another run \(process {os.getpid()}\).*{tmp_path / 'out'}"):
            open_(tmp_path / "out", overwrite=overwrite)
        assert (tmp_path / "out" / "a.npy").exists()
    open_(tmp_path / "out").close()


# Crashes


class Cut(BaseException):
    """The moment at which the process is killed."""


class Power:
    """Fails the n-th system call that changes a file, leaving a write half done, and every one after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit: int | None) -> None:
        self.calls = 0
        self.limit = limit
        for name in ("write", "replace", "unlink", "ftruncate", "mkdir", "fsync"):
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.limit is not None and self.calls >= self.limit:
                if name == "write" and self.calls == self.limit:
                    real(args[0], args[1][: len(args[1]) // 2])
                raise Cut
            return real(*args, **kwargs)

        return call


def first_phase(library: Path) -> list[FoundFile]:
    return put(library, a="1", b="bad", c="12", d="123")


def second_phase(library: Path) -> list[FoundFile]:
    return put(library, a="one", b="good", c="bad", e__f="1234")


def check_whole(directory: Path, format: Format, done: list[str]) -> None:
    """What a stranger may find after a crash: whole files, and every song that was reported done."""
    if not (directory / "manifest.jsonl").exists():
        assert not done
        return
    listed = {record.key: record for record in records(directory)}
    assert set(done) <= set(listed)
    for path in directory.rglob("*.np[yz]"):
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if path.name == "embeddings.npy" and path.parent == directory:
            assert len(loaded) >= sum(record.row is not None for record in listed.values())
    if format == "jsonl" and (directory / "embeddings.jsonl").exists():
        lines = (directory / "embeddings.jsonl").read_bytes().splitlines(keepends=True)
        # SIGKILL cannot fall inside one small write; here it does, and may cut the last line.
        rows = [json.loads(line)["row"] for line in lines if line.endswith(b"\n")]
        assert rows == list(range(len(rows)))
        assert len(rows) >= len(lines) - 1
    if format == "parquet" and (directory / "embeddings.parquet").exists():
        pytest.importorskip("pyarrow.parquet").read_table(directory / "embeddings.parquet")


def kill_everywhere(out: Path, found: list[FoundFile], format: Format, timestamps: float | None) -> Iterator[int]:
    """Run, killed at the first system call that changes a file, then at the second, …; ends when one survives."""
    original = out.with_name("original")
    if out.exists():
        shutil.copytree(out, original)
    limit = 0
    survived = False
    while not survived:
        limit += 1
        shutil.rmtree(out, ignore_errors=True)
        if original.exists():
            shutil.copytree(original, out)
        done: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            Power(patch, limit)
            try:
                with open_(out, format, timestamps=timestamps) as output:
                    process(output, output.plan(found).todo, done)
                survived = True
            except Cut:
                pass
        check_whole(out, format, done)
        yield limit


@every_format
def test_killed_at_any_step_of_a_first_run(tmp_path: Path, format: Format) -> None:
    library, timestamps = tmp_path / "lib", 2.0
    run(tmp_path / "calm", first_phase(library), format, timestamps)
    run(tmp_path / "calm", second_phase(library), format, timestamps)
    expected = snapshot(tmp_path / "calm")
    steps = 0
    shutil.rmtree(library)
    for _ in kill_everywhere(tmp_path / "out", first_phase(library), format, timestamps):
        steps += 1
        run(tmp_path / "out", find(library), format, timestamps)
        run(tmp_path / "out", second_phase(library), format, timestamps)
        assert snapshot(tmp_path / "out") == expected
        shutil.rmtree(library)
        first_phase(library)
    assert steps > 10


@every_format
def test_killed_at_any_step_of_a_later_run(tmp_path: Path, format: Format) -> None:
    library, timestamps = tmp_path / "lib", None
    run(tmp_path / "out", first_phase(library), format, timestamps)
    shutil.copytree(tmp_path / "out", tmp_path / "calm")
    found = second_phase(library)
    run(tmp_path / "calm", found, format, timestamps)
    expected = snapshot(tmp_path / "calm")
    steps = 0
    for _ in kill_everywhere(tmp_path / "out", found, format, timestamps):
        steps += 1
        run(tmp_path / "out", found, format, timestamps)
        assert snapshot(tmp_path / "out") == expected
    assert steps > 10


@every_format
def test_a_song_killed_half_way_is_not_taken_for_its_old_version(tmp_path: Path, format: Format) -> None:
    library = tmp_path / "lib"
    run(tmp_path / "out", put(library, a="1"), format)
    found = put(library, a="12")
    for _ in kill_everywhere(tmp_path / "out", found, format, None):
        put(library, a="1")  # the old version is back before the next run
        run(tmp_path / "out", found, format)
        np.testing.assert_array_equal(read_rows(tmp_path / "out", format)[0][1], vector("1"))
        put(library, a="12")


@every_format
@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_leaving_by_an_exception_commits(tmp_path: Path, format: Format, stop: type[BaseException]) -> None:
    found = put(tmp_path / "lib", a="1", b="12", c="123")

    def interrupted() -> None:
        with open_(tmp_path / "out", format) as output:
            process(output, output.plan(found).todo[:2])
            raise stop

    with pytest.raises(stop):
        interrupted()
    assert [path for path, _ in read_rows(tmp_path / "out", format)] == [file.path for file in found[:2]]
    assert [job.key for job in run(tmp_path / "out", found, format).todo] == ["c"]


# Disks that fail


@every_format
@pytest.mark.parametrize("call", ["write", "replace"])
def test_a_full_disk_keeps_what_there_is(tmp_path: Path, format: Format, call: str) -> None:
    found = put(tmp_path / "lib", a="1", b="12", c="123")
    real = getattr(os, call)
    full = False

    def failing(*args: Any, **kwargs: Any) -> Any:
        if full:
            if call == "write":
                real(args[0], args[1][:3])  # a little still fits
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **kwargs)

    def fill() -> None:
        nonlocal full
        with open_(tmp_path / "out", format) as output:
            jobs = output.plan(found).todo
            process(output, jobs[:2])
            full = True
            process(output, jobs[2:])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(OutputError, match="make room; the same command again continues") as error:
            fill()
    assert str(tmp_path / "out") in error.value.message
    assert {record.key for record in records(tmp_path / "out")} >= {"a", "b"}
    plan = run(tmp_path / "out", found, format)
    assert [job.key for job in plan.todo] in (["c"], [])
    run(tmp_path / "calm", found, format)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "calm")


@every_format
def test_a_system_that_writes_a_little_at_a_time(
    tmp_path: Path, format: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = put(tmp_path / "lib", a="1", b="bad", c="12")
    run(tmp_path / "calm", found, format, 2.0)
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:7]))
    run(tmp_path / "out", found, format, 2.0)
    monkeypatch.undo()
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "calm")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=re.escape(str(tmp_path / "file"))):
        open_(tmp_path / "file")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(OutputError, match="make it writable"):
        open_(tmp_path / "out")


class TestDirectoriesFromElsewhere:
    """Nothing outside is written, cut or removed, whatever an output directory holds."""

    @pytest.fixture
    def outside(self, tmp_path: Path) -> Path:
        (tmp_path / "outside").mkdir()
        return tmp_path / "outside"

    @every_format
    def test_nothing_is_written_through_a_link(self, tmp_path: Path, outside: Path, format: Format) -> None:
        songs = put(tmp_path / "library", **{"a__one": "1", "b__two": "22"})
        run(tmp_path / "out", songs, format, timestamps=2.0)
        names = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()]
        for name in [*names, Path(".poolembed"), Path("a")]:
            shutil.rmtree(tmp_path / "it", ignore_errors=True)
            shutil.copytree(tmp_path / "out", tmp_path / "it")
            target, link = outside / "it", tmp_path / "it" / name
            if not link.exists():
                continue
            link.rename(target)
            link.symlink_to(target)
            before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
            put(tmp_path / "library", **{"a__one": "111"})
            for overwrite in (False, True):
                with suppress(OutputError), open_(tmp_path / "it", format, timestamps=2.0, overwrite=overwrite) as out:
                    for index, job in enumerate(out.plan(find(tmp_path / "library")).todo):
                        out.write(job, embed(index, Path(job.path).read_text()))
                assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before, name
            put(tmp_path / "library", **{"a__one": "1"})
            shutil.rmtree(target) if target.is_dir() else target.unlink()

    def test_a_song_whose_folder_leads_outside_fails_alone(self, tmp_path: Path, outside: Path) -> None:
        songs = put(tmp_path / "library", **{"a__one": "1", "b__two": "22"})
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "a").symlink_to(outside)
        with open_(tmp_path / "out") as output:
            reasons = [output.write(job, embed(0, "1")) for job in output.plan(songs).todo]
        assert reasons[0] is not None
        assert "leads out of the output directory" in reasons[0]
        assert reasons[1] is None
        assert not list(outside.iterdir())

    def test_the_directory_itself_may_be_a_link(self, tmp_path: Path, outside: Path) -> None:
        (tmp_path / "out").symlink_to(outside)
        run(tmp_path / "out", put(tmp_path / "library", one="1"), "npy")
        assert (outside / "one.npy").is_file()


class TestTidying:
    @every_format
    def test_a_run_killed_before_it_tidied_is_tidied_by_one_with_nothing_to_do(
        self, tmp_path: Path, format: Format
    ) -> None:
        songs = put(tmp_path / "library", a="1", b="22", c="333", d="bad")
        run(tmp_path / "out", songs, format)
        undisturbed = snapshot(tmp_path / "out")
        manifest = tmp_path / "out" / "manifest.jsonl"
        head, *lines = manifest.read_bytes().splitlines(keepends=True)
        for order in (lines[::-1], [lines[-1], *lines[:-1]]):
            manifest.write_bytes(head + b"".join(order))
            assert not [job.key for job in run(tmp_path / "out", songs, format).todo if job.key != "d"]
            assert snapshot(tmp_path / "out") == undisturbed

    def test_what_failed_and_is_gone_is_forgotten(self, tmp_path: Path) -> None:
        (folder := tmp_path / "library" / "folder").mkdir(parents=True)
        songs = put(tmp_path / "library", a="1", bad="bad")
        lost = [FoundFile(str(path), path.name, "") for path in (folder, tmp_path / "gone")]
        with open_(tmp_path / "out") as output:
            for job in output.plan([*songs, *lost]).todo:
                output.write(job, embed(0, "1")) if job.key == "a" else output.fail(job, "cannot be searched")
        assert {r.key for r in records(tmp_path / "out")} == {"a", "bad", "folder", "gone"}
        with open_(tmp_path / "out") as output:
            output.plan([*songs[:1], FoundFile(str(folder), "folder", "")])
        assert {r.key for r in records(tmp_path / "out")} == {"a", "bad", "folder"}  # it is told of once more
        with open_(tmp_path / "out") as output:
            output.plan(songs[:1])
        assert {r.key for r in records(tmp_path / "out")} == {"a", "bad"}  # a file that is there, and still failed
        (tmp_path / "library" / "bad").unlink()
        with open_(tmp_path / "out") as output:
            output.plan(songs[:1])
        assert {r.key for r in records(tmp_path / "out")} == {"a"}

    def test_an_embedding_stays_when_its_song_fails_and_goes(self, tmp_path: Path) -> None:
        songs = put(tmp_path / "library", a="1")
        run(tmp_path / "out", songs, "npy")
        put(tmp_path / "library", a="bad")
        run(tmp_path / "out", songs, "npy")
        (tmp_path / "library" / "a").unlink()
        run(tmp_path / "out", [], "npy")
        assert [r.output for r in records(tmp_path / "out")] == ["a.npy"]


def test_a_damaged_line_is_written_again(tmp_path: Path) -> None:
    songs = put(tmp_path / "library", a="1", b="22")
    run(tmp_path / "out", songs, "jsonl")
    path = tmp_path / "out" / "embeddings.jsonl"
    whole = path.read_bytes()
    first, second = whole.splitlines(keepends=True)
    path.write_bytes(first + b"x" * (len(second) - 1) + b"\n")
    put(tmp_path / "library", a="333")
    run(tmp_path / "out", songs, "jsonl")
    assert path.read_bytes().splitlines(keepends=True)[1] == second
