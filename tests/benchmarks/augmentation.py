"""What each augmentation does for a model trained on few clips: which of them are on unless asked for.

python -m tests.benchmarks.augmentation LABELS [--folds 1 2 3] [--epochs 12] [--jobs 2]

LABELS is a table with a column fold. Every augmentation alone is compared with none, by the fold held out, from the
model base, with everything else at its default. The score is that of the last epoch, so that nothing is chosen by it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import tempfile
from statistics import mean, stdev
from typing import Any

import msgspec
import torch

from poolembed.train.config import TrainConfig
from poolembed.train.run import train
from tests.benchmarks.common import Table, machine, report, say

OFF = {
    "gain_db": 0.0,
    "equalizer_db": 0.0,
    "low_pass": 0.0,
    "time_mask": 0.0,
    "band_mask": 0.0,
    "mixup": 0.0,
    "resized_crop": 0.0,
}
TRIED = {
    "none": OFF,
    "gain, up to 6 dB": {**OFF, "gain_db": 6.0},
    "equalizer, up to 6 dB": {**OFF, "equalizer_db": 6.0},
    "low-pass, 1 in 3": {**OFF, "low_pass": 0.33},
    "time mask, up to 0.2": {**OFF, "time_mask": 0.2},
    "band mask, up to 0.2": {**OFF, "band_mask": 0.2},
    "mixup, Beta(0.3, 0.3)": {**OFF, "mixup": 0.3},
    "resized crop, up to 0.15": {**OFF, "resized_crop": 0.15},
    "all but mixup": {**OFF, "gain_db": 6.0, "time_mask": 0.2, "band_mask": 0.2, "resized_crop": 0.15},
}


def score(job: tuple[dict[str, float], str, str, int, str]) -> float:
    """Macro-F1 of the last epoch of a run."""
    augment, labels, fold, epochs, folder = job
    torch.set_num_threads(1)
    config = {
        "data": labels,
        "output": f"{folder}/{abs(hash((json.dumps(augment), fold)))}",
        "cache": f"{folder}/cache",
        "valid_fold": fold,
        "epochs": epochs,
        "patience": 0,
        "augment": augment,
    }
    events: list[Any] = []  # the last is an epoch
    train(msgspec.convert(config, TrainConfig), on_event=events.append)
    return float(events[-1].valid["macro_f1"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels")
    parser.add_argument("--folds", nargs="+", default=["1", "2", "3"])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory() as folder:
        grid = list(itertools.product(TRIED, arguments.folds))
        jobs = [(TRIED[name], arguments.labels, fold, arguments.epochs, folder) for name, fold in grid]
        with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
            scores = []
            for (name, fold), value in zip(grid, pool.imap(score, jobs), strict=True):
                say(f"{name}, fold {fold}: {value:.3f}")
                scores.append(value)
    seen = {name: [value for (each, _), value in zip(grid, scores, strict=True) if each == name] for name in TRIED}
    columns = ["augmentation", *(f"fold {fold}" for fold in arguments.folds), "mean", "difference from none"]
    table = Table("Macro-F1 on the fold held out", columns)
    for name, values in seen.items():
        gains = [value - bare for value, bare in zip(values, seen["none"], strict=True)]
        spread = f" ± {stdev(gains):.3f}" if len(gains) > 1 else ""
        table.add(name, *(f"{value:.3f}" for value in values), f"{mean(values):.3f}", f"{mean(gains):+.3f}{spread}")
    remark = f"{arguments.epochs} epochs from the model base, one run a cell; ± is the standard deviation over folds."
    report("augmentation", "What augmentation does", "augmentation LABELS", about, [table, remark], {"scores": seen})


if __name__ == "__main__":
    main()
