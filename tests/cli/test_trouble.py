"""What must not end a run, and what must end it in good order: faults, decoders that hang, lists without an end."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poolembed.audio.source import open_source
from poolembed.cli import reading
from poolembed.embed import crew as crew_module
from poolembed.embed import engine as engine_module
from poolembed.files import reading as file_reading
from tests.cli.conftest import GOOD, Cli, manifest


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, part: str = ".flac") -> None:
    def opened(source: Any, rate: int) -> Any:
        if part in source:
            raise type(error)(*error.args)
        return open_source(source, rate)

    monkeypatch.setattr(engine_module, "open_source", opened)


class TestFaults:
    @pytest.mark.parametrize("form", ["npy", "matrix", "parquet", "jsonl"])
    def test_one_costs_its_song_and_is_on_record(
        self, form: str, cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failing(monkeypatch, ZeroDivisionError("division by zero"))
        done = cli("embed", songs, "--format", form, "--json")
        assert done.code == 3
        assert done.json["embedded"] == len(GOOD) - 1
        reason = "a fault of poolembed: ZeroDivisionError: division by zero"
        assert {"path": str(songs / "b.flac"), "reason": reason} in done.json["failures"]
        assert [record["key"] for record in manifest(Path("embeddings"))[1:] if record["reason"] == reason] == [
            "b.flac"
        ]
        log = Path("embeddings/.poolembed/faults.log")
        assert str(log) in done.err
        assert "Traceback" in log.read_text()
        assert str(songs / "b.flac") in log.read_text()
        monkeypatch.undo()

    def test_the_next_run_tries_again(self, cli: Cli, songs: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            failing(patch, ZeroDivisionError("division by zero"))
            assert cli("embed", songs / "b.flac", songs / "a.wav").code == 3
        done = cli("embed", songs / "b.flac", songs / "a.wav", "--json")
        assert (done.code, done.json["embedded"], done.json["unchanged"]) == (0, 1, 1)

    def test_many_of_one_kind_have_one_traceback(self, cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        failing(monkeypatch, ZeroDivisionError("division by zero"), part="")
        assert cli("embed", songs, "-q").code == 3
        log = Path("embeddings/.poolembed/faults.log").read_text()
        assert log.count("ZeroDivisionError: division by zero") == len(GOOD) + 2 + 1
        assert log.count("Traceback") == 1

    def test_without_a_directory_the_record_is_elsewhere(
        self, cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        failing(monkeypatch, ZeroDivisionError("division by zero"))
        done = cli("embed", songs, "-o", "-")
        assert (done.code, len(done.lines)) == (3, len(GOOD) - 1)
        (log,) = tmp_path.glob("poolembed-faults-*.log")
        assert str(log) in done.err
        assert "Traceback" in log.read_text()

    def test_one_outside_of_any_song_has_no_traceback_either(
        self, cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def fail(*arguments: Any) -> None:
            raise ZeroDivisionError("elsewhere")

        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        monkeypatch.setattr("poolembed.embed.run.find_songs", fail)
        done = cli("embed", songs)
        assert done.code == 1
        assert "a fault of poolembed: ZeroDivisionError: elsewhere" in done.err
        assert "Traceback" in next(tmp_path.glob("poolembed-faults-*.log")).read_text()

    def test_no_memory_for_one_song(self, cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        failing(monkeypatch, MemoryError())
        done = cli("embed", songs, "-o", "out")
        assert done.code == 3
        assert "b.flac: not enough memory" in done.err
        assert not Path("out/.poolembed/faults.log").exists()


class Waiting:
    """Waits for an event as a file would for a decoder that hangs."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def __enter__(self) -> Any:
        assert self.released.wait(50)
        raise AssertionError("too late, and dropped")

    def __exit__(self, *error: object) -> None: ...


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiting]:
    """``b.flac`` hangs; time passes only while nothing else is being decoded."""
    song = Waiting()
    ticks = itertools.count()
    now = 0.0

    def clock() -> float:
        nonlocal now
        in_hand = [task.work.source for crew in list(crew_module._crews) for task in list(crew._tasks.values())]
        if in_hand and all(source.endswith(".flac") for source in in_hand):
            now = float(next(ticks))
        return now

    monkeypatch.setattr(crew_module, "clock", clock)
    monkeypatch.setattr(
        engine_module,
        "open_source",
        lambda source, rate: song if source.endswith(".flac") else open_source(source, rate),
    )
    yield song
    song.released.set()
    for thread in threading.enumerate():
        if thread.name == "poolembed":
            thread.join(30)


class TestHanging:
    @pytest.mark.parametrize("form", ["npy", "matrix", "parquet", "jsonl"])
    def test_it_is_named_once_and_tried_again(self, form: str, cli: Cli, songs: Path, hanging: Waiting) -> None:
        done = cli("embed", songs, "--format", form, "--song-timeout", "0.2", "--json")
        assert done.code == 3
        assert done.json["embedded"] == len(GOOD) - 1
        records = manifest(Path("embeddings"))[1:]
        assert sorted(record["key"] for record in records) == sorted([*GOOD, "broken.mp3", "sub/empty.wav"])
        (record,) = [record for record in records if record["key"] == "b.flac"]
        assert record["status"] == "failed"
        assert record["reason"].startswith("no progress for 0.2 s while decoding")
        engine_module.open_source = open_source  # type: ignore[attr-defined]
        again = cli("embed", songs, "--format", form, "--json")
        assert (again.json["embedded"], again.json["unchanged"]) == (1, len(GOOD) - 1)

    @pytest.mark.parametrize("timeout", ["-1", "nan", "soon"])
    def test_impossible_timeouts(self, timeout: str, cli: Cli, songs: Path) -> None:
        assert cli("embed", songs, "--song-timeout", timeout).code == 2


class TestLists:
    @pytest.mark.parametrize("stdin", [b"a.wav\n" * 60, b"\n" * 60, b"a" * 60])
    def test_one_without_an_end_is_an_error(self, stdin: bytes, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(file_reading, "_MOST_ENTRIES", 50)
        monkeypatch.setattr(file_reading, "_LONGEST_LINE", 50)
        done = cli("embed", "-", stdin=stdin)
        assert done.code == 1
        assert "list of paths on standard input: it is no list of paths" in done.err

    @pytest.mark.parametrize("block", [1, 2, 7, 1000])
    @pytest.mark.parametrize(
        ("data", "null", "paths"),
        [
            (b"a\nbc\n\nd", False, ["a", "bc", "d"]),
            (b"a\r\nbc\r\n", False, ["a", "bc"]),
            (b"a\r\nbc\n", False, ["a\r", "bc"]),
            (b"a\nb\0\0c\0", True, ["a\nb", "c"]),
            (b"", False, []),
        ],
    )
    def test_paths_whatever_they_come_in(
        self, data: bytes, null: bool, paths: list[str], block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(file_reading, "_BLOCK", block)
        (tmp_path / "list").write_bytes(data)
        assert reading.read_paths(str(tmp_path / "list"), null) == paths

    def test_vectors_without_an_end(self, cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cli("embed", songs)
        monkeypatch.setattr(reading, "MOST_BYTES", 100)
        done = cli("search", "-", stdin=b"{}\n" * 100)
        assert done.code == 1
        assert "standard input has more than" in done.err
