"""Which clips train, which validate, which are left for the end; and which are of which fold.

Clips of one group, and clips of the same decoded audio, go together (see `poolembed.labels.units`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from poolembed.errors import LabelsError, UsageError
from poolembed.labels._words import count, some
from poolembed.labels.clips import SPLITS, Clip, Split, missing_labels
from poolembed.labels.units import ANY, Unit, assign, units_of

_TRAIN, _VALID = 0, 1


@dataclass(frozen=True)
class Division:
    """Indices into the clips that `divide` was given, ascending.

    Attributes:
        train: what is trained on; never empty.
        valid: what chooses the epoch that is kept; never empty.
        test: what neither sees; empty unless the table names it.
        left_out: clips in no split, and why.
        notes: what a person should know of this division, a sentence each.
    """

    train: list[int]
    valid: list[int]
    test: list[int]
    left_out: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def divide(
    clips: Sequence[Clip],
    content: Sequence[str | None] | None,
    *,
    valid: float,
    seed: int,
    column: str | None,
    valid_fold: str | None = None,
) -> Division:
    """Divide clips into those that train, those that validate and those left for a test.

    What the table says goes: its ``split``, or the fold that is named. Where that leaves no clip to validate on, a
    share of the training clips is held out, with the labels in proportion and each label in both splits. What is held
    out depends on the keys of the clips and the seed, not on the order of the clips.

    Clips of one group are in one split. So are clips of the same audio: where the table puts them in two, those that
    train are left out (or if they validate and test, those that validate). Excerpts of one file without a group are
    held out together.

    Args:
        clips: what to divide.
        content: per clip, a hash of its decoded audio; None where it is not known.
        valid: share of the training clips to hold out where the table does not say, between 0 and 1.
        seed: of what is held out.
        column: the label column whose labels are kept in proportion; None if clips have no labels.
        valid_fold: the fold that validates; the others train, but for what the table's ``split`` leaves for the test.

    Raises:
        LabelsError: nothing is left to train on, the table puts a group in two splits, there is only one label, all
            clips of a label go together so that it cannot be in both splits, or there is no such fold.
    """
    notes: list[str] = []
    splits = _written_splits(clips, valid_fold, notes)
    _check_groups(clips, splits)
    left_out = _leave_out_copies(clips, content, splits, notes)
    train = [index for index, split in enumerate(splits) if split == "train" and index not in left_out]
    if not train:
        raise LabelsError(
            f"none of {count(len(clips), 'clip')} is left to train on",
            hint="check the columns split and fold, and what was dropped",
        )
    if column is not None:
        _require_two_labels([clips[index] for index in train], column)
        notes += _conflicts(clips, content, column)
    if not any(split == "valid" and index not in left_out for index, split in enumerate(splits)):
        if any(clip.split for clip in clips):
            notes.append(f"no clip validates by the column split: {valid:.0%} of the training clips are held out")
        for index in _held_out(clips, content, train, valid, seed, column, notes):
            splits[index] = "valid"
    elif column is not None:
        notes += _untrained(clips, splits, left_out, column)
    division = {split: [i for i, each in enumerate(splits) if each == split and i not in left_out] for split in SPLITS}
    return Division(**division, left_out=left_out, notes=notes)


def grouped_folds(
    clips: Sequence[Clip], content: Sequence[str | None] | None, *, folds: int, seed: int, column: str | None
) -> list[int]:
    """Divide clips into folds of about one size, with the labels in proportion; none of them empty.

    Clips of one group, and clips of the same audio, are in one fold; so are excerpts of one file without a group. Each
    label is in two folds at least, so that it can always be trained, but where groups of several labels prevent it.

    Args:
        clips: what to divide.
        content: per clip, a hash of its decoded audio; None where it is not known.
        folds: how many, at least 2.
        seed: of the choice among equals. The order of the clips does not matter.
        column: the label column whose labels are kept in proportion; None if clips have no labels.

    Returns:
        The fold of each clip, from 0.

    Raises:
        LabelsError: there are fewer groups than folds, only one label, or a label whose clips all go together.
    """
    if folds < 2:
        raise UsageError(f"folds is {folds}; it must be 2 or more")
    if column is not None:
        _require_two_labels(clips, column)
    units = units_of(clips, content, range(len(clips)), column, seed)
    if len(units) < folds:
        raise LabelsError(
            f"{count(len(clips), 'clip')} cannot make {folds} folds: clips of one group, one file or the same audio go "
            f"together, which leaves {len(units)}",
            hint="ask for fewer folds, or add clips of other groups",
        )
    _require_two_units(units, "in two folds", "give folds of your own in a column fold")
    fold = [0] * len(clips)
    for unit, number in zip(units, assign(units, [1 / folds] * folds), strict=True):
        for index in unit.clips:
            fold[index] = number
    return fold


def _written_splits(clips: Sequence[Clip], valid_fold: str | None, notes: list[str]) -> list[Split]:
    """The splits that the table names; clips of which it says nothing train."""
    unsaid = sum(clip.split is None for clip in clips)
    if 0 < unsaid < len(clips):
        notes.append(f"{count(unsaid, 'clip')} without a split: used for training")
    splits: list[Split] = [clip.split or "train" for clip in clips]
    folds = {clip.fold for clip in clips if clip.fold is not None}
    if valid_fold is None:
        if folds and not any(clip.split for clip in clips):
            notes.append("the column fold is not used: no fold was named to validate on")
        return splits
    if valid_fold not in folds:
        there = f"there are {some(sorted(folds, key=_naturally))}" if folds else "no clip has a fold"
        raise LabelsError(
            f"there is no fold {valid_fold!r} to validate on: {there}",
            hint="name one of the folds"
            if folds
            else "add a column fold to the table, or hold out a share of the clips",
        )
    if "valid" in splits:
        raise LabelsError(
            f"the column split names clips to validate on, and so does the fold {valid_fold!r}",
            hint="leave out one of them",
        )
    unsaid = sum(clip.fold is None for clip in clips)
    if unsaid:
        notes.append(f"{count(unsaid, 'clip')} without a fold: used for training")
    return [
        "valid" if clip.fold == valid_fold and split == "train" else split
        for clip, split in zip(clips, splits, strict=True)
    ]


def _naturally(fold: str) -> tuple[int, str]:
    return (int(fold) if fold.isdecimal() else 0, fold)


def _check_groups(clips: Sequence[Clip], splits: Sequence[Split]) -> None:
    found: dict[str, set[Split]] = defaultdict(set)
    for clip, split in zip(clips, splits, strict=True):
        if clip.group is not None:
            found[clip.group].add(split)
    torn = [group for group, where in found.items() if len(where) > 1]
    if torn:
        raise LabelsError(
            f"{count(len(torn), 'group')} with clips in more than one split, by the columns split and fold: "
            f"{some(sorted(torn))}",
            hint="put each group in one split, or leave out the column group",
        )


def _alike(content: Sequence[str | None] | None) -> Iterator[list[int]]:
    """Indices of clips of the same audio, two or more."""
    same: dict[str, list[int]] = defaultdict(list)
    for index, audio in enumerate(content or ()):
        if audio is not None:
            same[audio].append(index)
    return (indices for indices in same.values() if len(indices) > 1)


def _leave_out_copies(
    clips: Sequence[Clip], content: Sequence[str | None] | None, splits: Sequence[Split], notes: list[str]
) -> dict[int, str]:
    """Copies of what the table has for validation or test in another split; a test set is never made smaller."""
    left_out = {}
    copies = 0
    for indices in _alike(content):
        copies += len(indices) - 1
        stays = max(indices, key=lambda index: SPLITS.index(splits[index]))
        for index in indices:
            if splits[index] != splits[stays]:
                left_out[index] = f"the same audio as {clips[stays].key}, which is for {_PURPOSE[splits[stays]]}"
    if copies > len(left_out):
        notes.append(f"{count(copies - len(left_out), 'clip')} with the same audio as another, kept in one split")
    if left_out:
        notes.append(f"{count(len(left_out), 'clip')} left out, with the same audio as clips in another split")
    return left_out


_PURPOSE: dict[Split, str] = {"train": "training", "valid": "validation", "test": "the test"}


def _require_two_labels(clips: Sequence[Clip], column: str) -> None:
    problem = missing_labels(clips, column)
    if problem:
        raise LabelsError(
            f"{problem} of {count(len(clips), 'clip')}",
            hint="it takes clips of two labels or more; see what was dropped",
        )


def _conflicts(clips: Sequence[Clip], content: Sequence[str | None] | None, column: str) -> list[str]:
    """A note on clips that sound the same and are labelled differently."""
    pairs = []
    for indices in _alike(content):
        first = clips[indices[0]]
        other = next((clips[i] for i in indices if set(clips[i].labels[column]) != set(first.labels[column])), None)
        if other is not None:
            pairs.append((first, other))
    if not pairs:
        return []
    said = " and ".join(f"{clip.key} ({'; '.join(clip.labels[column]) or 'none'})" for clip in pairs[0])
    return [f"the same audio has different labels in {count(len(pairs), 'place')}, such as {said}"]


def _untrained(clips: Sequence[Clip], splits: Sequence[Split], left_out: dict[int, str], column: str) -> list[str]:
    """A note on labels that the table has in other splits only."""
    on: dict[Split, set[str]] = {split: set() for split in SPLITS}
    for index, clip in enumerate(clips):
        if index not in left_out:
            on[splits[index]].update(clip.labels[column])
    missing = sorted((on["valid"] | on["test"]) - on["train"])
    return [f"{count(len(missing), 'label')} without a training clip: {some(missing)}"] if missing else []


def _held_out(
    clips: Sequence[Clip],
    content: Sequence[str | None] | None,
    train: Sequence[int],
    valid: float,
    seed: int,
    column: str | None,
    notes: list[str],
) -> list[int]:
    """Those of the training clips that validate."""
    units = units_of(clips, content, train, column, seed)
    if len(units) < 2:
        raise LabelsError(
            f"{count(len(train), 'clip')} to train on, and none that can be held out to validate on",
            hint="it takes two clips or more, of two groups and with different audio",
        )
    _require_two_units(units, "in both splits", "say in a column split which clips validate")
    splits = assign(units, (1 - valid, valid), must_have=_TRAIN)
    on = [
        {label for unit, split in zip(units, splits, strict=True) if split == this for label, _ in unit.tally}
        for this in (_TRAIN, _VALID)
    ]
    missing = sorted(on[_TRAIN] - on[_VALID])
    if missing:
        notes.append(
            f"{count(len(missing), 'label')} without a validation clip, as groups go together: {some(missing)}"
        )
    return [index for unit, split in zip(units, splits, strict=True) if split == _VALID for index in unit.clips]


def _require_two_units(units: Sequence[Unit], purpose: str, way_out: str) -> None:
    """Check that each label has clips that do not all go together."""
    holders: dict[str, list[int]] = defaultdict(list)
    for unit in units:
        for label, clips in unit.tally:
            holders[label].append(clips)
    alone = {label: clips[0] for label, clips in sorted(holders.items()) if label != ANY and len(clips) == 1}
    if alone:
        said = [f"{label} ({count(clips, 'clip')})" for label, clips in alone.items()]
        together = ", or several that go together (of one group, one file or the same audio)"
        raise LabelsError(
            f"{count(len(alone), 'label')} with one clip{together if max(alone.values()) > 1 else ''}, "
            f"which cannot be {purpose}: {some(said)}",
            hint=f"add clips of other recordings, leave these labels out, or {way_out}",
        )
