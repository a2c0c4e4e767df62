"""Which songs a run embeds and what they are called: collisions, a library that moved, odd names."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolembed.audio.find import FoundFile
from poolembed.embed.manifest import Format, Record, read_manifest
from poolembed.embed.outputs import OutputDirectory, open_output
from poolembed.embed.outputs.directory import _fold
from poolembed.embed.outputs.plan import Names, Plan, make_plan
from poolembed.embed.song import Embedded
from poolembed.identity import ModelIdentity

MODEL = ModelIdentity("base", "f00d", 2)
EMBEDDING = np.array([0.6, 0.8], np.float32)


def open_(directory: Path, format: Format = "npy") -> OutputDirectory:
    return open_output(directory, format=format, dtype="float32", timestamps=None, model=MODEL, overwrite=False)


def put(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (len(text), len(text)))


def find(*libraries: Path) -> list[FoundFile]:
    return [
        FoundFile(str(path), path.relative_to(library).as_posix(), library.name)
        for library in libraries
        for path in sorted(library.rglob("*"))
        if path.is_file()
    ]


def run(directory: Path, found: Sequence[FoundFile], format: Format = "npy") -> Plan:
    with open_(directory, format) as output:
        plan = output.plan(found)
        for index, job in enumerate(plan.todo):
            assert output.write(job, Embedded(index, EMBEDDING, 1.0)) is None
    return plan


def keys(directory: Path) -> dict[str, str]:
    """path -> key"""
    manifest = read_manifest(directory / "manifest.jsonl")
    return {record.path: record.key for record in manifest.records.values()}


def test_suffix_and_directory_keep_songs_apart(tmp_path: Path) -> None:
    for name in ("a/01.mp3", "a/01.flac", "b/01.mp3"):
        put(tmp_path / "lib" / name)
    run(tmp_path / "out", find(tmp_path / "lib"))
    outputs = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.npy")}
    assert outputs == {"a/01.mp3.npy", "a/01.flac.npy", "b/01.mp3.npy"}


@pytest.mark.parametrize("format", ["npy", "matrix"])
def test_equal_keys_get_the_root_and_then_the_whole_path(tmp_path: Path, format: Format) -> None:
    libraries = [tmp_path / "x" / "lib", tmp_path / "y" / "lib", tmp_path / "z" / "lib"]
    for library in libraries:
        put(library / "1.mp3")
    found = find(*libraries)
    run(tmp_path / "out", found, format)
    expected = ["1.mp3", "lib/1.mp3", found[2].path.lstrip("/")]
    assert list(keys(tmp_path / "out").values()) == sorted(expected) if format == "npy" else expected
    assert set(keys(tmp_path / "out").values()) == set(expected)
    # Whatever is given next time, and in whatever order, every song keeps its name.
    for again in (found[::-1], found[1:], found[2:]):
        plan = run(tmp_path / "out", again, format)
        assert (plan.todo, plan.unchanged) == ([], len(again))
    assert set(keys(tmp_path / "out").values()) == set(expected)


def test_equal_keys_in_separate_runs(tmp_path: Path) -> None:
    put(tmp_path / "x" / "1.mp3")
    put(tmp_path / "y" / "1.mp3")
    run(tmp_path / "out", find(tmp_path / "x"))
    run(tmp_path / "out", find(tmp_path / "y"))
    assert keys(tmp_path / "out") == {
        str(tmp_path / "x" / "1.mp3"): "1.mp3",
        str(tmp_path / "y" / "1.mp3"): "y/1.mp3",
    }


def test_a_song_given_twice_is_embedded_once(tmp_path: Path) -> None:
    put(tmp_path / "lib" / "a" / "1.mp3")
    found = [*find(tmp_path / "lib"), FoundFile(str(tmp_path / "lib" / "." / "a" / "1.mp3"), "1.mp3", "")]
    assert [job.key for job in run(tmp_path / "out", found).todo] == ["a/1.mp3"]


def test_the_same_song_by_another_relative_path_is_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "lib" / "a" / "1.mp3")
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "out", find(Path("lib")))
    monkeypatch.chdir(tmp_path / "lib")
    plan = run(tmp_path / "out", find(Path("a")))
    assert (plan.todo, plan.unchanged) == ([], 1)
    assert keys(tmp_path / "out") == {"lib/a/1.mp3": "a/1.mp3"}


def paths_in_data(directory: Path, format: Format) -> list[str]:
    if format == "jsonl":
        return [json.loads(line)["path"] for line in (directory / "embeddings.jsonl").read_text().splitlines()]
    table = pytest.importorskip("pyarrow.parquet").read_table(directory / "embeddings.parquet")
    return list(table["path"].to_pylist())


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("format", ["npy", "matrix", "jsonl", "parquet"])
def test_a_library_that_moved_is_recognised(tmp_path: Path, format: Format, changed: bool) -> None:
    for name in ("1.mp3", "2.mp3"):
        put(tmp_path / "old" / name)
    run(tmp_path / "out", find(tmp_path / "old"), format)
    (tmp_path / "old").rename(tmp_path / "new")
    if changed:
        put(tmp_path / "new" / "2.mp3", "changed")
    plan = run(tmp_path / "out", find(tmp_path / "new"), format)
    assert ([job.key for job in plan.todo], plan.unchanged) == ((["2.mp3"], 1) if changed else ([], 2))
    new = {str(tmp_path / "new" / name): name for name in ("1.mp3", "2.mp3")}
    assert keys(tmp_path / "out") == new
    if format in ("jsonl", "parquet"):
        assert paths_in_data(tmp_path / "out", format) == list(new)


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_move_reaches_the_data_though_the_run_that_noticed_was_killed(tmp_path: Path, format: Format) -> None:
    put(tmp_path / "old" / "1.mp3")
    run(tmp_path / "out", find(tmp_path / "old"), format)
    (tmp_path / "old").rename(tmp_path / "new")
    shutil.copytree(tmp_path / "out", tmp_path / "killed")
    with open_(tmp_path / "killed", format) as output:
        output.plan(find(tmp_path / "new"))
        shutil.rmtree(tmp_path / "out")
        shutil.copytree(tmp_path / "killed", tmp_path / "out")  # as it is without a clean end
    assert run(tmp_path / "out", find(tmp_path / "new"), format).todo == []
    assert paths_in_data(tmp_path / "out", format) == [str(tmp_path / "new" / "1.mp3")]


def test_a_copy_is_not_a_move(tmp_path: Path) -> None:
    put(tmp_path / "old" / "1.mp3")
    run(tmp_path / "out", find(tmp_path / "old"))
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    assert [job.key for job in run(tmp_path / "out", find(tmp_path / "new")).todo] == ["new/1.mp3"]


def test_changed_size_or_time_is_noticed(tmp_path: Path) -> None:
    song = tmp_path / "lib" / "1.mp3"
    put(song)
    run(tmp_path / "out", find(tmp_path / "lib"))
    os.utime(song, ns=(0, song.stat().st_mtime_ns + 1_000))
    assert len(run(tmp_path / "out", find(tmp_path / "lib")).todo) == 1
    mtime = song.stat().st_mtime_ns
    song.write_text("xx")
    os.utime(song, ns=(0, mtime))
    assert len(run(tmp_path / "out", find(tmp_path / "lib")).todo) == 1
    assert run(tmp_path / "out", find(tmp_path / "lib")).todo == []


def test_a_song_that_vanished_is_left_to_the_decoder(tmp_path: Path) -> None:
    with open_(tmp_path / "out") as output:
        (job,) = output.plan([FoundFile(str(tmp_path / "gone.mp3"), "gone.mp3", "")]).todo
        assert (job.size, job.mtime) == (None, None)
        output.fail(job, "no such file")
    assert len(run(tmp_path / "out", [FoundFile(str(tmp_path / "gone.mp3"), "gone.mp3", "")]).todo) == 1


# Names

ODD = [
    b"new\nline.mp3",
    b"invalid \xff\xfe utf-8.mp3",
    unicodedata.normalize("NFC", "é.mp3").encode(),
    unicodedata.normalize("NFD", "é.mp3").encode(),
    b"-dash.mp3",
    b"--overwrite",
    b" space ",
    b"quote\"'\\.mp3",
    b"manifest.jsonl",
    b"embeddings",
    b"embeddings.npy",
    b"/".join([b"long" * 25, b"x" * 200 + b".mp3"]),
]


@pytest.mark.parametrize("format", ["npy", "matrix", "jsonl", "parquet"])
def test_odd_names(tmp_path: Path, format: Format) -> None:
    library = os.fsencode(tmp_path / "lib")
    for name in ODD:
        path = Path(os.fsdecode(library + b"/" + name))
        try:
            put(path)
        except OSError:
            pytest.skip("this file system does not take every name")
    found = find(tmp_path / "lib")
    assert len(found) == len(ODD)
    run(tmp_path / "out", found, format)
    plan = run(tmp_path / "out", found, format)
    assert (plan.todo, plan.unchanged) == ([], len(found))
    manifest = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert {record.path for record in manifest.records.values()} == {file.path for file in found}
    if format == "npy":
        for record in manifest.records.values():
            assert record.output is not None
            np.testing.assert_array_equal(np.load(tmp_path / "out" / record.output), EMBEDDING)
    if format == "parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "out" / "embeddings.parquet")
        assert any("\\xff" in path for path in table["path"].to_pylist())


def test_a_name_too_long_for_the_suffix_fails_alone(tmp_path: Path) -> None:
    put(tmp_path / "lib" / ("x" * 252))
    put(tmp_path / "lib" / "y")
    with open_(tmp_path / "out") as output:
        long, short = output.plan(find(tmp_path / "lib")).todo
        reason = output.write(long, Embedded(0, EMBEDDING, 1.0))
        assert output.write(short, Embedded(1, EMBEDDING, 1.0)) is None
        record = output.records[long.key]
    assert reason is not None
    assert "too long" in reason
    assert (record.status, record.reason, record.output) == ("failed", reason, None)
    assert (tmp_path / "out" / "y.npy").exists()


def test_something_in_the_way_fails_alone(tmp_path: Path) -> None:
    put(tmp_path / "lib" / "a" / "1")
    put(tmp_path / "lib" / "b")
    put(tmp_path / "lib" / "c")
    put(tmp_path / "out" / "a")
    (tmp_path / "out" / "b.npy").mkdir()
    with open_(tmp_path / "out") as output:
        jobs = output.plan(find(tmp_path / "lib")).todo
        reasons = [output.write(job, Embedded(0, EMBEDDING, 1.0)) for job in jobs]
    assert [reason is None for reason in reasons] == [False, False, True]
    assert (tmp_path / "out" / "a").read_text() == "x"


def test_no_file_where_another_song_needs_a_directory(tmp_path: Path) -> None:
    for name in ("x.mp3", "x.mp3.npy/y.mp3", ".poolembed/1.mp3", "manifest.jsonl/1.mp3"):
        put(tmp_path / "lib" / name)
    found = find(tmp_path / "lib")
    for order, directory in ((found, "out"), (found[::-1], "out2")):
        run(tmp_path / directory, order)
        outputs = [tmp_path / directory / f"{key}.npy" for key in keys(tmp_path / directory).values()]
        assert len(outputs) == 4
        assert all(output.is_file() for output in outputs)
        assert set(os.listdir(tmp_path / directory / ".poolembed")) <= {"lock"}  # noqa: PTH208
        assert run(tmp_path / directory, order).todo == []


parts = st.sampled_from(["a", "A", "b", "a.npy", "A.npy", "é", "e\u0301", "..", ".poolembed", "manifest.jsonl"])
paths = st.lists(parts, min_size=1, max_size=3).map("/".join)


@given(
    st.lists(st.tuples(st.sampled_from(["/x", "/y/x", ""]), paths), max_size=8, unique=True),
    st.sampled_from([str, _fold]),
    st.integers(0, 8),
    st.booleans(),
)
def test_names_never_clash(songs: list[tuple[str, str]], fold: Callable[[str], str], split: int, there: bool) -> None:
    found = [FoundFile(f"/n/o/w/here{library}/{path}", path, Path(library).name) for library, path in songs]
    earlier: list[Record] = []
    for batch in (found[:split], found[split:]):
        names = Names(earlier, (".npy",), fold)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os.path, "lexists", lambda _: there)
            plan, moved = make_plan(batch, earlier, names, lambda _: True)
        assert moved == []
        taken = {job.key for job in plan.todo}
        earlier = [record for record in earlier if record.key not in taken]
        earlier += [Record(job.key, job.path, job.abspath, "ok", None, 1, 1.0) for job in plan.todo]
        files = [fold(f"{record.key}.npy") for record in earlier]
        directories = {fold(parent.as_posix()) for file in files for parent in Path(file).parents}
        assert len(set(files)) == len(files)
        assert not directories & {*files, ".poolembed", "manifest.jsonl"}
        assert "embeddings.npy" not in files
        assert all(part not in ("", ".", "..") for record in earlier for part in record.key.split("/"))
