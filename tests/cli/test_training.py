"""What a person sees of training: the data, a line an epoch, speed and time left, and what to do next."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from poolembed.cli import training
from poolembed.labels import DataReport, SideReport
from poolembed.train.run import Trained
from poolembed.train.trainer import EpochRecord, Plan, PoolingRecord
from tests.train.fake_run import fake_run

PLAN = Plan(
    epochs=4,
    steps_per_epoch=5,
    first_step=0,
    clips_per_step=8,
    device="cpu",
    precision="bf16",
    parameters=2_000_000,
    trained_parameters=2_000_000,
    metric="macro_f1",
)


def plan(**changes: Any) -> Plan:
    return Plan(**{**{name: getattr(PLAN, name) for name in PLAN.__dataclass_fields__}, **changes})


def record(epoch: int, value: float, *pooling: PoolingRecord) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        step=5 * epoch,
        lr=1e-3,
        train={"loss": 1.25, "classification": 1.25},
        valid={"loss": 0.5, "macro_f1": value, "accuracy": 0.75},
        metric="macro_f1",
        seconds=12.34,
        clips_per_second=100.0,
        waiting=0.01,
        pooling=list(pooling),
    )


def data(labels: dict[str, dict[str, int]], **changes: Any) -> DataReport:
    settings = {
        "source": "clips",
        "sides": {"train": SideReport(80, 20, 1.5), "valid": SideReport(20, 5, 0.25)},
        "labels": {"label": labels},
        "multi_label": {"label": False},
        "dropped": {},
        "notes": [],
        **changes,
    }
    return DataReport(**settings)


class Watched:
    """A watcher on a console that keeps what is printed."""

    def __init__(self, kind: type[training._Told] = training._Lines) -> None:
        self.file = io.StringIO()
        self.console = Console(file=self.file, width=200, highlight=False)
        self.watcher: Any = kind(self.console)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.file.getvalue().splitlines()]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Time that stands still until it is moved."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(time, "perf_counter", lambda: Clock.now)
    return Clock


class TestEpochs:
    def test_a_line_each_under_one_heading(self) -> None:
        watched = Watched()
        alpha = PoolingRecord("features", "alpha", 1.25, 0.5, 3.0, 0.6, 1.2, 2.0)
        watched.watcher.begin(PLAN)
        watched.watcher.epoch(record(1, 0.5, alpha), best=True)
        watched.watcher.epoch(record(2, 0.4, alpha), best=False)
        heading, first, second = watched.lines[-3:]
        assert " ".join(heading.split()) == "epoch loss valid loss valid macro_f1 valid accuracy rate alpha seconds"
        assert first.split() == [
            "1",
            "1.2500",
            "0.5000",
            "0.5000",
            "0.7500",
            "1.0e-03",
            "1.25",
            "[0.50..3.00]",
            "12.3",
            "best",
        ]
        assert second.split()[-1] == "12.3"
        for word, value in (("valid macro_f1", "0.5000"), ("rate", "1.0e-03"), ("seconds", "12.3")):
            end = heading.index(word) + len(word)
            assert first[:end].endswith(value), word  # numbers stand below their heading, at its right

    def test_one_parameter_has_no_range(self) -> None:
        watched = Watched()
        watched.watcher.epoch(record(1, 0.5, PoolingRecord("features", "p", 3.5, 3.5, 3.5, 3.5, 3.5, 3.5)), best=False)
        assert watched.lines[-1].split()[-2:] == ["3.50", "12.3"]

    def test_what_is_trained_of_it_and_where_it_goes_on(self) -> None:
        watched = Watched()
        watched.watcher.begin(plan(trained_parameters=12_345, first_step=7))
        assert watched.lines[0] == (
            "going on after step 7; 4 epochs of 5 steps of 8 clips, on cpu in bf16; 2.00 M parameters, "
            "of which 12,345 are trained"
        )


class TestProgress:
    def test_speed_and_time_left(self, clock: Any) -> None:
        watched = Watched()
        watched.watcher.begin(PLAN)
        for step in range(1, 6):
            clock.now += 2
            watched.watcher.step(step, 1.0, 8)
        # Ten seconds for five of twenty steps of eight clips.
        assert watched.watcher._progress(PLAN) == "loss 1.000, 4 clips/s, about 0:30 left"
        watched.watcher.epoch(record(1, 0.625), best=True)
        watched.watcher.epoch(record(2, 0.5), best=False)
        assert "macro_f1 0.625" in watched.watcher._progress(PLAN)

    def test_steps_before_this_run_do_not_count(self, clock: Any) -> None:
        watched = Watched()
        resumed = plan(first_step=10)
        watched.watcher.begin(resumed)
        clock.now += 12
        watched.watcher.step(12, 1.0, 16)
        assert watched.watcher._progress(resumed) == "loss 1.000, 1 clips/s, about 0:48 left"

    def test_no_time_is_left_at_the_end(self, clock: Any) -> None:
        watched = Watched()
        watched.watcher.begin(PLAN)
        clock.now += 12
        watched.watcher.step(20, 1.0, 8)
        assert "left" not in watched.watcher._progress(PLAN)

    def test_plain_lines_now_and_then(self, clock: Any) -> None:
        watched = Watched()
        for done in range(1, 50):
            clock.now += 0.25
            watched.watcher.caching(done, 49)
        assert watched.lines == ["20/49 clips decoded", "40/49 clips decoded"]
        watched.watcher.begin(PLAN)
        clock.now += 5
        watched.watcher.step(1, 2.0, 8)
        assert watched.lines[-1] == "step 1/20, loss 2.000, 2 clips/s, about 1:35 left"

    def test_a_bar(self, clock: Any) -> None:
        console = Console(file=io.StringIO(), force_terminal=True, width=150)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"))
        with Progress(*columns, console=console, auto_refresh=False) as progress:
            watcher = training._Bar(progress)
            (task,) = progress.tasks

            def state() -> tuple[str, float, float | None]:
                return task.description, task.completed, task.total

            watcher.caching(30, 60)
            assert state() == ("decoding", 30, 60)
            watcher.encoding(7, 70)
            assert state() == ("encoding", 7, 70)
            watcher.begin(PLAN)
            assert state() == ("training", 0, 20)
            clock.now += 1
            for step, epoch in ((1, 1), (5, 1), (6, 2), (20, 4)):
                watcher.step(step, 1.0, 8)
                assert state() == (f"epoch {epoch}/4", step, 20)


class TestData:
    def test_sides_classes_and_what_was_left_out(self) -> None:
        watched = Watched()
        labels = {"dog": {"train": 50, "valid": 15}, "[red]cat": {"train": 30, "valid": 5}}
        dropped = {f"broken\n{i}.wav": "not [audio]" for i in range(25)}
        watched.watcher.data(data(labels, dropped=dropped, notes=["column bpm is not used"]))
        text = [line.split() for line in watched.lines]
        assert watched.lines[0] == "clips: 100 clips, 1.75 h"
        for row in (
            ["train", "valid"],
            ["clips", "80", "20"],
            ["groups", "20", "5"],
            ["hours", "1.50", "0.25"],
            ["label:", "2", "classes"],
            ["dog", "50", "15"],
            ["[red]cat", "30", "5"],
        ):
            assert row in text
        assert "note: column bpm is not used" in watched.lines
        assert "left out: 25" in watched.lines
        assert "  broken\\n0.wav: not [audio]" in watched.lines
        assert "  ... and 5 more, in report.html when it is done" in watched.lines

    def test_of_many_classes_the_smallest(self) -> None:
        watched = Watched()
        watched.watcher.data(data({f"c{i:02}": {"train": 90 - i, "valid": 1} for i in range(50)}))
        shown = [line.split()[0] for line in watched.lines if line.startswith("  c")]
        assert shown == [f"c{i}" for i in range(49, 39, -1)]
        assert "  (the 10 smallest)" in watched.lines

    def test_lengths_that_are_not_known(self) -> None:
        watched = Watched()
        watched.watcher.data(data({}, sides={"train": SideReport(3, 0, None)}))
        assert watched.lines[0] == "clips: 3 clips"
        assert not any("hours" in line or "groups" in line for line in watched.lines)


def test_the_end_says_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = fake_run(tmp_path / "my model", epochs=3, kind="gem")
    results = json.loads((directory / "results.json").read_text())
    training.closing_table(Trained(Path("my model"), results, {}, finished=True))
    out, err = capsys.readouterr()
    assert out == ""
    rows = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in err.splitlines() if line)
    assert rows["macro_f1"].startswith(f"{results['metric']['value']:.3f} on 80 clips held out, at epoch")
    assert rows["gem p"].startswith("3 -> ")
    assert rows["report"] == "my model/report.html"
    assert rows["predict"] == "poolembed predict clip.wav --model 'my model'"
    assert rows["evaluate"] == "poolembed evaluate 'my model' labels.csv"


def test_quiet_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with training.watching(quiet=True) as watcher:
        watcher.data(data({}))
        watcher.caching(1, 2)
        watcher.encoding(1, 2)
        watcher.begin(PLAN)
        watcher.step(1, 1.0, 8)
        watcher.epoch(record(1, 0.5), best=True)
    assert capfd.readouterr() == ("", "")
