"""What a person sees of the data before training starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from poolembed.labels.clips import Labelled
from poolembed.labels.division import Division


@dataclass(frozen=True)
class SplitReport:
    """One split of a division.

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
        splits: train, valid and test, those that have clips.
        labels: column -> label -> split -> clips; every label has every split of `splits`. Labels are sorted.
        multi_label: per column, whether some clip has several labels.
        dropped: by key, what is in no split, and why.
        notes: what a person should know before trusting the result, a sentence each.
    """

    source: str
    splits: dict[str, SplitReport]
    labels: dict[str, dict[str, dict[str, int]]]
    multi_label: dict[str, bool]
    dropped: dict[str, str]
    notes: list[str]

    @property
    def clips(self) -> int:
        """How many clips there are in all splits."""
        return sum(split.clips for split in self.splits.values())

    @property
    def hours(self) -> float | None:
        """How long they are together; None where the lengths are not known."""
        hours = [split.hours for split in self.splits.values() if split.hours is not None]
        return sum(hours) if len(hours) == len(self.splits) else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: all of the above."""
        return {**asdict(self), "clips": self.clips, "hours": self.hours}


def report_data(labelled: Labelled, division: Division, seconds: Sequence[float] | None) -> DataReport:
    """Count what each split has.

    Args:
        labelled: the clips.
        division: of ``labelled.clips``.
        seconds: the length of each clip; None where they are not known.
    """
    clips = labelled.clips
    splits = {split: indices for split, indices in _by_split(division).items() if indices}
    reports = {}
    for split, indices in splits.items():
        groups = {clips[index].group for index in indices} - {None}
        hours = None if seconds is None else sum(seconds[index] for index in indices) / 3600
        reports[split] = SplitReport(len(indices), len(groups), hours)
    labels: dict[str, dict[str, dict[str, int]]] = {}
    for column in labelled.columns:
        counts = {
            split: Counter(label for index in indices for label in clips[index].labels[column])
            for split, indices in splits.items()
        }
        every = sorted(set().union(*counts.values()))
        labels[column] = {label: {split: counts[split][label] for split in splits} for label in every}
    left_out = {clips[index].key: reason for index, reason in division.left_out.items()}
    return DataReport(
        source=labelled.source,
        splits=reports,
        labels=labels,
        multi_label=labelled.multi_label,
        dropped={**labelled.dropped, **left_out},
        notes=[*labelled.notes, *division.notes],
    )


def _by_split(division: Division) -> dict[str, list[int]]:
    return {"train": division.train, "valid": division.valid, "test": division.test}
