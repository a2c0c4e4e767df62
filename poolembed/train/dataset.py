"""The clips of a run: read, decoded and divided."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from pathlib import Path

from poolembed.embed.device import usable_cores
from poolembed.errors import LabelsError
from poolembed.labels import DataReport, Division, Labelled, divide, read_labels, report_data
from poolembed.labels.clips import missing_labels
from poolembed.nn.model import SongModel
from poolembed.progress import Progress, counted
from poolembed.train.cache import Filled, MelCache
from poolembed.train.config import TrainConfig
from poolembed.train.processes import Processes

LABELLED = ("classification", "supcon")
"""Kinds of objectives that read a label column."""


@dataclass
class Dataset:
    """The clips of a run, decoded and divided.

    Attributes:
        labelled: the table, without clips that cannot be used.
        cache: log-mels.
        rows: cache row of each clip.
        division: train, valid and test, as numbers of clips.
        report: what a person sees of it.
    """

    labelled: Labelled
    cache: MelCache
    rows: list[int]
    division: Division
    report: DataReport

    @property
    def identity(self) -> str:
        """Hash of all that a run takes from its data; a run that resumes needs the same."""
        clips = [[clip.key, {c: list(v) for c, v in clip.labels.items()}] for clip in self.labelled.clips]
        content = [self.cache.content(row) for row in self.rows]
        splits = [self.division.train, self.division.valid]
        return hashlib.sha256(json.dumps([clips, content, splits]).encode()).hexdigest()


def columns_of(config: TrainConfig) -> list[str]:
    """The label columns that the objectives read."""
    return list(dict.fromkeys(o.column for o in config.objectives if o.kind in LABELLED))


def load_dataset(
    config: TrainConfig,
    network: SongModel,
    progress: Progress,
    where: Processes,
    stop: threading.Event | None = None,
) -> Dataset | None:
    """Read, decode and divide the clips of a run; None if told to stop before that was done.

    Raises:
        LabelsError: the table or folder cannot be used, or none of its clips can.
        OutputError: the cache cannot be written.
    """
    columns = columns_of(config)
    # Clips without a label are for the objectives that need none.
    all_labelled = all(objective.kind in LABELLED for objective in config.objectives)
    labelled = read_labels(config.data, columns=columns, need_labels=all_labelled)
    for column in columns:
        if problem := missing_labels(labelled.clips, column):
            raise LabelsError(f"{config.data}: {problem}", hint="it takes two labels at least to learn any")
    context = network.config.encoder.context
    cache = MelCache(config.cache or Path(config.output) / "cache", network.frontend, before=context)

    def fill() -> Filled:
        workers = config.workers or usable_cores()
        watch = counted(progress, "decoding", "clips")
        return cache.fill(labelled.clips, workers=workers, limit_gb=config.cache_limit, watch=watch, stop=stop)

    filled = where.first_then_others(fill)
    if stop is not None and stop.is_set():
        return None
    if labelled.clips and len(filled.failed) == len(labelled.clips):
        key, reason = next(iter(filled.failed.items()))
        raise LabelsError(f"none of the {len(filled.failed)} clips of {config.data} can be decoded: {key}: {reason}")
    usable = [index for index, row in enumerate(filled.rows) if row is not None]
    labelled = labelled.without(filled.failed)
    division = divide(
        labelled.clips,
        [filled.content[index] for index in usable],
        valid=config.valid,
        seed=config.seed,
        column=columns[0] if columns else None,
        valid_fold=config.valid_fold,
    )
    report = report_data(labelled, division, [filled.seconds[index] for index in usable])
    report.notes.extend(f"{key}: {note}" for key, note in filled.notes.items())
    return Dataset(labelled, cache, [row for row in filled.rows if row is not None], division, report)
