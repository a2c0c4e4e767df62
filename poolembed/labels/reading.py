"""Folders and tables of labelled clips."""

# os.path, as Path's raise for names that no file can have.
# ruff: noqa: PTH110, PTH112, PTH122

from __future__ import annotations

import os
from collections.abc import Sequence

from poolembed.errors import LabelsError
from poolembed.labels.clips import Labelled, missing_labels
from poolembed.labels.folder import read_folder
from poolembed.labels.rows import read_rows
from poolembed.labels.tables import SUFFIXES


def read_labels(
    source: str | os.PathLike[str],
    *,
    columns: Sequence[str] = ("label",),
    need_labels: bool = True,
    need_audio: bool = True,
) -> Labelled:
    """Read labelled clips from a folder, or from a table.

    A **folder** has a folder for each label, ``clips/<label>/**/*.wav``; the label is the first folder below it. If the
    first folders are called train, valid and test, they are the split, and the label is the second.

    A **table** is CSV (commas), TSV, JSON Lines or Parquet, by its suffix, with these columns, matched to the letter:

    ========== =============================================================================================
    path       the audio file; relative paths are taken from the folder that the table is in
    label      or what `columns` says: the label, or several, split by ``;`` or as a list. Then it is multi-label
    start, end optional: the stretch of the file, in seconds; an empty end is that of the file
    split      optional: train, valid (or validation, val) or test
    fold       optional: the fold of a cross-validation
    group      optional: clips of one group are never in two splits
    ========== =============================================================================================

    What cannot be used is dropped with a reason: missing files, rows without any label, rows for a clip that an earlier
    row has. Columns of other names are told in the notes. No audio is decoded.

    Args:
        source: the folder or table.
        columns: the columns that hold labels; a folder has "label" only.
        need_labels: whether clips without any label are dropped, and two labels needed in each column.
        need_audio: whether clips that a table names and that are not there are dropped.

    Raises:
        LabelsError: the table cannot be read or breaks these rules (the message names the line), no clip is left, or
            there are fewer than two labels.
    """
    path = os.fsdecode(source)
    if os.path.isdir(path):
        return read_folder(path, columns, need_labels)
    if not os.path.exists(path):
        raise LabelsError(f"{path}: no such file or folder")
    if os.path.splitext(path)[1].lower() not in SUFFIXES:
        raise LabelsError(
            f"{path} is neither a folder nor a table",
            hint=f"give a folder with a folder for each label, or a table that ends in {', '.join(SUFFIXES)}",
        )
    labelled = read_rows(path, columns, need_labels, need_audio)
    for column in columns if need_labels else ():
        problem = missing_labels(labelled.clips, column)
        if problem:
            raise LabelsError(f"{path}: {problem}", hint="it takes two labels at least to learn or to score any")
    return labelled
