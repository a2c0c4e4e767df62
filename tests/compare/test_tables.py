"""What a study looks like on paper."""
# ruff: noqa: RUF001 - a Greek letter is meant

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from poolembed.compare.config import StudyConfig
from poolembed.compare.figure import svg
from poolembed.compare.jobs import Record
from poolembed.compare.results import Results, results_of
from poolembed.compare.splits import StudySplit
from poolembed.compare.statistics import Estimate
from poolembed.compare.study import Study
from poolembed.compare.tables import difference, main_table, markdown, percent, search_table
from poolembed.compare.timing import pooling_steps
from poolembed.labels import Division
from poolembed.nn.config import PoolingConfig
from poolembed.nn.model import SongModel
from tests.compare.studies import TINY, learned, record


def study(final: dict[str, list[Record]], **options: object) -> Study:
    splits = [StudySplit("split", Division([0, 1], [2], [3, 4]), "fold 1")]
    return Study(
        StudyConfig(data="/home/somebody/labels.csv", output="/home/somebody/study", seeds=3),
        SongModel(TINY),
        splits,
        labels=4,
        frames=8,
        final=final,
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def results() -> Results:
    final = {
        "mean": [record("mean", seed, score) for seed, score in ((1, 0.50), (2, 0.60), (3, 0.70))],
        "max": [record("max", seed, score, clips_per_second=25.0) for seed, score in ((1, 0.61), (2, 0.70), (3, 0.79))],
        "autopool-channel": [
            record("autopool-channel", 1, 0.9, trial={"pooling_lr": 10.0, "alpha": 1.0}, learned=learned(0.5, 3.0)),
            record("autopool-channel", 3, 0.4, trial={"pooling_lr": 10.0, "alpha": 1.0}, learned=learned(1.0, 1.5)),
        ],
    }
    searched = {"autopool-channel": [record("autopool-channel", 0, 0.3, trial={"pooling_lr": 10.0, "alpha": 1.0})]}
    found = results_of(study(final, searched=searched, failures={"x": "disk full"}, notes=["a note"], finished=True))
    assert found is not None
    return found


def row(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_numbers_by_hand(results: Results) -> None:
    text = main_table(results)
    # 0.6 and 0.7; t(2) = 4.303 times 0.1 / sqrt(3) and 0.09 / sqrt(3). Differences 0.11, 0.10, 0.09.
    assert row(text, "mean")[:5] == ["mean", "60.0 ± 24.8", "", "0", "1.00 x"]
    assert row(text, "max")[:5] == ["max", "70.0 ± 22.4", "**+10.0 ± 2.5**", "0", "2.00 x"]
    auto = row(text, "AutoPool, α per channel")
    assert auto[2].startswith("+5.0 ± ")  # seeds 1 and 3 alone: +0.4 and -0.3
    assert auto[3] == "12"
    assert auto[-1] == "alpha 1.50 [0.50 .. 3.00]"


def test_relative_time_is_of_the_layers_themselves(results: Results) -> None:
    assert results.rows[0].pooling == 1.0
    assert all(row.pooling is not None and row.pooling > 0 for row in results.rows)


def test_page(results: Results) -> None:
    text = markdown(results)
    for expected in ("study.svg", "macro-F1", "- x: disk full", "- a note", "2 / 1 / 2 clips", "with 4 labels"):
        assert expected in text, expected
    assert "somebody" not in text
    assert "10 x" in search_table(results)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.count("|") == lines[0].count("|") for line in main_table(results).splitlines())


def test_nothing_tells_of_the_machine(results: Results) -> None:
    import msgspec

    assert b"somebody" not in msgspec.json.encode(results)


def test_without_mean_pooling_there_is_nothing_to_subtract() -> None:
    found = results_of(study({"max": [record("max", 1, 0.5)]}))
    assert found is not None
    assert found.rows[0].minus_mean == {}
    assert found.rows[0].training is None
    assert "Bold" not in markdown(found)
    assert svg(found)


def test_no_final_run_no_results() -> None:
    assert results_of(study({"mean": []})) is None


def test_figure_is_well_formed_and_reproducible(results: Results) -> None:
    text = svg(results)
    ElementTree.fromstring(text)
    assert text == svg(results)
    assert not re.search(r"<image", text)


def test_rounding() -> None:
    assert percent(Estimate(0.7126, 0.0204, [])) == "71.3 ± 2.0"
    assert percent(Estimate(0.7126, None, [])) == "71.3"
    assert difference(Estimate(-0.02, 0.01, [])) == "**-2.0 ± 1.0**"
    assert difference(Estimate(0.01, 0.02, [])) == "+1.0 ± 2.0"
    assert difference(None) == ""


def test_steps_are_timed_forwards_and_backwards() -> None:
    steps = pooling_steps([PoolingConfig(kind="mean"), PoolingConfig(kind="attention")], (2, 8, 16))
    assert len(steps) == 2
    assert min(steps) > 0
