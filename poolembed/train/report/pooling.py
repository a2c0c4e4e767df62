"""Where each pooling parameter started, and where it went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.train.report import charts
from poolembed.train.report.files import RunFiles
from poolembed.train.report.page import Html, Row, element, figure, more, paragraph, table

MEANING = {
    "alpha": (
        0.0,
        "With alpha 0 frames are averaged, with 1 averaged by their softmax, "
        "and the larger alpha is, the closer the result is to their maximum.",
    ),
    "p": (1.0, "With p = 1 frames are averaged, and the larger p is, the closer the result is to their maximum."),
}
"""Of each parameter: where it averages, and what it does."""

NAMES = {"autopool": "AutoPool", "gem": "GeM"}

SPREAD = {
    "mean": "mean",
    "min": "smallest",
    "q10": "10th percentile",
    "q50": "median",
    "q90": "90th percentile",
    "max": "largest",
}


def pooling(run: RunFiles) -> Html:
    """A part for each pooling layer that has an alpha or a p."""
    entries = run.results["pooling"]
    if not entries:
        which = f" {run.config.pooling}" if run.config.pooling else ""
        return paragraph(
            f"The pooling{which} has neither alpha nor p: where it stands between average and maximum is not learned."
        )
    return Html("".join(_one(run, entry) for entry in entries))


def _one(run: RunFiles, entry: Mapping[str, Any]) -> Html:
    name, where = entry["parameter"], entry["where"]
    column = where.removeprefix("predictions:") if where != "features" else None
    start, end = np.array(entry["start"], np.float64), np.array(entry["end"], np.float64)
    classes = run.results["heads"][column]["labels"] if column is not None and len(end) > 1 else []
    records = [
        record
        for epoch in run.history
        for record in epoch["pooling"]
        if (record["where"], record["parameter"]) == (where, name)
    ]
    course = {key: [value, *(record[key] for record in records)] for key, value in _spread(start).items()}
    over = "frame features" if column is None else f"frame probabilities of {column}"
    each = "class" if classes else "channel"
    pictures = []
    if 0 < len(classes) <= charts.DRAWN:
        chart = charts.moves(classes, start, end, name, f"{name} of every class, at the start and at the end")
        pictures.append(figure(chart, f"{name} of every class."))
    elif len(end) > 1:
        chart = charts.histogram(start, end, name, each, f"How {name} is distributed, at the start and at the end")
        pictures.append(figure(chart, f"{name} of every {each}, at the start and at the end."))
    chart = charts.course(course, name, f"{name} after every epoch")
    pictures.append(figure(chart, f"{name} after every epoch."))
    keys = SPREAD if len(end) > 1 else {"mean": name}
    ends: list[Row] = [["start", *(_spread(start)[key] for key in keys)], ["end", *(_spread(end)[key] for key in keys)]]
    epochs: list[Row] = [[epoch, *(course[key][epoch] for key in keys)] for epoch in range(len(course["mean"]))]
    parts = [
        element("h3", f"{NAMES.get(entry['kind'], entry['kind'])} of {over}"),
        paragraph(_said(name, start, end, each)),
        element("div", *pictures, class_="charts"),
        table(["", *keys.values()], ends, numbers=".3f"),
        more(f"{name} after every epoch", table(["epoch", *keys.values()], epochs, numbers=".4f")),
    ]
    if classes:
        rows = sorted(zip(classes, start.tolist(), end.tolist(), strict=True), key=lambda row: -row[2])
        parts.append(more(f"{name} of every class", table(["class", "start", "end"], rows, numbers=".3f")))
    return Html("".join(parts))


def _said(name: str, start: NDArray[np.float64], end: NDArray[np.float64], each: str) -> str:
    average, meaning = MEANING[name]
    if len(end) == 1:
        return f"There is one {name} for all; it went from {start[0]:.3g} to {end[0]:.3g}. {meaning}"
    said = f"There is one {name} for each of {len(end):,} {each}{'es' if each == 'class' else 's'}; "
    said += f"their mean went from {start.mean():.3g} to {end.mean():.3g}, the smallest to {end.min():.3g}, "
    said += f"the largest to {end.max():.3g}. "
    share = float(np.mean(end <= average + 1e-6))
    if share:
        said += f"{share:.1%} of them ended at {average:g}, the average. "
    return said + meaning


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    low, q10, q50, q90, high = np.quantile(values, [0, 0.1, 0.5, 0.9, 1]).tolist()
    return {"mean": float(values.mean()), "min": low, "q10": q10, "q50": q50, "q90": q90, "max": high}
