"""What a person sees of training: the data, a line an epoch, speed and time left, and what to do next."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from poolembed.cli import training
from poolembed.cli.progress import Display
from poolembed.cli.report import facts
from poolembed.labels import DataReport, SplitReport
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
        "splits": {"train": SplitReport(80, 20, 1.5), "valid": SplitReport(20, 5, 0.25)},
        "labels": {"label": labels},
        "multi_label": {"label": False},
        "dropped": {},
        "notes": [],
        **changes,
    }
    return DataReport(**settings)


class Told:
    """What is printed of events, as a terminal would show it."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.tell = training.Story(Display(quiet=False))
        self._capsys, self._text = capsys, ""

    @property
    def lines(self) -> list[str]:
        self._text += self._capsys.readouterr().err
        return self._text.splitlines()


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    return Told(capsys)


class TestEpochs:
    def test_a_line_each_under_one_heading(self, told: Told) -> None:
        alpha = PoolingRecord("features", "alpha", 1.25, 0.5, 3.0, 0.6, 1.2, 2.0)
        told.tell(PLAN)
        told.tell(record(1, 0.5, alpha))
        told.tell(record(2, 0.4, alpha))
        heading, first, second = told.lines[-3:]
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

    def test_one_parameter_has_no_range(self, told: Told) -> None:
        told.tell(record(1, 0.5, PoolingRecord("features", "p", 3.5, 3.5, 3.5, 3.5, 3.5, 3.5)))
        assert told.lines[-1].split()[-3:] == ["3.50", "12.3", "best"]

    def test_what_is_trained_of_it_and_where_it_goes_on(self, told: Told) -> None:
        told.tell(plan(trained_parameters=12_345, first_step=7))
        assert told.lines[0] == (
            "going on after step 7; 4 epochs of 5 steps of 8 clips, on cpu in bf16; 2.00 M parameters, "
            "of which 12,345 are trained"
        )


class TestData:
    def test_splits_classes_and_what_was_left_out(self, told: Told) -> None:
        labels = {"dog": {"train": 50, "valid": 15}, "[red]cat": {"train": 30, "valid": 5}}
        dropped = {f"broken\n{i}.wav": "not [audio]" for i in range(25)}
        told.tell(data(labels, dropped=dropped, notes=["column bpm is not used"]))
        text = [line.split() for line in told.lines]
        assert told.lines[0] == "clips: 100 clips, 1 h 45 min"
        for row in (
            ["train", "valid"],
            ["clips", "80", "20"],
            ["groups", "20", "5"],
            ["audio", "1", "h", "30", "min", "15", "min"],
            ["label:", "2", "classes"],
            ["dog", "50", "15"],
            ["[red]cat", "30", "5"],
        ):
            assert row in text
        assert "note: column bpm is not used" in told.lines
        assert "left out: 25" in told.lines
        assert "  broken\\n0.wav: not [audio]" in told.lines
        assert "  … and 5 more, in report.html when it is done" in told.lines

    def test_of_many_classes_the_smallest(self, told: Told) -> None:
        told.tell(data({f"c{i:02}": {"train": 90 - i, "valid": 1} for i in range(50)}))
        shown = [line.split()[0] for line in told.lines if line.startswith("  c")]
        assert shown == [f"c{i}" for i in range(49, 39, -1)]
        assert "  (the 10 smallest)" in told.lines

    def test_lengths_that_are_not_known(self, told: Told) -> None:
        told.tell(data({}, splits={"train": SplitReport(3, 0, None)}))
        assert told.lines[0] == "clips: 3 clips"
        assert not any("hours" in line or "groups" in line for line in told.lines)


def test_the_end_says_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = fake_run(tmp_path / "my model", epochs=3, kind="gem")
    results = json.loads((directory / "results.json").read_text())
    facts(training.result(Trained(Path("my model"), results, {}, finished=True)))
    out, err = capsys.readouterr()
    assert out == ""
    rows = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in err.splitlines() if line)
    assert rows["macro_f1"].startswith(f"{results['metric']['value']:.3f} on 80 clips held out, at epoch")
    assert rows["gem p"].startswith("3 -> ")
    assert rows["report"] == "my model/report.html"
    assert rows["predict"] == "poolembed predict clip.wav --model 'my model'"
    assert rows["evaluate"] == "poolembed evaluate 'my model' labels.csv"
