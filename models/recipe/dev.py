"""The sets that models are chosen by: labelled tables with a column ``fold``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from poolembed.evaluate.task import Task, label_columns, make_task
from poolembed.labels import Clip, read_labels


@dataclass(frozen=True)
class Dev:
    """Labelled clips to score on, called as their table or, if that is ``labels.csv``, as its folder."""

    name: str
    clips: list[Clip]
    task: Task


def read_dev(table: str) -> Dev:
    """Labelled clips, with the folds that their table names.

    Raises:
        LabelsError: the table cannot be used.
    """
    labelled = read_labels(table, columns=label_columns("label", "fold"))
    multi = labelled.multi_label["label"]
    task = make_task(labelled.clips, None, column="label", multi_label=multi, folds="fold", seed=0)
    file = Path(table).absolute()
    return Dev(file.parent.name if file.stem == "labels" else file.stem, labelled.clips, task)
