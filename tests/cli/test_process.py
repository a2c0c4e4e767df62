"""Pipes, signals, kills, and names that are bytes: in a process of its own where only that can show it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import soundfile

from poolembed.audio.source import Source
from poolembed.cli import main
from poolembed.embed.engine import Engine
from poolembed.embed.song import Outcome
from tests.cli.conftest import GOOD, Cli, Result, Send, command, files, manifest
from tests.cli.held import held, running
from tests.conftest import RATE, noise
from tests.waiting import PATIENCE, wait_for_line, wait_until

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="signals and byte names are those of POSIX"),
    pytest.mark.usefixtures("environment"),
]

MANY = 120
"""Songs of which most are to come when something happens to a run."""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to seven songs, in two folders."""
    root = tmp_path_factory.mktemp("many") / "songs"
    (root / "sub").mkdir(parents=True)
    for number in range(7):
        soundfile.write(root / f"{number:04}.wav", noise(25_000 + 5000 * number, number), RATE)
    for number in range(7, MANY):
        os.link(root / f"{number % 7:04}.wav", root / "sub" / f"{number:04}.wav")
    return root


_UNDISTURBED: dict[Path, dict[str, bytes]] = {}


@pytest.fixture
def undisturbed(cli: Cli, many: Path) -> dict[str, bytes]:
    """The vectors of a run that nothing happened to."""
    if many not in _UNDISTURBED:
        assert cli("embed", many, "-o", "undisturbed", "-q").code == 0
        _UNDISTURBED[many] = files(Path("undisturbed"))
    return _UNDISTURBED[many]


def embedding(*arguments: str | Path, hold_after: int = MANY) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """A run with the toy model in the background, which stays at a song once it has begun so many.

    It has one worker: of two, one may be far behind when the other comes to wait, and its song is then in a batch that
    does not fill any more.
    """
    return running(held(hold_after, "embed", "-m", "toy", "--workers", "1", *arguments))


@contextmanager
def at_song(number: int, then: Callable[[], None]) -> Iterator[None]:
    """Has something done when a run in this process comes to the song of a number."""
    run = Engine.run

    def each(sources: Iterable[Source]) -> Iterator[Source]:
        for place, source in enumerate(sources):
            if place == number:
                then()
            yield source

    def watched(self: Engine, sources: Iterable[Source], **options: Any) -> Generator[Outcome]:
        return run(self, each(sources), **options)

    with mock.patch.object(Engine, "run", watched):
        yield


def finish(process: subprocess.Popen[bytes], said: bytes = b"") -> Result:
    out, err = process.communicate(timeout=PATIENCE)
    return Result(process.returncode, out, (said + err).decode())


def songs_done(directory: Path) -> int:
    return len(manifest_lines(directory)) - 1


def manifest_lines(directory: Path) -> list[bytes]:
    try:
        return (directory / "manifest.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []


def others(directory: Path) -> set[str]:
    """Files that are neither vectors nor the manifest nor the lock."""
    known = {"manifest.jsonl", ".poolembed/lock", ".poolembed/pid"}
    found = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    return {name for name in found if not name.endswith(".npy")} - known


class TestKilled:
    def test_resumed_it_is_as_if_undisturbed(self, cli: Cli, many: Path, undisturbed: dict[str, bytes]) -> None:
        out = Path("out")
        with embedding(many, "-o", out, hold_after=100) as process:
            wait_until(lambda: songs_done(out) >= 60, process)
            process.send_signal(signal.SIGKILL)
            assert process.wait(PATIENCE) == -signal.SIGKILL
        kept = files(out)
        assert all(undisturbed[name] == data for name, data in kept.items())  # nothing is partial
        assert 60 <= len(kept) < MANY
        assert abs(len(kept) - songs_done(out)) <= 1
        done = cli("embed", many, "-o", out, "--json")
        assert done.code == 0
        assert done.json["embedded"] + done.json["unchanged"] == MANY
        assert done.json["unchanged"] >= len(kept) - 1
        assert files(out) == undisturbed
        assert others(out) == set()
        assert len(manifest(out)) == MANY + 1


class TestInterrupted:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_songs_in_hand_are_finished_and_summed_up(
        self, number: int, code: int, cli: Cli, many: Path, undisturbed: dict[str, bytes], send: Send
    ) -> None:
        out = Path("out")
        with at_song(60, lambda: send(number)):
            done = cli("embed", many, "-o", out, "--workers", "1", "--json")
        assert done.code == code
        assert "\nfinishing the songs in hand; once more to stop at once\n" in done.err
        summary = done.json
        assert summary["interrupted"] is True
        assert 20 <= summary["embedded"] < MANY
        assert summary["failed"] == 0
        assert f"{MANY - summary['embedded']} songs; run the same command again" in done.err
        kept = files(out)
        assert len(kept) == summary["embedded"]
        assert all(undisturbed[name] == data for name, data in kept.items())
        assert others(out) == set()
        again = cli("embed", many, "-o", out, "--json")
        assert again.json["unchanged"] == len(kept)
        assert files(out) == undisturbed

    def test_twice_ends_at_once(self, many: Path) -> None:
        with embedding(many, "-o", "out", hold_after=40) as process:
            wait_until(lambda: songs_done(Path("out")) >= 5, process)
            process.send_signal(signal.SIGINT)
            wait_for_line(process, "once more to stop at once")
            process.send_signal(signal.SIGINT)
            wait_until(lambda: process.poll() is not None)  # with songs in hand that are never to end
            assert finish(process).code == 130

    def test_lines_end_with_a_whole_one(self, cli: Cli, many: Path, send: Send) -> None:
        with at_song(60, lambda: send(signal.SIGINT)):
            done = cli("embed", many, "-o", "-", "--workers", "1")
        assert done.code == 130
        assert done.out.endswith(b"}\n")
        assert 1 <= len(done.lines) < MANY

    @pytest.mark.parametrize("imported", ["typer", "poolembed.cli.app", "numpy", "torch._utils", "torch.nn", "torch"])
    def test_while_starting_up(self, imported: str, many: Path) -> None:
        """Python tells on standard error which module it has imported: what comes next is broken off."""
        told = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
        with running(command("embed", "-m", "toy", many, "-o", "out"), env=told) as process:
            wait_for_line(process, f" {imported}\n")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert out == b""
        said = [line for line in err.decode().splitlines() if not line.startswith("import time:")]
        assert not any("Traceback" in line or "ignored" in line for line in said)

    @pytest.mark.parametrize(
        "place",
        ["poolembed.cli.speak_utf8", "poolembed.cli.faults.recording_faults", "poolembed.cli.app.app", "typer.echo"],
    )
    def test_wherever_it_comes(self, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also between the imports, before a command is run, and while an error is being told."""

        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(sys, "argv", ["poolembed", "search", "nothing", "--in", "nowhere"])
        monkeypatch.setattr(place, interrupted)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 130

    def test_a_run_that_was_started_deaf_to_ctrl_c_says_nothing_of_it(self, songs: Path) -> None:
        """As shells start what they run in the background."""
        deaf = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
        with running([*deaf, *command("--help")], env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}) as run:
            wait_for_line(run, " typer\n")
            run.send_signal(signal.SIGINT)
            run.communicate(timeout=PATIENCE)
        assert run.returncode == 0


class TestPipes:
    def test_the_reader_goes_away(self, many: Path) -> None:
        with embedding(many, "-o", "-") as process:
            assert process.stdout is not None
            assert process.stdout.readline().endswith(b"}\n")
            process.stdout.close()
            process.stdout = None
            done = finish(process)
        assert done.code == 1
        assert "Broken" not in done.err
        assert "Errno" not in done.err

    def test_the_reader_of_a_page_goes_away(self, environment: None) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(command("--help"), check=False, stdout=writing, stderr=subprocess.PIPE, timeout=PATIENCE)
        os.close(writing)
        assert Result(done.returncode, b"", done.stderr.decode()) == Result(1, b"", "")

    def test_find_print0(self, cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(songs)
        find = subprocess.run(["find", ".", "-name", "*.wav", "-print0"], capture_output=True, check=True)
        done = cli("embed", "-", "-0", "-o", "-", "-q", stdin=find.stdout)
        assert done.code == 3  # sub/empty.wav
        found = set(os.fsdecode(find.stdout).split("\0")) - {"", "./sub/empty.wav"}
        assert {line["path"] for line in done.lines} == found

    def test_nothing_but_data_on_stdout(self, cli: Cli, songs: Path) -> None:
        done = cli("embed", songs, "-o", "-")
        assert done.code == 3
        assert [Path(line["path"]).relative_to(songs).as_posix() for line in done.lines] == GOOD
        assert "broken.mp3" in done.err

    def test_an_error_that_cannot_be_encoded(self, script: Cli) -> None:
        done = script("search", "ünï.mp3", "--in", "wö", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
        assert done.code == 1
        assert "no collection w" in done.err


HANGS = """
import sys, threading
from poolembed.audio import source
from poolembed.cli import main

class Hanging(source.MonoSource):
    def blocks(self):
        yield next(super().blocks())
        if self._stream.samples > 40_000:
            threading.Event().wait()

source.MonoSource = Hanging
sys.argv[0] = "poolembed"
main()
"""


def test_a_decoder_that_hangs_for_ever_does_not_keep_the_process(tmp_path: Path) -> None:
    """Nor does what its thread holds (a resampler, say) make anything complain when the process ends."""
    for name, samples in (("short.wav", 20_000), ("long.wav", 60_000)):
        soundfile.write(tmp_path / name, noise(samples), 2 * RATE)
    arguments = ["embed", str(tmp_path), "-o", str(tmp_path / "out"), "-m", "toy", "--song-timeout", "3"]
    done = subprocess.run([sys.executable, "-c", HANGS, *arguments], capture_output=True, check=False, timeout=PATIENCE)
    said = done.stderr.decode()
    assert done.returncode == 3, said
    assert "long.wav: no progress for 3 s while decoding" in said
    assert "leaked" not in said
    assert said.rstrip().endswith("does not answer")
    assert (tmp_path / "out" / "short.wav.npy").is_file()
