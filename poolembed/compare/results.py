"""What a study comes to: ``study.json``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec
import torch
from msgspec import Struct

from poolembed import __version__
from poolembed.compare.contenders import BASELINE, CONTENDERS, TRIALS, Contender, Trial
from poolembed.compare.jobs import Record
from poolembed.compare.scoring import LEADING
from poolembed.compare.statistics import Estimate, estimate, paired
from poolembed.compare.study import Study
from poolembed.compare.timing import pooling_steps
from poolembed.nn.config import PoolingConfig
from poolembed.nn.model import build_pool


class LearnedRange(Struct, frozen=True):
    """Where alpha or p ended, over all channels and seeds; the mean is of the finite ones."""

    parameter: str
    start: float
    mean: float
    min: float
    max: float


class Row(Struct, frozen=True, kw_only=True):
    """How one pooling did.

    Attributes:
        name: of the contender.
        title: of it, in words.
        trial: what the search chose; {} where there was nothing to choose.
        runs: ids of the final runs.
        test: per metric.
        valid: of the metric that chose the epoch, in the validation split.
        minus_mean: per metric, paired differences from mean pooling; {} of mean pooling itself.
        parameters: of the pooling.
        all_parameters: of network and head together.
        training: seconds of a training step over those with mean pooling, seed by seed; None without mean pooling.
        pooling: the same of the pooling alone, measured by itself.
        learned: None where there is neither alpha nor p.
        search: each trial and its metric in the validation split.
        first_loss: mean training loss of the first epoch, over seeds.
        last_loss: of the last epoch.
    """

    name: str
    title: str
    trial: Trial
    runs: list[str]
    test: dict[str, Estimate]
    valid: Estimate
    minus_mean: dict[str, Estimate]
    parameters: int
    all_parameters: int
    training: float | None
    pooling: float | None
    learned: LearnedRange | None
    search: list[tuple[Trial, float]]
    first_loss: float
    last_loss: float


class Results(Struct, frozen=True, kw_only=True):
    """All of ``study.json``.

    Attributes:
        metric: the one that the study is about; a key of every row's `test`.
        metrics: all keys.
        rows: a pooling each, in the order of the contenders.
        config: of the study.
        model: architecture.
        clips: per division, numbers of training, validation and test clips.
        tests: per division, what tests.
        labels: how many there are.
        budget: what was spent on whom, in words.
        seconds: of all runs together.
        skipped: pooling -> why it was left out.
        failures: run -> why it failed.
        notes: on the data.
        finished: whether nothing is missing but what failed.
        poolembed: version.
        torch: version.
    """

    metric: str
    metrics: list[str]
    rows: list[Row]
    config: dict[str, Any]
    model: dict[str, Any]
    clips: list[dict[str, int]]
    tests: list[str]
    labels: int
    budget: str
    seconds: float
    skipped: dict[str, str]
    failures: dict[str, str]
    notes: list[str]
    finished: bool
    poolembed: str
    torch: str


def results_of(study: Study) -> Results | None:
    """Collect; None as long as no final run is done."""
    final = {name: records for name, records in study.final.items() if records}
    if not final:
        return None
    metrics = list(next(iter(final.values()))[0].test)
    leading = next(name for name in LEADING[study.config.objective] if name in metrics)
    metrics.sort(key=lambda name: name != leading)
    size = study.model.config.encoder.frame_features if study.config.pool == "features" else study.labels
    configs = [_pooling(CONTENDERS[name], records[0].trial) for name, records in final.items()]
    steps = pooling_steps(configs, (study.config.batch_size, size, study.frames))
    steps_of_mean = steps[list(final).index(BASELINE)] if BASELINE in final else None
    rows = []
    for (name, records), config, step in zip(final.items(), configs, steps, strict=True):
        baseline = [] if name == BASELINE else final.get(BASELINE, [])
        rows.append(
            Row(
                name=name,
                title=CONTENDERS[name].title,
                trial=records[0].trial,
                runs=[record.id for record in records],
                test={metric: estimate([record.test[metric] for record in records]) for metric in metrics},
                valid=estimate([record.valid[record.metric] for record in records]),
                minus_mean={
                    metric: difference
                    for metric in metrics
                    if (difference := paired(_by_seed(records, metric), _by_seed(baseline, metric))) is not None
                },
                parameters=sum(p.numel() for p in build_pool(config, size).parameters()),
                all_parameters=records[0].parameters,
                training=_relative_time(records, final.get(BASELINE, [])),
                pooling=None if steps_of_mean is None else step / steps_of_mean,
                learned=_range(records),
                search=[(record.trial, record.valid[record.metric]) for record in study.searched.get(name, [])],
                first_loss=estimate([record.losses[0] for record in records]).mean,
                last_loss=estimate([record.losses[-1] for record in records]).mean,
            )
        )
    everything = [record for records in (*study.searched.values(), *final.values()) for record in records]
    return Results(
        metric=leading,
        metrics=metrics,
        rows=rows,
        config=_without_paths(study),
        model=msgspec.to_builtins(study.model.config),
        clips=[
            {split: len(getattr(each.division, split)) for split in ("train", "valid", "test")} for each in study.splits
        ],
        tests=[each.test for each in study.splits],
        labels=study.labels,
        budget=_budget(study),
        seconds=sum(record.seconds for record in everything),
        skipped=study.skipped,
        failures=study.failures,
        notes=study.notes,
        finished=study.finished,
        poolembed=__version__,
        torch=str(torch.__version__),
    )


def _pooling(contender: Contender, trial: Trial) -> PoolingConfig:
    options = {**contender.options, **trial}
    options.pop("pooling_lr", None)
    scope = {} if contender.scope is None else {"scope": contender.scope}
    return PoolingConfig(kind=contender.kind, **scope, **options)  # type: ignore[arg-type]


def _by_seed(records: Sequence[Record], metric: str) -> dict[int, float]:
    return {record.seed: record.test[metric] for record in records}


def _relative_time(records: Sequence[Record], baseline: Sequence[Record]) -> float | None:
    speed = {record.seed: record.clips_per_second for record in baseline}
    ratios = [speed[record.seed] / record.clips_per_second for record in records if record.seed in speed]
    return median(ratios) if ratios else None


def _range(records: Sequence[Record]) -> LearnedRange | None:
    learned = [record.learned for record in records if record.learned is not None]
    if not learned:
        return None
    values = [value for each in learned for value in each.end]
    finite = [value for value in values if math.isfinite(value)]
    mean = math.fsum(finite) / len(finite) if finite else math.inf
    return LearnedRange(learned[0].parameter, learned[0].start[0], mean, min(values), max(values))


def _budget(study: Study) -> str:
    searched = sum(len(records) for records in study.searched.values())
    final = sum(len(records) for records in study.final.values())
    search = (
        f"{TRIALS} runs of one seed to search the learning rate and the start of each pooling that learns, chosen on "
        f"the validation split, {searched} in all; then "
    )
    return f"{search if searched else ''}{final} runs of {study.config.seeds} seeds, each scored once in the test split"


def _without_paths(study: Study) -> dict[str, Any]:
    settings: dict[str, Any] = msgspec.to_builtins(study.config)
    for name in ("data", "output", "model", "jobs"):  # the model stands by itself; paths tell of a machine
        del settings[name]
    return settings
