"""What a finished run has to say for itself: ``results.json``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from msgspec import Meta, Struct
from numpy.typing import NDArray

from poolembed import __version__
from poolembed.errors import OutputError
from poolembed.evaluate import metrics
from poolembed.files.reading import read_regular
from poolembed.train.dataset import Dataset
from poolembed.train.module import HeadedModel
from poolembed.train.objectives.base import Outputs
from poolembed.train.objectives.classification import Classification
from poolembed.train.objectives.objectives import Objectives
from poolembed.train.trainer import Fitted, Values, pooling_values

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
        # Earlier versions said sides.
        results: dict[str, Any] = json.loads(read_regular(path, _LONGEST).replace(b'"sides": {', b'"splits": {'))
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


class _Split(Struct):
    clips: int


class _Data(Struct):
    splits: dict[str, _Split]
    dropped: dict[str, str]

    def __post_init__(self) -> None:
        if "valid" not in self.splits:
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


def results_of(
    fitted: Fitted, outputs: Outputs, objectives: Objectives, data: Dataset, pooling_start: list[Values]
) -> dict[str, Any]:
    """What ``results.json`` says of the model; metrics are those of the best epoch's averaged weights.

    Args:
        fitted: what training came to.
        outputs: of the clips held out.
        objectives: of the run.
        data: its clips.
        pooling_start: what `pooling_values` gave before training.
    """
    headed, history = fitted.headed, fitted.history
    best = history[fitted.best - 1]
    spent = sum(record.seconds for record in history)
    return {
        "metric": {"name": best.metric, "value": best.valid[best.metric], "epoch": best.epoch},
        "valid": best.valid,
        "heads": {each.head.config.column: _head(each, outputs, data) for each in objectives.classified},
        "pooling": _pooling(headed, pooling_start),
        "data": data.report.as_dict(),
        "steps": history[-1].step,
        "epochs": len(history),
        "clips_per_second": float(np.median([record.clips_per_second for record in history])),
        "waiting": sum(record.waiting * record.seconds for record in history) / max(spent, 1e-9),
        "parameters": sum(p.numel() for p in headed.parameters()),
        "poolembed": __version__,
        "torch": torch.__version__,
    }


def _head(objective: Classification, outputs: Outputs, data: Dataset) -> dict[str, Any]:
    valid = data.division.valid
    where = objective.labelled(valid)
    clips = [valid[place] for place in where]
    names, multi_label = objective.labels, objective.multi_label
    found: dict[str, Any] = {"labels": names, "multi_label": multi_label, "confusion": None, "most_confused": []}
    if not clips:
        return found | {"per_class": [asdict(metrics.ClassScores(name, 0, 0.0, None, None, None)) for name in names]}
    true, scores = objective.true(clips), objective.probabilities(outputs)[where]
    return found | {
        "confusion": None if multi_label else metrics.confusion(true, scores).tolist(),
        "per_class": [asdict(each) for each in metrics.per_class(true, scores, names)],
        "most_confused": _most_confused(objective, data, clips, scores),
    }


def _most_confused(
    objective: Classification, data: Dataset, clips: list[int], scores: NDArray[np.float64]
) -> list[dict[str, Any]]:
    """The clips whose likeliest wrong label is most above their least likely true one."""
    hot = objective.targets[clips] > 0
    wrong = np.where(hot, -np.inf, scores)
    margin = wrong.max(1) - np.where(hot, scores, np.inf).min(1)
    return [
        {
            "key": data.labelled.clips[clips[place]].key,
            "true": [name for name, there in zip(objective.labels, hot[place], strict=True) if there],
            "predicted": objective.labels[int(wrong[place].argmax())],
            "probability": float(wrong[place].max()),
        }
        for place in np.argsort(-margin, kind="stable")[:CONFUSED].tolist()
        if margin[place] > 0
    ]


def _pooling(headed: HeadedModel, pooling_start: list[Values]) -> list[dict[str, Any]]:
    """Where each alpha and p started and went."""
    kinds = {"features": headed.model.config.pooling}
    kinds |= {
        f"predictions:{head.config.column}": head.config.pooling for head in headed.frame_heads if head.config.pooling
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
        for (where, parameter, end), (_, _, start) in zip(pooling_values(headed), pooling_start, strict=True)
    ]
