"""What the cells of a table mean: rows to clips."""

# Strings, not Paths: a clip's path is spelt as the table spells it.
# ruff: noqa: PTH100, PTH113, PTH118, PTH120

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from decimal import Decimal

from poolembed.errors import LabelsError
from poolembed.labels._words import count, nearest, some
from poolembed.labels.clips import Clip, Labelled, Split
from poolembed.labels.tables import Row, read_table

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "test": "test",
}
"""How a table may call a split."""

_OWN = ("path", "start", "end", "split", "fold", "group")
_MISSING, _UNLABELLED = "no such file", "no label"


def read_rows(source: str, columns: Sequence[str], need_labels: bool, need_audio: bool) -> Labelled:
    """The clips of a table; see `poolembed.labels.read_labels`."""
    known = {*_OWN, *columns}
    table = read_table(source, known, ["path", *columns] if need_labels else ["path"])
    folder = os.path.dirname(source)
    clips: list[Clip] = []
    dropped: dict[str, str] = {}
    seen: dict[tuple[str, float, float | None], tuple[Row, Clip]] = {}
    exists: dict[str, bool] = {}
    contradictions = 0
    for row in table.rows:
        clip = _clip(row, source, folder, columns)
        identity = os.path.normpath(clip.path), clip.start, clip.end
        if identity in seen:
            first, as_before = seen[identity]
            differing = _differing(as_before, clip)
            contradictions += bool(differing)
            other = f", with another {' and '.join(differing)}" if differing else ""
            dropped[f"{clip.key} ({row.where})"] = f"the same clip as {first.where}{other}"
            continue
        seen[identity] = row, clip
        if clip.path not in exists:
            exists[clip.path] = not need_audio or os.path.isfile(clip.path)
        if not exists[clip.path]:
            dropped[clip.key] = _MISSING
        elif need_labels and not any(clip.labels.values()):
            dropped[clip.key] = _UNLABELLED
        else:
            clips.append(clip)
    if not clips:
        _say_nothing_is_left(source, [clip for _, clip in seen.values()], exists)
    notes = _unused(table.names, known)
    if contradictions:
        notes.append(
            f"{count(contradictions, 'row')} for a clip that an earlier row has otherwise: the first counts. Several "
            "labels go in one cell, split by ;"
        )
    multi_label = {column: any(len(clip.labels[column]) > 1 for clip in clips) for column in columns}
    lost = frozenset(key for key, reason in dropped.items() if reason == _MISSING)
    return Labelled(clips, source, tuple(columns), multi_label, dropped, notes, lost)


def _clip(row: Row, source: str, folder: str, columns: Sequence[str]) -> Clip:
    where = f"{source}, {row.where}"
    written = row.cells.get("path")
    if not isinstance(written, str) or not written.strip():
        raise LabelsError(f"{where}: no path", hint="each row names its audio file in the column path")
    start = _seconds(row, "start", where) or 0.0
    end = _seconds(row, "end", where)
    if start < 0:
        raise LabelsError(f"{where}: start is {_plain(start)}; the first second is 0")
    if end is not None and end <= start:
        raise LabelsError(f"{where}: end is {_plain(end)}, which is not after start, {_plain(start)}")
    split = _text(row, "split", where)
    if split is not None and split.lower() not in SPLIT_NAMES:
        raise LabelsError(f"{where}: split is {split!r}", hint=f"it is one of {some(SPLIT_NAMES)}, or empty")
    key = written
    if start > 0 or end is not None:
        key += f"#t={_plain(start)}" + ("" if end is None else f",{_plain(end)}")
    return Clip(
        path=os.path.join(folder, written),
        key=key,
        labels={column: _labels(row, column, where) for column in columns},
        start=start,
        end=end,
        split=None if split is None else SPLIT_NAMES[split.lower()],
        fold=_text(row, "fold", where),
        group=_text(row, "group", where),
    )


def _text(row: Row, column: str, where: str) -> str | None:
    return _as_text(row.cells.get(column), column, where)


def _as_text(value: object, column: str, where: str) -> str | None:
    """What a cell says, None if nothing; 3.0 is "3", as a column of whole numbers with gaps holds floats."""
    if isinstance(value, str):
        return value.strip() or None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise LabelsError(f"{where}: {column} is {_kind(value)}", hint="it must be text or a number")


def _labels(row: Row, column: str, where: str) -> tuple[str, ...]:
    value = row.cells.get(column)
    if isinstance(value, list):
        texts = [_as_text(item, column, where) for item in value]
    else:
        texts = [part.strip() for part in (_as_text(value, column, where) or "").split(";")]
    return tuple(dict.fromkeys(text for text in texts if text))


def _seconds(row: Row, column: str, where: str) -> float | None:
    value = row.cells.get(column)
    number = math.nan
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, float) and math.isnan(value):
        return None  # an empty cell, as pandas writes it
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not math.isfinite(number):
        said = repr(value) if isinstance(value, str | int | float) else _kind(value)
        raise LabelsError(f"{where}: {column} is {said}", hint="it is a number of seconds, such as 2.5, or empty")
    return number


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", bytes: "bytes", bool: "true or false"}
    return names.get(type(value), f"of type {type(value).__name__}")


def _plain(seconds: float) -> str:
    """The shortest decimal that reads back as the same number, without exponent."""
    text = format(Decimal(repr(seconds)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _differing(first: Clip, second: Clip) -> list[str]:
    columns = [column for column in first.labels if first.labels[column] != second.labels[column]]
    return columns + [name for name in ("split", "fold", "group") if getattr(first, name) != getattr(second, name)]


def _unused(names: Sequence[str], known: set[str]) -> list[str]:
    """A note on columns that nothing is taken from, and what they may have been meant for."""
    unused = [name for name in names if name not in known]
    if not unused:
        return []
    notes = []
    listed = some(name or "(without a name)" for name in unused)
    notes.append(f"columns {listed} are not used" if len(unused) > 1 else f"column {listed} is not used")
    for name in unused:
        meant = nearest(name, [other for other in sorted(known) if other not in names], cutoff=0.8)
        if meant:
            notes.append(f"column {name!r} may be meant for {meant!r}: names are matched letter by letter")
    return notes


def _say_nothing_is_left(source: str, clips: Sequence[Clip], exists: dict[str, bool]) -> None:
    missing = [clip for clip in clips if not exists[clip.path]]
    if not missing:
        raise LabelsError(f"{source} has no row with a label", hint="fill in the column of labels")
    others = len(clips) - len(missing)
    unlabelled = f", {others} without a label" if others else ""
    raise LabelsError(
        f"{source}: none of its {count(len(clips), 'clip')} can be used: {len(missing)} not there{unlabelled}; "
        f"there is no file {os.path.abspath(missing[0].path)}",
        hint="relative paths are taken from the folder that the table is in",
    )
