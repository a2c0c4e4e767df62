"""Tiny tables and studies of a blink."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import msgspec

from poolembed.compare.config import StudyConfig
from poolembed.compare.jobs import Learned, Record
from poolembed.nn.config import PoolingConfig
from tests.conftest import tiny_config
from tests.train.runs import tiny_bundle, write_clips


class Told:
    """Progress of a study that is kept."""

    def __init__(self, on_run: Any = None) -> None:
        self.begun: Any = None
        self.runs: list[str] = []
        self._on_run = on_run

    def __call__(self, stage: str, done: float, total: float, note: str = "") -> None:
        if stage != "training":
            return
        if self.begun is None:
            self.begun = (total, done)
            return
        self.runs.append(note.partition(", ")[2])
        if self._on_run is not None:
            self._on_run()


def write_table(root: Path, *, folds: int = 3, several: bool = False) -> Path:
    """``root/labels.csv``: three labels of six clips each, in folds; clip n of each label is in fold 1 + n % folds."""
    write_clips(root / "clips")
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "fold"])
        for label in range(3):
            for number in range(6):
                also = f";tone{(label + 1) % 3}" if several and number % 2 else ""
                writer.writerow([f"clips/tone{label}/{number}.wav", f"tone{label}{also}", 1 + number % folds])
    return root / "labels.csv"


def config(root: Path, **options: Any) -> StudyConfig:
    """A study into ``root/study`` on ``root/labels.csv``, from a tiny bundle."""
    start = root / "start" if (root / "start").exists() else tiny_bundle(root)
    settings = {
        "data": str(root / "labels.csv"),
        "output": str(root / "study"),
        "init": str(start),
        "poolings": ("mean", "max"),
        "seeds": 2,
        "epochs": 2,
        "batch_size": 4,
        "jobs": 1,
        **options,
    }
    return msgspec.convert(settings, StudyConfig)


def record(pooling: str, seed: int, test: float, **options: Any) -> Record:
    """A record as of a run that scored so much."""
    values: dict[str, Any] = {
        "id": f"{pooling}-seed{seed}",
        "pooling": pooling,
        "trial": {},
        "seed": seed,
        "valid": {"macro_f1": test},
        "metric": "macro_f1",
        "test": {"accuracy": test, "macro_f1": test / 2},
        "losses": [2.0, 1.0],
        "curve": [0.1, test],
        "learned": None,
        "parameters": 100,
        "clips_per_second": 50.0,
        "seconds": 1.0,
        **options,
    }
    return Record(**values)


def learned(*values: float) -> Learned:
    """An alpha that began at 1."""
    return Learned("alpha", [1.0] * len(values), list(values))


TINY = tiny_config(PoolingConfig(kind="mean"), mid_levels=False, mel_statistics=False)
