"""What a finished run has to say for itself: ``results.json``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import torch
from msgspec import Meta, Struct
from numpy.typing import NDArray

from poolembed import __version__
from poolembed.embed.device import DTYPES
from poolembed.errors import OutputError
from poolembed.evaluate import metrics
from poolembed.files.reading import read_regular
from poolembed.train.aims import Classify
from poolembed.train.learner import Student
from poolembed.train.loop import Fitted, pooling_values
from poolembed.train.objectives import Rows

if TYPE_CHECKING:
    from poolembed.train.run import Run

HISTORY, RESULTS = "history.jsonl", "results.json"

_LONGEST = 1 << 30  # bytes

CONFUSED = 10
"""Clips that are shown as the most confused."""


def read_results(path: Path) -> dict[str, Any]:
    """All of ``results.json``, with what is told of a run that is finished.

    Raises:
        OutputError: it cannot be read, or is damaged.
    """
    try:
        results: dict[str, Any] = json.loads(read_regular(path, _LONGEST))
        msgspec.convert(results, _Told)
        return results
    except (OSError, ValueError, RecursionError) as error:
        told = getattr(error, "strerror", None) or error
        raise OutputError(
            f"cannot read {path}, or it is damaged: {told}",
            hint="the model beside it is whole: poolembed evaluate scores it anew",
        ) from error


class _Metric(Struct):
    name: str
    value: float
    epoch: int


class _Side(Struct):
    clips: int


class _Data(Struct):
    sides: dict[str, _Side]
    dropped: dict[str, str]

    def __post_init__(self) -> None:
        if "valid" not in self.sides:
            raise ValueError("no clips held out")


class _Pooling(Struct):
    where: str
    kind: str
    parameter: str
    start: Annotated[list[float], Meta(min_length=1)]
    end: Annotated[list[float], Meta(min_length=1)]


class _Told(Struct):
    """What the command line tells of a finished run."""

    metric: _Metric
    heads: dict[str, Any]
    pooling: list[_Pooling]
    data: _Data
    seconds: float
    epochs: int
    clips_per_second: float
    device: str


def results_of(run: Run, fitted: Fitted, seconds: float) -> dict[str, Any]:
    """All of ``results.json``; metrics are those of the best epoch's averaged weights on the clips held out."""
    student, history = fitted.student, fitted.history
    best = history[fitted.best - 1]
    rows = run.reader().rows(student, run.data.division.valid)
    spent = sum(record.seconds for record in history)
    return {
        "metric": {"name": best.metric, "value": best.valid[best.metric], "epoch": best.epoch},
        "valid": best.valid,
        "heads": {aim.head.config.column: _head(run, aim, rows) for aim in run.lesson.classified},
        "pooling": _pooling(run, student),
        "data": run.data.report.as_dict(),
        "seconds": seconds,
        "steps": history[-1].step,
        "epochs": len(history),
        "clips_per_second": float(np.median([record.clips_per_second for record in history])),
        "waiting": sum(record.waiting * record.seconds for record in history) / max(spent, 1e-9),
        "parameters": sum(p.numel() for p in student.parameters()),
        "device": run.where.device.type,
        "precision": next(name for name, dtype in DTYPES.items() if dtype == run.precision),
        "poolembed": __version__,
        "torch": torch.__version__,
    }


def _head(run: Run, aim: Classify, rows: Rows) -> dict[str, Any]:
    valid = run.data.division.valid
    where = aim.labelled(valid)
    clips = [valid[place] for place in where]
    names, true, scores = aim.column.names, aim.column.true(clips), aim.probabilities(rows)[where]
    if not clips:
        unseen = [asdict(metrics.ClassScores(name, 0, 0.0, None, None, None)) for name in names]
        return {
            "labels": names,
            "multi_label": aim.column.multi_label,
            "confusion": None,
            "per_class": unseen,
            "most_confused": [],
        }
    return {
        "labels": names,
        "multi_label": aim.column.multi_label,
        "confusion": None if aim.column.multi_label else metrics.confusion(true, scores).tolist(),
        "per_class": [asdict(each) for each in metrics.per_class(true, scores, names)],
        "most_confused": _most_confused(run, aim, clips, scores),
    }


def _most_confused(run: Run, aim: Classify, clips: list[int], scores: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The clips whose likeliest wrong label is most above their least likely true one."""
    hot = aim.column.hot[clips] > 0
    wrong = np.where(hot, -np.inf, scores)
    margin = wrong.max(1) - np.where(hot, scores, np.inf).min(1)
    return [
        {
            "key": run.data.labelled.clips[clips[place]].key,
            "true": [name for name, there in zip(aim.column.names, hot[place], strict=True) if there],
            "predicted": aim.column.names[int(wrong[place].argmax())],
            "probability": float(wrong[place].max()),
        }
        for place in np.argsort(-margin, kind="stable")[:CONFUSED].tolist()
        if margin[place] > 0
    ]


def _pooling(run: Run, student: Student) -> list[dict[str, Any]]:
    """Where each alpha and p started and went."""
    kinds = {"features": student.model.config.pooling}
    kinds |= {
        f"predictions:{head.config.column}": head.config.pooling for head in student.frame_heads if head.config.pooling
    }
    return [
        {
            "where": where,
            "kind": kinds[where].kind,
            "scope": kinds[where].scope,
            "parameter": parameter,
            "start": start.tolist(),
            "end": end.tolist(),
        }
        for (where, parameter, end), (_, _, start) in zip(pooling_values(student), run.pooling_start, strict=True)
    ]
