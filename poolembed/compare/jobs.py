"""One run of a study: trained by `poolembed.train`, scored in the test split, and written down."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from poolembed.compare.contenders import Trial
from poolembed.compare.scoring import score, scored
from poolembed.files.reading import read_regular
from poolembed.files.writing import replacing, writing
from poolembed.train.config import TrainConfig
from poolembed.train.run import train
from poolembed.train.trainer import EpochRecord

RUNS, MODELS, WORK = "runs", "models", "work"
"""Folders of a study's directory: what is written down of each run, the models of final runs, runs in the making."""


class Job(Struct, frozen=True, kw_only=True):
    """What a worker is given.

    Attributes:
        id: names pooling and seed, and all else that the result depends on by a hash.
        directory: of the study.
        pooling: name of the contender.
        trial: what the search tries or has chosen.
        seed: of the run.
        test: table of the clips to score on, and the model is kept; None in the search, which must not see them.
        config: of the run.
    """

    id: str
    directory: str
    pooling: str
    trial: Trial
    seed: int
    test: str | None
    config: TrainConfig

    @property
    def record(self) -> Path:
        """Where the result is written; it is there exactly if the run is done."""
        return Path(self.directory) / RUNS / f"{self.id}.json"

    @property
    def model(self) -> Path:
        """Where the model of a final run is kept."""
        return Path(self.directory) / MODELS / self.id


class Learned(Struct, frozen=True):
    """A pooling's parameter: which, and its values at the start and in the end, one or one per channel."""

    parameter: str
    start: list[float]
    end: list[float]


class Record(Struct, frozen=True, kw_only=True):
    """What is written down of a run.

    Attributes:
        id: of its job.
        pooling: name of the contender.
        trial: what the search tried or chose.
        seed: of the run.
        valid: metrics of the best epoch in the validation split.
        metric: the one of `valid` that chose the epoch.
        test: metrics in the test split; {} in the search.
        losses: mean training loss of each epoch.
        curve: the metric in the validation split, of each epoch.
        learned: alpha or p, if the pooling has one.
        parameters: of the network and its head.
        clips_per_second: in training steps, the median over epochs.
        seconds: the whole run.
    """

    id: str
    pooling: str
    trial: Trial
    seed: int
    valid: dict[str, float]
    metric: str
    test: dict[str, float]
    losses: list[float]
    curve: list[float]
    learned: Learned | None
    parameters: int
    clips_per_second: float
    seconds: float


Result = Record | str
"""What became of a run: its record, or why it failed."""


def perform(job: Job) -> Record:
    """Train, score, write the record; a run that was cut off before starts again.

    Raises:
        PoolembedError: the run failed; nothing is written.
    """
    output = Path(job.config.output)
    events: list[object] = []
    results = train(job.config, on_event=events.append, overwrite=True, report=False).results
    epochs = [event for event in events if isinstance(event, EpochRecord)]
    record = Record(
        id=job.id,
        pooling=job.pooling,
        trial=job.trial,
        seed=job.seed,
        valid=results["valid"],
        metric=results["metric"]["name"],
        test={} if job.test is None else score(scored(output, job.test, job.config), job.config),
        losses=[epoch.train["loss"] for epoch in epochs],
        curve=[epoch.valid[epoch.metric] for epoch in epochs],
        learned=_learned(results, job.config.pool),
        parameters=results["parameters"],
        clips_per_second=results["clips_per_second"],
        seconds=results["seconds"],
    )
    with writing(job.record):
        if job.test is None:
            shutil.rmtree(output)
        else:
            shutil.rmtree(job.model, ignore_errors=True)
            job.model.parent.mkdir(exist_ok=True)
            output.rename(job.model)
        job.record.parent.mkdir(exist_ok=True)
        with replacing(job.record, job.record.parent) as part:
            part.write_bytes(msgspec.json.encode(record))
    return record


def read_record(job: Job) -> Record | None:
    """What an earlier study wrote down of this run; None if it did not come to that, or not to the end."""
    try:
        return msgspec.json.decode(read_regular(job.record), type=Record)
    except (OSError, ValueError, RecursionError):
        return None


def _learned(results: dict[str, Any], pool: str) -> Learned | None:
    for each in results["pooling"]:
        if each["where"].startswith(pool):
            return Learned(each["parameter"], each["start"], each["end"])
    return None
