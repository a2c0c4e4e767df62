"""Tables on disk, made for the tests of reading them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolembed.errors import LabelsError
from poolembed.labels import Labelled, read_labels

NAMES = ("a.wav", "b.wav", "c.wav", "d.wav")
Write = Callable[[str], Path]

ROWS: list[dict[str, Any]] = [
    {"path": "a.wav", "label": "dog;cat", "start": 0.5, "end": 2, "split": "train", "fold": 1, "group": "g"},
    {"path": "b.wav", "label": "dog", "start": None, "end": None, "split": "validation", "fold": 2, "group": None},
    {"path": "c.wav", "label": "x, y", "start": 1, "end": None, "split": None, "fold": None, "group": "h"},
]


def save(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def labels_by_key(labelled: Labelled) -> dict[str, tuple[str, ...]]:
    return {clip.key: clip.labels["label"] for clip in labelled.clips}


def refused(source: Path, **more: Any) -> LabelsError:
    with pytest.raises(LabelsError) as error:
        read_labels(source, **more)
    assert str(source) in error.value.message
    return error.value
