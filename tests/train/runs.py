"""Tiny labelled clips and tiny runs on them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import soundfile

from poolembed.bundle import save_bundle
from poolembed.labels import DataReport
from poolembed.train.config import TrainConfig
from poolembed.train.run import train as train_and_draw
from poolembed.train.trainer import EpochRecord, Plan
from tests.conftest import RATE, tiny_network

train = partial(train_and_draw, report=False)
"""Drawing the report takes longer than all the rest of such a run."""


class Quiet:
    """Progress, and events of `train`, that are kept."""

    def __init__(self, on_step: Any = None) -> None:
        self.reports: list[DataReport] = []
        self.plans: list[Plan] = []
        self.records: list[EpochRecord] = []
        self.told: dict[str, list[Any]] = {}
        self._on_step = on_step

    @property
    def steps(self) -> list[float]:
        """Those that were done; what is told first is where training begins."""
        return [done for done, _ in self.told.get("training", [])[1:]]

    def __call__(self, stage: str, done: float, total: float, note: str = "") -> None:
        self.told.setdefault(stage, []).append((done, total))
        if self._on_step is not None and self.steps and stage == "training":
            self._on_step(done)

    def event(self, event: DataReport | Plan | EpochRecord) -> None:
        kept: dict[type, list[Any]] = {DataReport: self.reports, Plan: self.plans, EpochRecord: self.records}
        kept[type(event)].append(event)


def write_clips(root: Path, labels: int = 3, clips: int = 6) -> Path:
    """``root/<label>/<n>.wav``: noisy tones, a pitch a label, 0.2 to 0.9 s."""
    random = np.random.default_rng(5)
    for label in range(labels):
        folder = root / f"tone{label}"
        folder.mkdir(parents=True)
        for number in range(clips):
            t = np.arange(int(RATE * random.uniform(0.2, 0.9))) / RATE
            tone = 0.3 * np.sin(2 * np.pi * (400 + 700 * label + random.uniform(-80, 80)) * t)
            samples = tone + 0.02 * random.standard_normal(len(t))
            soundfile.write(folder / f"{number}.wav", samples.astype(np.float32), RATE)
    return root


def tiny_bundle(root: Path) -> Path:
    """An untrained tiny bundle to start from."""
    save_bundle(root / "start", tiny_network(), name="start", license="CC0-1.0", card="for tests")
    return root / "start"


def config(root: Path, **options: Any) -> TrainConfig:
    """A run of a blink, into ``root/out``, on the clips below ``root/clips``."""
    start = root / "start" if (root / "start").exists() else tiny_bundle(root)
    if not (root / "clips").exists():
        write_clips(root / "clips")
    settings = {
        "data": str(root / "clips"),
        "output": str(root / "out"),
        "cache": str(root / "cache"),
        "init": str(start),
        "batch_size": 5,
        "epochs": 3,
        "valid": 0.34,
        "precision": "fp32",
        "patience": 0,
        **options,
    }
    return msgspec.convert(settings, TrainConfig)
