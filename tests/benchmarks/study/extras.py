"""What the study asks of soundscapes beside the clip-level score: lengths, levels, ten times the length, and when.

Every final model of a study is scored on the same test soundscapes by the library's own functions, at whole length.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from poolembed.bundle import load_bundle
from poolembed.compare.command import read_results
from poolembed.compare.jobs import MODELS
from poolembed.compare.results import Results
from poolembed.compare.scoring import Scored, scored, true_labels
from poolembed.compare.statistics import Estimate, estimate, paired
from poolembed.embed.device import choose_precision
from poolembed.evaluate import metrics
from poolembed.nn.head import FrameHead
from poolembed.train.cache import MelCache, dequantise
from poolembed.train.config import TrainConfig
from poolembed.train.configfile import RUN, read_config
from poolembed.train.module import HeadedModel
from poolembed.train.sampling import Crops

LENGTHS = ((10.0, 20.0), (20.0, 35.0), (35.0, 60.01))
EXTRAS = "extras"


@dataclass(frozen=True)
class Scene:
    """One row of a soundscape table, and its events as ``[onset, offset, label]``."""

    path: str
    seconds: float
    ratio: float
    events: list[tuple[float, float, str]]


def scenes(folder: Path, table: str) -> dict[str, Scene]:
    """Soundscapes of a table, by path as the table spells it."""
    with (folder / "strong.jsonl").open(encoding="utf-8") as file:
        strong = {each["path"]: [tuple(event) for event in each["events"]] for each in map(json.loads, file)}
    with (folder / table).open(newline="", encoding="utf-8") as file:
        return {
            row["path"]: Scene(row["path"], float(row["seconds"]), float(row["ebr"]), strong[row["path"]])
            for row in csv.DictReader(file)
        }


def score_all(study: Path, data: Path, jobs: int) -> dict[str, dict[str, Any]]:
    """Extra scores of every final model of a study, by run; those that an earlier call made are read."""
    results = read_results(study / "study.json")
    runs = [run for row in results.rows for run in row.runs]
    todo = [(study, data, run) for run in runs if not _file(study, run).exists()]
    if todo:
        write_tables(data)
        (study / EXTRAS).mkdir(exist_ok=True)
        _score(todo[0])  # alone: the first one fills the cache
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            for _ in pool.imap_unordered(_score, todo[1:]):
                pass
    return {run: json.loads(_file(study, run).read_text()) for run in runs}


def write_tables(data: Path) -> None:
    """The test rows of ``labels.csv`` as a table of their own."""
    with (data / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (data / "test.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row for row in rows if row["split"] == "test")


def _file(study: Path, run: str) -> Path:
    return study / EXTRAS / f"{run}.json"


def _score(task: tuple[Path, Path, str]) -> None:
    study, data, run = task
    torch.set_num_threads(1)
    model = study / MODELS / run
    config = msgspec.structs.replace(read_config(model / RUN), cache=str(study / "cache"))
    short, long = (scored(model, str(data / table), config) for table in ("test.csv", "long.csv"))
    found = clip_scores(short, long, scenes(data, "test.csv"))
    if config.pool == "predictions":
        found |= frame_scores(model, config, short, scenes(data, "test.csv"))
    partial = _file(study, run).with_suffix(".part")
    partial.write_text(json.dumps(found), encoding="utf-8")
    partial.replace(_file(study, run))


def clip_scores(short: Scored, long: Scored, about: dict[str, Scene]) -> dict[str, float]:
    """Mean average precision and macro-F1 by length and level, and at ten times the length.

    Args:
        short: the test soundscapes.
        long: some of them again, ten times as long.
        about: the test soundscapes.
    """
    found: dict[str, float] = {}

    def add(name: str, of: Scored, keep: Callable[[str], bool]) -> None:
        assert of.head is not None
        assert of.probabilities is not None
        where = [place for place, clip in enumerate(of.labelled.clips) if keep(clip.key)]
        true, probabilities = true_labels(of.labelled, of.head)[where], of.probabilities[where]
        found[f"map, {name}"] = metrics.mean_average_precision(true, probabilities)
        found[f"macro_f1, {name}"] = metrics.macro_f1(true, probabilities)

    for low, high in LENGTHS:
        add(f"{low:.0f} to {high:.0f} s", short, lambda key: low <= about[key].seconds < high)  # noqa: B023
    for ratio in sorted({scene.ratio for scene in about.values()}):
        add(f"{ratio:.0f} dB", short, lambda key: about[key].ratio == ratio)  # noqa: B023
    again = {clip.key.replace("long/", "test/") for clip in long.labelled.clips}
    add("as trained", short, lambda key: key in again)
    add("10 x as long", long, lambda key: True)
    return found


@torch.no_grad()
def frame_scores(model: Path, config: TrainConfig, short: Scored, about: dict[str, Scene]) -> dict[str, float]:
    """How well single frames tell which events sound in them: macro-F1 at 0.5 and mean average precision."""
    bundle = load_bundle(model)
    head = next(head for head in bundle.heads if isinstance(head, FrameHead))
    headed = HeadedModel(bundle.network, [head], choose_precision(config.precision, torch.device("cpu"))).eval()
    context = bundle.network.config.encoder.context
    cache = MelCache(str(config.cache), bundle.network.frontend, before=context)
    clips = short.labelled.clips
    filled = cache.fill(clips, workers=1, limit_gb=config.cache_limit, watch=lambda done, total: None)
    encoder, frontend = bundle.network.config.encoder, bundle.network.config.frontend
    crops = Crops.of(cache, filled.rows, encoder)
    hop = encoder.time_reduction * frontend.hop_length / frontend.sample_rate
    true, probabilities = [], []
    for number, clip in enumerate(clips):
        parts = []
        for batch in crops.whole([number], 32):
            features = headed.features(dequantise(batch.mel, cache.log_floor), batch.frames)[0]
            of_frames = head.frame_probabilities(features)
            counts = -(-batch.frames // encoder.time_reduction)
            parts += [each[:, :count] for each, count in zip(of_frames, counts.tolist(), strict=True)]
        joined = torch.cat(parts, 1).T.double().numpy()
        probabilities.append(joined)
        true.append(sounding(about[clip.key], len(joined), hop, head.config.labels))
    every, scores = np.concatenate(true), np.concatenate(probabilities)
    return {
        "frames: macro_f1": metrics.macro_f1(every, scores),
        "frames: map": metrics.mean_average_precision(every, scores),
    }


def sounding(scene: Scene, frames: int, hop: float, labels: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which labels sound, ``(frames, K)``: in a frame of `hop` seconds counts what sounds in its middle."""
    middle = (np.arange(frames) + 0.5) * hop
    there = np.zeros((frames, len(labels)), bool)
    for onset, offset, label in scene.events:
        there[(middle >= onset) & (middle < offset), labels.index(label)] = True
    return there


def summary(results: Results, scores: dict[str, dict[str, Any]]) -> dict[str, dict[str, tuple[Estimate, Any]]]:
    """Per pooling and score: mean over seeds, and the paired difference from mean pooling (None of itself)."""
    by_seed = {
        row.name: {int(re.findall(r"-seed(\d+)-", run)[-1]): scores[run] for run in row.runs} for row in results.rows
    }
    out: dict[str, dict[str, tuple[Estimate, Any]]] = {}
    for name, seeds in by_seed.items():
        out[name] = {}
        for key in next(iter(seeds.values())):
            values = {seed: each[key] for seed, each in seeds.items()}
            base = {seed: each[key] for seed, each in by_seed.get("mean", {}).items()}
            difference = None if name == "mean" else paired(values, base)
            out[name][key] = (estimate(list(values.values())), difference)
        drop = [each["map, 10 x as long"] - each["map, as trained"] for each in seeds.values()]
        out[name]["map, lost by length"] = (estimate(drop), None)
    return out
