"""What a person sees of the data before training starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from poolembed.labels.clips import Labelled
from poolembed.labels.division import Division


@dataclass(frozen=True)
class SideReport:
    """One side of a division.

    Attributes:
        clips: how many.
        groups: how many groups they are of; 0 where the table names none.
        hours: of audio; None where the lengths are not known.
    """

    clips: int
    groups: int
    hours: float | None


@dataclass(frozen=True)
class DataReport:
    """Plain data, for a table on the terminal, results.json and report.html; from `report_data`.

    Attributes:
        source: the folder or table, as given.
        sides: train, valid and test, those that have clips.
        labels: column -> label -> side -> clips; every label has every side of `sides`. Labels are sorted.
        multi_label: per column, whether some clip has several labels.
        dropped: by key, what is on no side, and why.
        notes: what a person should know before trusting the result, a sentence each.
    """

    source: str
    sides: dict[str, SideReport]
    labels: dict[str, dict[str, dict[str, int]]]
    multi_label: dict[str, bool]
    dropped: dict[str, str]
    notes: list[str]

    @property
    def clips(self) -> int:
        """How many clips there are on all sides."""
        return sum(side.clips for side in self.sides.values())

    @property
    def hours(self) -> float | None:
        """How long they are together; None where the lengths are not known."""
        hours = [side.hours for side in self.sides.values() if side.hours is not None]
        return sum(hours) if len(hours) == len(self.sides) else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: all of the above."""
        return {**asdict(self), "clips": self.clips, "hours": self.hours}


def report_data(labelled: Labelled, division: Division, seconds: Sequence[float] | None) -> DataReport:
    """Count what each side has.

    Args:
        labelled: the clips.
        division: of ``labelled.clips``.
        seconds: the length of each clip; None where they are not known.
    """
    clips = labelled.clips
    sides = {side: indices for side, indices in _by_side(division).items() if indices}
    reports = {}
    for side, indices in sides.items():
        groups = {clips[index].group for index in indices} - {None}
        hours = None if seconds is None else sum(seconds[index] for index in indices) / 3600
        reports[side] = SideReport(len(indices), len(groups), hours)
    labels: dict[str, dict[str, dict[str, int]]] = {}
    for column in labelled.columns:
        counts = {
            side: Counter(label for index in indices for label in clips[index].labels[column])
            for side, indices in sides.items()
        }
        every = sorted(set().union(*counts.values()))
        labels[column] = {label: {side: counts[side][label] for side in sides} for label in every}
    left_out = {clips[index].key: reason for index, reason in division.left_out.items()}
    return DataReport(
        source=labelled.source,
        sides=reports,
        labels=labels,
        multi_label=labelled.multi_label,
        dropped={**labelled.dropped, **left_out},
        notes=[*labelled.notes, *division.notes],
    )


def _by_side(division: Division) -> dict[str, list[int]]:
    return {"train": division.train, "valid": division.valid, "test": division.test}
