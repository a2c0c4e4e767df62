"""What centring, levelling and cutting do to a run's vectors: ``python -m models.recipe.levels RUN TABLE DEV...``.

TABLE is that of the training clips, which the axes are of (see ``models.recipe.ship``); each DEV a table of labelled
clips with a column ``fold``. Prints linear probe / 5 nearest neighbours, in percent, for the vectors as trained, then
centred, then levelled with several amounts of the spread within instruments and of what changes move, and of the first
numbers of each the neighbours.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.recipe.dev import read_dev
from models.recipe.ship import Spreads, measure, projections
from poolembed.bundle import load_bundle
from poolembed.evaluate.probes import linear_probe, nearest_neighbours
from poolembed.evaluate.task import Task

SIZES = (64, 128, 256, 512)
AMOUNTS = ((0.0, 0.0), (0.2, 0.0), (0.0, 0.5), (0.2, 0.3), (0.2, 0.5), (0.2, 0.7), (0.35, 0.5))
"""Of the spread within instruments, and of what changes move."""


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m models.recipe.levels", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("table")
    parser.add_argument("dev", nargs="+")
    parser.add_argument("--clips", type=int, default=4000, help="that the axes are of, and as many notes")
    options = parser.parse_args(arguments)
    network = load_bundle(options.run).network
    spreads = measure(network, options.table, options.clips)
    devs = [read_dev(table) for table in options.dev]
    tasks = [(projections(network, dev.clips), dev.task) for dev in devs]
    print(f"{'':30}", *(f"{dev.name:>20}" for dev in devs))
    for name, mean, axes in _changes(spreads):
        for size in SIZES:
            shown = [_scores(((vectors - mean) @ axes)[:, :size], task) for vectors, task in tasks]
            print(f"{name:24} {size:5}", *(f"{linear:>13} / {knn}" for linear, knn in shown), flush=True)
    return 0


def _changes(spreads: Spreads) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
    size = len(spreads.mean)
    yield "as trained", np.zeros(size), np.eye(size)
    yield "centred", spreads.mean, np.eye(size)
    for within, changed in AMOUNTS:
        yield f"{within} within, {changed} changed", spreads.mean, spreads.axes(within, changed)


def _scores(vectors: NDArray[np.float64], task: Task) -> tuple[str, str]:
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    knn, linear = np.zeros((2, len(unit), len(task.labels)))
    for fold in range(len(task.fold_names)):
        test = task.folds == fold
        known = unit[~test], task.true[~test], unit[test], len(task.labels)
        knn[test] = nearest_neighbours(*known)
        if unit.shape[1] == max(SIZES):  # the probe takes its time
            linear[test] = linear_probe(*known).scores
    right = [f"{100 * np.mean(scores.argmax(1) == task.true):.1f}" for scores in (linear, knn)]
    return right[0] if linear.any() else "", right[1]


if __name__ == "__main__":
    raise SystemExit(main())
