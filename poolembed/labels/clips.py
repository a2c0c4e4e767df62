"""What a labelled clip is, and a table or folder of them once it is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class Clip:
    """One stretch of one audio file, and what is known of it.

    Attributes:
        path: the file, as `poolembed.audio.open_source` takes it: what the table says, below the table's own folder
            unless it is absolute.
        key: what to call the clip, unlike any other of its table: the path as written in the table, or below the
            folder; with ``#t=START,END`` (a W3C media fragment, in seconds) appended if it is not the whole file.
        labels: per label column that was asked for, the labels in it; ``()`` where the cell is empty.
        start: where it starts in the file, in seconds.
        end: where it ends, in seconds; None is the end of the file.
        split: the split it belongs to, where the table says so.
        fold: the fold it belongs to, where the table says so.
        group: clips of one group (one song, one speaker) never lie in two splits.
    """

    path: str
    key: str
    labels: Mapping[str, tuple[str, ...]]
    start: float = 0.0
    end: float | None = None
    split: Split | None = None
    fold: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Labelled:
    """The clips of a folder or table; from `read_labels`.

    Attributes:
        clips: in the order of the table, or of `poolembed.audio.find_audio`.
        source: the folder or table, as given.
        columns: the label columns that were asked for.
        multi_label: per label column, whether some clip has several labels in it.
        dropped: what is not among the clips, by key, and why.
        notes: what a person should know before trusting the result, a sentence each.
        lost: keys of what was dropped because its audio is not there or cannot be decoded.
    """

    clips: list[Clip]
    source: str
    columns: tuple[str, ...]
    multi_label: dict[str, bool]
    dropped: dict[str, str]
    notes: list[str]
    lost: frozenset[str] = frozenset()

    def without(self, reasons: Mapping[str, str]) -> Labelled:
        """The same without some clips, those that could not be decoded.

        Args:
            reasons: by key, why it is dropped.
        """
        clips = [clip for clip in self.clips if clip.key not in reasons]
        return replace(self, clips=clips, dropped={**self.dropped, **reasons}, lost=self.lost.union(reasons))


def missing_labels(clips: Iterable[Clip], column: str) -> str | None:
    """What is wrong where a column does not have the two labels that it takes to tell anything apart."""
    labels = {label for clip in clips for label in clip.labels[column]}
    if len(labels) > 1:
        return None
    return f"only the label {labels.pop()!r} in column {column!r}" if labels else f"no label in column {column!r}"
