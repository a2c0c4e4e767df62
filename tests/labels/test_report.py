"""The report counts what is there."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolembed.labels import SPLITS, Clip, Division, Labelled, SplitReport, report_data

LABELS = st.frozensets(st.sampled_from("abc")).map(lambda labels: tuple(sorted(labels)))


def labelled(clips: list[Clip], **more: list[str] | dict[str, str]) -> Labelled:
    parts: dict[str, list[str] | dict[str, str]] = {"dropped": {}, "notes": [], **more}
    return Labelled(clips, "t.csv", ("label",), {"label": True}, **parts)  # type: ignore[arg-type]


def test_what_a_person_sees() -> None:
    clips = [
        Clip("/a", "a", {"label": ("x", "y")}, group="1"),
        Clip("/b", "b", {"label": ("x",)}, group="1"),
        Clip("/c", "c", {"label": ("y",)}, group="2"),
        Clip("/d", "d", {"label": ("x",)}),
    ]
    division = Division([0, 1], [2], [], {3: "the same audio as c"}, ["one is left out"])
    report = report_data(
        labelled(clips, dropped={"e": "no such file"}, notes=["column bpm is not used"]),
        division,
        [900, 900, 3600, 1e6],
    )
    assert report.splits == {"train": SplitReport(2, 1, 0.5), "valid": SplitReport(1, 1, 1.0)}
    assert (report.clips, report.hours) == (3, 1.5)
    assert report.labels == {"label": {"x": {"train": 2, "valid": 0}, "y": {"train": 1, "valid": 1}}}
    assert report.dropped == {"e": "no such file", "d": "the same audio as c"}
    assert report.notes == ["column bpm is not used", "one is left out"]
    assert json.loads(json.dumps(report.as_dict())) == {
        "source": "t.csv",
        "clips": 3,
        "hours": 1.5,
        "splits": {
            "train": {"clips": 2, "groups": 1, "hours": 0.5},
            "valid": {"clips": 1, "groups": 1, "hours": 1.0},
        },
        "labels": {"label": {"x": {"train": 2, "valid": 0}, "y": {"train": 1, "valid": 1}}},
        "multi_label": {"label": True},
        "dropped": {"e": "no such file", "d": "the same audio as c"},
        "notes": ["column bpm is not used", "one is left out"],
    }


def test_lengths_that_are_not_known() -> None:
    report = report_data(labelled([Clip("/a", "a", {"label": ()})]), Division([0], [], []), None)
    assert report.splits == {"train": SplitReport(1, 0, None)}
    assert report.hours is None
    assert report.labels == {"label": {}}


@given(st.lists(st.tuples(LABELS, st.integers(0, 3), st.integers(0, 100))))
def test_sums(rows: list[tuple[tuple[str, ...], int, int]]) -> None:
    clips = [Clip(f"/{i}", f"{i}", {"label": labels}) for i, (labels, _, _) in enumerate(rows)]
    indices = [[i for i, row in enumerate(rows) if row[1] == number] for number in range(4)]
    division = Division(indices[0], indices[1], indices[2], left_out=dict.fromkeys(indices[3], "left out"))
    report = report_data(labelled(clips), division, [seconds for _, _, seconds in rows])
    assert report.clips + len(report.dropped) == len(clips)
    assert set(report.splits) == {split for split, each in zip(SPLITS, indices, strict=False) if each}
    assert report.hours == pytest.approx(sum(row[2] for row in rows if row[1] < 3) / 3600)
    expected = Counter((label, SPLITS[row[1]]) for row in rows if row[1] < 3 for label in row[0])
    counted = {
        (label, split): number
        for label, splits in report.labels["label"].items()
        for split, number in splits.items()
        if number
    }
    assert counted == expected
