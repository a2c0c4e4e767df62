"""Who trains, who validates and who tests, and the tables that runs are given."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from poolembed.errors import LabelsError
from poolembed.files.writing import replacing, writing
from poolembed.labels import Clip, Division, Labelled, divide, grouped_folds

FOLDS = 5
"""Folds that are made where the table has none."""

VALID = 0.2
"""Share of the training clips that validates, where the table's split names only clips to test on."""


@dataclass(frozen=True)
class StudySplit:
    """One way to divide the clips.

    Attributes:
        name: of its tables' files.
        division: train, valid and test, as numbers of clips.
        test: what tests, in words.
    """

    name: str
    division: Division
    test: str


def divide_for_study(labelled: Labelled, content: Sequence[str | None], column: str | None) -> list[StudySplit]:
    """The divisions that seeds take in turn.

    Where the table's ``split`` names clips to test on there is one. Otherwise there are folds, those of the table or
    five that keep groups together: the last one always validates, and the others test in turn, while the rest train.
    So no clip that anything is chosen by is ever tested on.

    Args:
        labelled: the table.
        content: per clip, a hash of its decoded audio.
        column: the label column; None if clips have no labels.

    Raises:
        LabelsError: the table cannot be divided into three splits.
    """
    clips = labelled.clips
    if any(clip.split == "test" for clip in clips):
        division = divide(clips, content, valid=VALID, seed=0, column=column)
        return [StudySplit("split", division, "the clips that the table names")]
    given = [clip.fold for clip in clips]
    if all(fold is not None for fold in given):
        folds = [fold or "" for fold in given]
    elif any(fold is not None for fold in given):
        raise LabelsError(
            f"{sum(fold is None for fold in given)} clips of {labelled.source} have no fold, and others have",
            hint="give every clip a fold, or leave out the column",
        )
    else:
        folds = [str(1 + fold) for fold in grouped_folds(clips, content, folds=FOLDS, seed=0, column=column)]
    names = sorted(set(folds), key=lambda fold: (int(fold) if fold.isdecimal() else 0, fold))
    if len(names) < 3:
        raise LabelsError(
            f"{labelled.source} has {len(names)} folds; a study needs three or more, to train, validate and test",
            hint="add folds, or leave the column out and they are made",
        )
    *tested, valid = names
    return [_with_test(clips, content, column, folds, test, valid) for test in tested]


def _with_test(
    clips: Sequence[Clip], content: Sequence[str | None], column: str | None, folds: list[str], test: str, valid: str
) -> StudySplit:
    split = [
        replace(clip, split="test" if fold == test else "valid" if fold == valid else "train", fold=None)
        for clip, fold in zip(clips, folds, strict=True)
    ]
    return StudySplit(f"fold-{test}", divide(split, content, valid=VALID, seed=0, column=column), f"fold {test}")


def write_tables(directory: Path, splits: StudySplit, labelled: Labelled, column: str | None) -> tuple[str, str]:
    """Write what runs are given: one table of the clips to train and validate on, another of those to test on.

    Returns:
        The two paths.
    """
    division = splits.division
    learn = [(index, "train") for index in division.train] + [(index, "valid") for index in division.valid]
    paths = []
    for part, rows in (("learn", sorted(learn)), ("test", [(index, "test") for index in division.test])):
        path = directory / f"{splits.name}.{part}.jsonl"
        lines = [_line(labelled.clips[index], split, column) for index, split in rows]
        with writing(path):
            directory.mkdir(parents=True, exist_ok=True)
            with replacing(path, directory) as written:
                written.write_text("".join(lines), encoding="utf-8")
        paths.append(str(path))
    return paths[0], paths[1]


def _line(clip: Clip, split: str, column: str | None) -> str:
    row: dict[str, object] = {"path": os.path.abspath(clip.path), "split": split}  # noqa: PTH100 - links stay links
    if clip.start > 0 or clip.end is not None:
        row |= {"start": clip.start, "end": clip.end}
    if column is not None:
        row[column] = ";".join(clip.labels[column])
    return json.dumps(row) + "\n"


def identity(splits: StudySplit, labelled: Labelled, content: Sequence[str | None], column: str | None) -> str:
    """Hash of what a division's runs take from the data: what clips sound like, how they are labelled, which split."""
    division = splits.division
    clips = [
        [split, content[index], list(labelled.clips[index].labels[column]) if column else None]
        for split, indices in (("train", division.train), ("valid", division.valid), ("test", division.test))
        for index in indices
    ]
    return hashlib.sha256(json.dumps(clips).encode()).hexdigest()
