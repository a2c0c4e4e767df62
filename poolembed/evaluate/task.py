"""What is to be told apart, on which folds: labelled clips as arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poolembed.errors import LabelsError
from poolembed.evaluate.metrics import Labels
from poolembed.labels import Clip, grouped_folds
from poolembed.labels.clips import missing_labels
from poolembed.labels.units import units_of

FOLDS = 5
FEW = 20
"""Below so many groups, intervals are rough, and a note says so."""

_SHOWN = 5


@dataclass(frozen=True)
class Task:
    """Labels, folds and groups of N clips.

    Attributes:
        column: the column that the labels are from.
        labels: K names, sorted.
        true: which clip has which, as in `poolembed.evaluate.metrics`.
        fold_names: of the folds.
        folds: ``(N,)``, the fold that each clip is tested in, from 0; it is trained on in all the others.
        given: the column that the folds are from; None if they were made here.
        groups: ``(N,)``, clips of equal numbers are drawn together for the intervals.
        apart: arrays ``(N,)``, see `poolembed.evaluate.retrieval.retrieve`.
        notes: what a person should know before trusting scores, a sentence each.
    """

    column: str
    labels: list[str]
    true: Labels
    fold_names: list[str]
    folds: NDArray[np.int64]
    given: str | None
    groups: NDArray[np.int64]
    apart: tuple[NDArray[np.int64], ...]
    notes: list[str]

    @property
    def multi_label(self) -> bool:
        """Whether clips may have several labels."""
        return self.true.ndim == 2

    @property
    def group_count(self) -> int:
        """How many groups are drawn from for the intervals."""
        return len(np.unique(self.groups))


_OWN = ("fold", "split", "group")
"""Columns that every `Clip` has as an attribute."""


def label_columns(column: str, folds: str | None) -> list[str]:
    """The columns that `poolembed.labels.read_labels` is to read labels from, for `make_task`."""
    return [column] if folds is None or folds in (column, *_OWN) else [column, folds]


def make_task(
    clips: Sequence[Clip],
    content: Sequence[str | None] | None,
    *,
    column: str,
    multi_label: bool,
    folds: str | None,
    seed: int,
) -> Task:
    """Turn labelled clips into arrays, and choose the folds.

    Args:
        clips: what is scored; each has a label in the column.
        content: per clip, a hash of its audio or vector; clips of equal ones are copies. None where not known.
        column: the labels to tell apart.
        multi_label: whether clips may have several.
        folds: the column that names the folds; None makes up to `FOLDS` here, with the labels in proportion and groups
            and copies never in two of them.
        seed: of the folds that are made.

    Raises:
        LabelsError: there is only one label, a clip has no fold, there are not two folds, or the clips outside some
            fold have only one label.
    """
    problem = missing_labels(clips, column)
    if problem:
        raise LabelsError(f"{problem} of {len(clips)} clips", hint="it takes clips of two labels or more")
    units = units_of(clips, content, range(len(clips)), None, 0)
    units.sort(key=lambda unit: min(clips[index].key for index in unit.clips))  # the same numbers in any order of clips
    groups = np.zeros(len(clips), np.int64)
    for number, unit in enumerate(units):
        groups[list(unit.clips)] = number
    notes: list[str] = []
    if folds is None:
        chosen = min(FOLDS, len(units))
        if chosen < 2:
            raise LabelsError(
                f"{len(clips)} clips cannot be divided into folds: they are all of one group, file or audio",
                hint="add clips of other groups",
            )
        numbers = grouped_folds(clips, content, folds=chosen, seed=seed, column=column)
        names = [str(number + 1) for number in range(chosen)]
        for unused in ("fold", "split"):
            if any(getattr(clip, unused) is not None for clip in clips):
                notes.append(f"the {unused} of the clips is not used; --fold-column {unused} would")
    else:
        names, numbers = _given_folds(clips, folds)
    labels = sorted({label for clip in clips for label in clip.labels[column]})
    true = _true(clips, column, labels, multi_label)
    divided = np.array(numbers, np.int64)
    notes += _missing_in_training(true, labels, divided, names)
    same = _numbered(content) if content is not None else np.arange(len(clips))
    if folds is not None:
        notes += _copies_across(same, divided)
    if len(units) < FEW:
        notes.append(f"there are only {len(units)} groups of clips to draw from: the intervals are rough")
    named = _numbered([clip.group for clip in clips])
    return Task(column, labels, true, names, divided, folds, groups, (named, same), notes)


def _given_folds(clips: Sequence[Clip], column: str) -> tuple[list[str], list[int]]:
    """Names of the folds that a column holds, and the number of each clip's."""
    values = [_fold_of(clip, column) for clip in clips]
    without = [clip.key for clip, value in zip(clips, values, strict=True) if value is None]
    if without:
        raise LabelsError(
            f"{len(without)} of {len(clips)} clips have no fold, or several, in column {column!r}: {_some(without)}",
            hint="fill in the column, or leave out --fold-column to have folds made",
        )
    names = sorted({value for value in values if value is not None}, key=_naturally)
    if len(names) < 2:
        raise LabelsError(f"column {column!r} has only the fold {names[0]!r}", hint="it takes two folds or more")
    number = {name: index for index, name in enumerate(names)}
    return names, [number[value] for value in values if value is not None]


def _fold_of(clip: Clip, column: str) -> str | None:
    if column in _OWN:
        value: str | None = getattr(clip, column)
        return value
    values = clip.labels[column]
    return values[0] if len(values) == 1 else None


def _naturally(name: str) -> tuple[bool, int, str]:
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)


def _true(clips: Sequence[Clip], column: str, labels: Sequence[str], multi_label: bool) -> Labels:
    number = {label: index for index, label in enumerate(labels)}
    if not multi_label:
        return np.array([number[clip.labels[column][0]] for clip in clips], np.int64)
    true = np.zeros((len(clips), len(labels)), bool)
    for row, clip in enumerate(clips):
        true[row, [number[label] for label in clip.labels[column]]] = True
    return true


def _missing_in_training(
    true: Labels, labels: Sequence[str], folds: NDArray[np.int64], names: Sequence[str]
) -> list[str]:
    """A note on labels of which all clips are in one fold, so that nothing can be learnt of them there."""
    has = true if true.ndim == 2 else np.arange(len(labels)) == true[:, None]
    lost = []
    for fold, name in enumerate(names):
        outside = has[folds != fold].any(0)
        if true.ndim == 1 and outside.sum() < 2:
            raise LabelsError(
                f"outside fold {name!r} there is only the label {labels[int(outside.argmax())]!r} to learn from",
                hint="give folds that each hold a part of several labels, or no --fold-column",
            )
        lost += [
            f"{labels[label]} (fold {name})" for label in np.flatnonzero(~outside & has[folds == fold].any(0)).tolist()
        ]
    if not lost:
        return []
    clips = "a label has" if len(lost) == 1 else f"{len(lost)} labels have"
    return [f"{clips} clips in one fold only, where the others teach nothing of it: {_some(lost)}"]


def _copies_across(same: NDArray[np.int64], folds: NDArray[np.int64]) -> list[str]:
    """A note on copies that the given folds have in both splits."""
    home: dict[int, set[int]] = {}
    for content, fold in zip(same.tolist(), folds.tolist(), strict=True):
        home.setdefault(content, set()).add(fold)
    torn = sum(len(home[content]) > 1 for content in same.tolist())
    return [f"{torn} clips have a copy (the same vector) in another fold, which helps to tell them"] if torn else []


def _numbered(names: Sequence[str | None]) -> NDArray[np.int64]:
    """Equal names to equal numbers; each None to one of its own."""
    numbers: dict[object, int] = {}
    return np.array(
        [numbers.setdefault(index if name is None else (name,), len(numbers)) for index, name in enumerate(names)],
        np.int64,
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(os.fspath, names[:_SHOWN])) + more
