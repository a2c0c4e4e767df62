"""The files of a finished run, made up, but shaped as real ones are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.train.config import ObjectiveConfig, TrainConfig
from poolembed.train.configfile import RUN, write_config

ANIMALS = ["dog", "rooster", "rain", "waves", "fire", "baby", "sneeze", "clock", "helicopter", "chainsaw"]


def fake_run(
    directory: Path,
    *,
    labels: Sequence[str] = ANIMALS,
    multi_label: bool = False,
    epochs: int = 30,
    channels: int = 768,
    kind: str = "autopool",
    pool: str = "features",
    heads: bool = True,
    dropped: int = 3,
    clips: int = 400,
    column: str = "label",
    **config: Any,
) -> Path:
    """Write ``run.toml``, ``history.jsonl`` and ``results.json``; `pool` "predictions" has a parameter a class."""
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    metric = ("map" if multi_label else "macro_f1") if heads else "recall_at_1"
    objective = ObjectiveConfig(kind="classification" if heads else "contrastive", column=column)
    written = TrainConfig(
        **{"data": "clips", "output": "mymodel", "epochs": epochs, "objectives": (objective,), **config}
    )
    write_config(directory / RUN, written)

    parameter = {"autopool": "alpha", "gem": "p"}.get(kind)
    where = f"predictions:{column}" if pool == "predictions" else "features"
    size = len(labels) if pool == "predictions" else channels
    first = np.full(size, 3.0 if kind == "gem" else 1.0)
    last = np.maximum(first * random.lognormal(0.35, 0.6, size) - 0.3, 1.0 if kind == "gem" else 0.0)
    progress = 1 - np.exp(-np.arange(1, epochs + 1) / (epochs / 4))
    values = 0.15 + 0.72 * progress + 0.012 * random.standard_normal(epochs)
    best = int(values.argmax()) + 1
    terms = {"classification" if heads else "contrastive": 1.0}
    if len(written.objectives) > 1:
        terms = {o.kind if o.column == "label" else o.column: o.weight for o in written.objectives}
    lines = []
    for epoch, (share, value) in enumerate(zip(progress, values, strict=True), 1):
        loss = float(2.3 * np.exp(-2.1 * share) + 0.03 * random.standard_normal())
        valid = {metric: float(value)}
        if heads:
            valid = {"loss": loss + 0.15 * float(share), **valid}
            valid |= {"macro_f1" if multi_label else "accuracy": float(value) + 0.02}
        record: dict[str, Any] = {
            "epoch": epoch,
            "step": 10 * epoch,
            "lr": 1e-3 * float(1 - share) + 1e-6,
            "train": {"loss": loss, **{term: loss * (1 + i / 3) for i, term in enumerate(terms)}},
            "valid": valid,
            "metric": metric,
            "seconds": 12.3,
            "clips_per_second": 412.0,
            "waiting": 0.013,
            "pooling": [],
        }
        if parameter:
            record["pooling"].append(
                {"where": where, "parameter": parameter, **_spread(first + (last - first) * share)}
            )
        lines.append(json.dumps(record))
    (directory / "history.jsonl").write_text("".join(f"{line}\n" for line in lines))

    held_out = max(clips // 5, 2 * len(labels))
    results = {
        "metric": {"name": metric, "value": float(values[best - 1]), "epoch": best},
        "valid": {metric: float(values[best - 1])},
        "heads": {column: _head(labels, multi_label, held_out, random)} if heads else {},
        "pooling": [
            {
                "where": where,
                "kind": kind,
                "scope": "scalar" if size == 1 else "channel",
                "parameter": parameter,
                "start": first.tolist(),
                "end": last.tolist(),
            }
        ]
        if parameter
        else [],
        "data": _data(labels, column if heads else None, multi_label, clips, held_out, dropped),
        "seconds": 12.3 * epochs,
        "steps": 10 * epochs,
        "epochs": epochs,
        "clips_per_second": 412.0,
        "waiting": 0.013,
        "parameters": 2_345_678,
        "device": "cpu",
        "precision": "bf16",
        "poolembed": "0.1.0",
        "torch": "2.13.0",
    }
    (directory / "results.json").write_text(json.dumps(results))
    return directory


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    low, q10, q50, q90, high = np.quantile(values, [0, 0.1, 0.5, 0.9, 1]).tolist()
    return {"mean": float(values.mean()), "min": low, "max": high, "q10": q10, "q50": q50, "q90": q90}


def _head(labels: Sequence[str], multi_label: bool, held_out: int, random: np.random.Generator) -> dict[str, Any]:
    size = len(labels)
    per = held_out // size
    matrix = np.zeros((size, size), np.int64)
    for i in range(size):
        chances = np.full(size, 0.04 / size) + random.dirichlet(np.full(size, 0.08)) * 0.2
        chances[i] += 0.9
        matrix[i] = random.multinomial(per, chances / chances.sum())
    scores = [
        {
            "label": label,
            "clips": per if multi_label is False else int(random.integers(2, held_out // 3)),
            "precision": float(matrix[i, i] / max(matrix[:, i].sum(), 1)),
            "recall": float(matrix[i, i] / per),
            "f1": float(2 * matrix[i, i] / (per + matrix[:, i].sum())),
            "average_precision": float(np.clip(0.85 + 0.15 * random.standard_normal(), 0.1, 1)),
        }
        for i, label in enumerate(labels)
    ]
    return {
        "labels": list(labels),
        "multi_label": multi_label,
        "confusion": None if multi_label else matrix.tolist(),
        "per_class": scores,
        "most_confused": [
            {
                "key": f"{labels[i % size]}/1-{17000 + i}-A-0.wav" + ("#t=5,10" if i % 3 == 0 else ""),
                "true": [labels[i % size], *([labels[(i + 3) % size]] if multi_label else [])],
                "predicted": labels[(i + 1) % size],
                "probability": 0.99 - i / 40,
            }
            for i in range(10)
        ],
    }


def _data(
    labels: Sequence[str], column: str | None, multi_label: bool, clips: int, held_out: int, dropped: int
) -> dict[str, Any]:
    splits = {"train": clips - held_out, "valid": held_out}
    return {
        "source": "clips",
        "splits": {split: {"clips": n, "groups": n // 4, "hours": n * 5 / 3600} for split, n in splits.items()},
        "labels": {
            column: {label: {split: n // len(labels) for split, n in splits.items()} for label in sorted(labels)}
        }
        if column
        else {},
        "multi_label": {column: multi_label} if column else {},
        "dropped": {f"broken/{i}.wav": "not audio: no decoder knows it" for i in range(dropped)},
        "notes": ["columns artist, bpm are not used"],
        "clips": clips,
        "hours": clips * 5 / 3600,
    }
