"""``report.html``: what a training run came to, on one page that needs nothing but itself.

It is made from the run's own directory, so it can be made again at any time. `figures` draws; the template beside this
has the words and the tables, and escapes what it is given.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poolembed.errors import OutputError
from poolembed.files.writing import replacing, writing
from poolembed.text import printable
from poolembed.train import figures
from poolembed.train.configfile import RUN, format_config, read_config
from poolembed.train.results import HISTORY, RESULTS

REPORT = "report.html"
DRAWN = 60
"""Classes that a figure can show."""

TITLES = {"macro_f1": "macro F1", "map": "mAP", "recall_at_1": "R@1"}
MEANING = {
    "alpha": "With alpha 0 frames are averaged, with 1 averaged by their softmax, and the larger alpha is, the closer "
    "the result is to their maximum.",
    "p": "With p = 1 frames are averaged, and the larger p is, the closer the result is to their maximum.",
}
SPREAD = ("mean", "min", "q10", "q50", "q90", "max")


def write_report(directory: Path) -> Path:
    """Write ``report.html`` into the directory of a run, whole or not at all, and return its path.

    Args:
        directory: with ``run.toml``, ``history.jsonl`` and ``results.json``.

    Raises:
        OutputError: a file of the run is missing or damaged, or the report cannot be written.
        UsageError: ``run.toml`` is missing or no configuration.
    """
    from jinja2 import Environment, StrictUndefined, UndefinedError

    path, config = directory / REPORT, read_config(directory / RUN)
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters |= {"number": _number, "titled": _titled}
    template = environment.from_string((Path(__file__).parent / REPORT).read_text(encoding="utf-8"))
    try:
        history = [json.loads(line) for line in (directory / HISTORY).read_text(encoding="utf-8").splitlines()]
        results = json.loads((directory / RESULTS).read_text(encoding="utf-8"))
        text = template.render(
            title=directory.resolve().name,
            roles=figures.ROLES,
            config=config,
            configuration=format_config(config).splitlines(),
            kinds=Counter(objective.kind for objective in config.objectives),
            results=results,
            learning=_learning(history, results["metric"]),
            pooling=[_pooling(entry, history, results["heads"]) for entry in results["pooling"]],
            heads={
                column: _head(head, column, results["data"]["splits"]["valid"]["clips"])
                for column, head in results["heads"].items()
            },
        )
    except OSError as error:
        raise OutputError(f"cannot read the run in {directory}: {error.strerror or error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, UndefinedError) as error:
        raise OutputError(f"the files in {directory} are not those of a finished run: {error!r}") from error
    with writing(path), replacing(path, directory) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _learning(history: Sequence[Mapping[str, Any]], metric: Mapping[str, Any]) -> dict[str, Any]:
    """Loss and metrics of every epoch."""

    def column(split: str, name: str) -> list[float | None]:
        return [record[split].get(name) for record in history]

    losses = {"training": column("train", "loss")}
    if "loss" in history[0]["valid"]:
        losses["held out"] = column("valid", "loss")
    if len(history[0]["train"]) > 2:  # a single part is the loss itself, but for its weight
        losses |= {part: column("train", part) for part in history[0]["train"] if part != "loss"}
    names = dict.fromkeys([metric["name"], *(name for name in history[0]["valid"] if name != "loss")])
    measures, best = {_titled(name): column("valid", name) for name in names}, metric["epoch"]
    return {
        "loss": figures.curves(losses, "loss", "Loss after every epoch", best=best),
        "metric": figures.curves(measures, "of the clips held out", "Metrics after every epoch", best=best, strong=1),
        "head": ["epoch", *(f"loss, {name}" for name in losses), *measures, "learning rate", "seconds"],
        "rows": [
            [record["epoch"], *values, f"{record['lr']:.1e}", f"{record['seconds']:.1f}"]
            for record, *values in zip(history, *losses.values(), *measures.values(), strict=True)
        ],
    }


def _pooling(
    entry: Mapping[str, Any], history: Sequence[Mapping[str, Any]], heads: Mapping[str, Any]
) -> dict[str, Any]:
    """Where a pooling parameter started, and where it went."""
    name, where = entry["parameter"], entry["where"]
    start, end = np.array(entry["start"], np.float64), np.array(entry["end"], np.float64)
    records = [r for epoch in history for r in epoch["pooling"] if (r["where"], r["parameter"]) == (where, name)]
    ends = [[float(x.mean()), *np.quantile(x, [0, 0.1, 0.5, 0.9, 1]).tolist()] for x in (start, end)]
    epochs = [ends[0], *([record[key] for key in SPREAD] for record in records)]
    mean, _, q10, median, q90, _ = np.array(epochs, np.float64).T
    column = where.removeprefix("predictions:")
    labels = heads[column]["labels"] if column in heads and len(end) > 1 else []
    alt = f"{name} of {where}, at the start and at the end"
    lines = {"mean": mean, "median": median} if len(end) > 1 else {"mean": mean}
    moved = figures.histogram(start, end, name, alt) if len(end) > 1 else None
    if labels and len(labels) <= DRAWN:
        moved = figures.dots(labels, {"start": start, "end": end}, name, alt)
    return {
        "name": name,
        "kind": {"autopool": "AutoPool", "gem": "GeM"}.get(entry["kind"], entry["kind"]),
        "where": where,
        "meaning": MEANING[name],
        "averages": float(np.mean(end <= (0 if name == "alpha" else 1) + 1e-6)),
        "ends": ends,
        "epochs": epochs,
        "moved": moved,
        "course": figures.curves(lines, name, f"{name} of {where} after every epoch", band=(q10, q90)),
        "classes": sorted(zip(labels, start.tolist(), end.tolist(), strict=False), key=lambda row: -row[2]),
    }


def _head(head: Mapping[str, Any], column: str, held_out: int) -> dict[str, Any]:
    """Scores of every class, and the confusion matrix, or average precisions where clips have several labels."""
    labels, scores, key = head["labels"], head["per_class"], "average_precision" if head["multi_label"] else "f1"
    worst_first = sorted(scores, key=lambda score: (score[key] is None, score[key] or 0.0))
    found = {"scores": worst_first, "labels": labels, "confused": head["most_confused"], "right": None}
    if head["confusion"] is None:
        values, clips = (np.array([score[each] or 0 for score in scores], np.float64) for each in (key, "clips"))
        of = {"a random order": clips / max(held_out, 1), "average precision": values}
        drawing = figures.dots(labels, of, "", f"Average precision of every class of {column}")
        return found | {"figure": drawing if len(labels) <= DRAWN else None, "pairs": []}
    matrix = np.array(head["confusion"], np.int64)
    wrong = matrix - np.diag(np.diag(matrix))
    most = np.argwhere(wrong)[np.argsort(-wrong[wrong > 0], kind="stable")][:15].tolist()
    drawn = len(labels) <= DRAWN
    return found | {
        "right": int(np.trace(matrix)),
        "figure": figures.confusion(matrix, labels, f"Confusion matrix of {column}") if drawn else None,
        "pairs": [(labels[i], labels[j], int(matrix[i, j]), float(matrix[i, j] / matrix[i].sum())) for i, j in most],
    }


def _titled(metric: str) -> str:
    """What a metric is called on the page; "accuracy of genre" keeps its column."""
    name, of, column = metric.partition(" of ")
    return TITLES.get(name, name) + of + column


def _number(value: float | None, form: str) -> str:
    """A whole number with separators, another in a form, and a dash for what is none."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:{form}}"
