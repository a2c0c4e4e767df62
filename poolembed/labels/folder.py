"""A folder per label."""

# Strings, not Paths, as in `poolembed.audio.find`.
# ruff: noqa: PTH118, PTH122, PTH208

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Sequence

from poolembed.errors import LabelsError
from poolembed.labels.clips import Clip, Labelled, Split, missing_labels
from poolembed.labels.rows import SPLIT_NAMES
from poolembed.labels.tables import SUFFIXES
from poolembed.text import passed_over


def read_folder(source: str, columns: Sequence[str], need_labels: bool) -> Labelled:
    """The clips below a folder; see `poolembed.labels.read_labels`."""
    from poolembed.audio.find import find_audio  # only here, as its package loads the decoders

    others = [column for column in columns if column != "label"]
    if others and need_labels:
        raise LabelsError(
            f"the folder {source} has no column {others[0]!r}: its folders are the column 'label'",
            hint="write a table with a column path and the columns of labels",
        )
    dropped: dict[str, str] = {}
    unknown: Counter[str] = Counter()
    found = find_audio([source], on_error=dropped.__setitem__, passed_over=unknown)
    below = {file.key.split("/")[0] for file in found if "/" in file.key}
    are_splits = any(SPLIT_NAMES.get(name) == "train" for name in below) and below <= SPLIT_NAMES.keys()
    clips: list[Clip] = []
    for file in found:
        *folders, _ = file.key.split("/")
        split: Split | None = SPLIT_NAMES[folders.pop(0)] if are_splits and folders else None
        if not folders and need_labels:
            dropped[file.key] = "no label: it is in no folder below " + (
                source if split is None else "the one of its split"
            )
            continue
        labels = {column: (folders[0],) if folders and column == "label" else () for column in columns}
        clips.append(Clip(file.path, file.key, labels, split=split))
    hint = _table_in(source) or "put the clips of each label in a folder of its own: LABEL/clip.wav"
    if not clips:
        reasons = "".join(f"; {key}: {reason}" for key, reason in list(dropped.items())[:3])
        raise LabelsError(f"no clip below {source}{reasons}", hint=hint)
    if need_labels and columns:
        problem = missing_labels(clips, "label")
        if problem:
            raise LabelsError(f"{source}: {problem}", hint=hint)
    notes = [f"passed over {passed_over(unknown)}"] if unknown else []
    if are_splits:
        notes.append(f"the folders {', '.join(sorted(below))} are taken for the split, and those below them for labels")
    return Labelled(clips, source, tuple(columns), dict.fromkeys(columns, False), dropped, notes)


def _table_in(source: str) -> str | None:
    """What to do where there is a table in the folder: it is probably meant."""
    tables: list[str] = []
    with contextlib.suppress(OSError):  # that it cannot be listed is said already
        tables = sorted(name for name in os.listdir(source) if os.path.splitext(name)[1].lower() in SUFFIXES)
    return f"or is the table in it meant? Give {os.path.join(source, tables[0])}" if tables else None
