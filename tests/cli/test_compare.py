"""``poolembed compare``: the table on standard output, everything else on standard error."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Send
from tests.compare.studies import write_table
from tests.conftest import children
from tests.train.runs import tiny_bundle
from tests.waiting import wait_until

SMALL = ("--poolings", "mean,max", "--seeds", "2", "--epochs", "1", "--batch-size", "4", "--jobs", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of labelled clips and a bundle to start from."""
    root = tmp_path_factory.mktemp("data")
    write_table(root)
    tiny_bundle(root)
    return root


def test_a_table_and_three_files(cli: Cli, data: Path) -> None:
    done = cli("compare", data / "labels.csv", "-o", "study", "--init", data / "start", *SMALL)
    assert done.code == 0
    lines = done.out.decode().splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["mean", "max"]
    assert "minus mean pooling" in lines[-3]
    assert "4 runs" in done.err
    assert {"study.json", "study.md", "study.svg", "runs", "models"} <= {path.name for path in Path("study").iterdir()}
    again = cli("compare", data / "labels.csv", "-o", "study", "--init", data / "start", *SMALL)
    assert "4 runs, 4 of them done by an earlier call" in again.err


def test_json_is_study_json(cli: Cli, data: Path) -> None:
    done = cli("compare", data / "labels.csv", "-o", "study", "--init", data / "start", *SMALL, "--json", "-q")
    assert done.code == 0
    assert done.err == ""
    assert [row["name"] for row in done.json["rows"]] == ["mean", "max"]
    assert done.json["metric"] == "accuracy"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--poolings", "mean,men"], "no such pooling: men"),
        (["--lr", "0"], "--lr = 0.0 must be a number > 0"),
        (["--seconds", "-1"], "--seconds = -1.0 must be a number > 0"),
        (["--init", "base", "--width", "4"], "--width is of the small encoder"),
        (["--set", "batchsize=4"], "--set batchsize is not known"),
        (["--objective", "supcon", "--pool", "predictions"], "no predictions to pool"),
    ],
)
def test_wrong_usage(cli: Cli, data: Path, arguments: list[str], said: str) -> None:
    done = cli("compare", data / "labels.csv", "-o", "study", *arguments)
    assert done.code == 2
    assert said in done.err
    assert not Path("study/runs").exists()


def test_no_such_table(cli: Cli) -> None:
    done = cli("compare", "nothing.csv", "-o", "study")
    assert done.code == 1
    assert "nothing.csv" in done.err


def test_all_runs_fail(cli: Cli, data: Path) -> None:
    small = ["--init", data / "start", *SMALL, "--lr", "1e30", "--batch-size", "2"]
    done = cli("compare", data / "labels.csv", "-o", "study", *small)
    assert done.code == 1
    assert "every run of the study failed" in done.err


@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="needs Linux's /proc")
def test_ctrl_c_finishes_the_runs_in_hand(cli: Cli, data: Path, send: Send) -> None:
    """It reaches every process of a terminal: those of the runs too, which are busy with imports just then."""

    def press() -> None:
        wait_until(lambda: len(children()) == 2)
        for child in children():
            os.kill(child, signal.SIGINT)
        send(signal.SIGINT)

    small = ["--init", data / "start", *SMALL[:-2], "--jobs", "2"]
    pressing = threading.Thread(target=press)
    pressing.start()
    done = cli("compare", data / "labels.csv", "-o", "study", *small)
    pressing.join()
    assert done.code == 130
    assert "4 runs" in done.err
    assert "finishing the runs in hand" in done.err
    assert 2 <= len(list(Path("study/runs").glob("*.json"))) < 4
    assert not list(Path("study").rglob("*.part"))
