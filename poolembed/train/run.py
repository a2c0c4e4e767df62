"""A whole run: clips read and decoded, a model trained on them, and a bundle with its report written."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from poolembed import bundle, catalog
from poolembed.embed.device import DTYPES, choose_device, choose_precision
from poolembed.errors import PoolembedError, UsageError
from poolembed.files.writing import replacing, writing
from poolembed.labels import DataReport
from poolembed.nn.model import SongModel
from poolembed.progress import Progress, counted, silent
from poolembed.train import checkpoint
from poolembed.train.card import card
from poolembed.train.config import TrainConfig
from poolembed.train.configfile import RUN, write_config
from poolembed.train.dataset import Dataset, load_dataset
from poolembed.train.directory import Recording, opened
from poolembed.train.features import FeatureCache
from poolembed.train.loading import Loader, WholeClips
from poolembed.train.module import HeadedModel, TrainingModule
from poolembed.train.objectives.objectives import Objectives
from poolembed.train.optim import pooling_factor
from poolembed.train.processes import Processes, processes
from poolembed.train.report import write_report
from poolembed.train.results import RESULTS, read_results, results_of
from poolembed.train.sampling import Crops, Sampler, crop_windows
from poolembed.train.start import SCRATCH, set_band_statistics, start_model
from poolembed.train.trainer import EpochRecord, Fitted, Plan, fit, pooling_values


@dataclass(frozen=True)
class Trained:
    """What came of a run.

    Attributes:
        output: its directory.
        results: what ``results.json`` holds; {} if it was interrupted.
        lost: clips whose audio is not there or cannot be decoded, by key, and why.
        finished: whether there is a bundle now; otherwise ``resume`` goes on.
        already: an earlier run had finished it, and nothing was trained.
    """

    output: Path
    results: dict[str, Any]
    lost: dict[str, str]
    finished: bool
    already: bool = False


def train(
    config: TrainConfig,
    progress: Progress = silent,
    *,
    on_event: Callable[[DataReport | Plan | EpochRecord], None] = lambda event: None,
    resume: bool = False,
    overwrite: bool = False,
    report: bool = True,
    stop: threading.Event | None = None,
) -> Trained:
    """Train a model and write it, as an ordinary bundle with a report, to ``config.output``.

    Args:
        config: all there is to say.
        progress: told how far it is.
        on_event: told of the data, then of the plan, then of every epoch.
        resume: go on from the checkpoint in the output directory, with the configuration that is there.
        overwrite: replace what an earlier run left there.
        report: also draw ``report.html``, which takes longer than some runs of a study.
        stop: once set, the step in hand is finished and a checkpoint written.

    Raises:
        LabelsError: the table or folder cannot be used, or none of its clips can.
        UsageError: options that do not go together.
        OutputError: the directory holds another run, is in use, or cannot be written.
        TrainingError: the loss is no number.
    """
    output = Path(config.output)
    began = time.perf_counter()
    with ExitStack() as close:
        where = close.enter_context(processes(choose_device(config.device)))
        if where.first:
            close.enter_context(opened(config, resume=resume, overwrite=overwrite))
        where.wait()
        if (output / catalog.CONFIG).exists():
            return Trained(output, read_results(output / RESULTS), {}, finished=True, already=True)
        if where.first:
            write_config(output / RUN, config)
            on_event = Recording(on_event, output)
        else:  # the first process speaks for all
            progress, on_event = silent, lambda event: None
        try:
            network = start_model(config)
            data = load_dataset(config, network, progress, where, stop)
            if data is None:
                return Trained(output, {}, {}, finished=False)
            on_event(data.report)
            run = Run(config, network, data, where)
        except PoolembedError:
            if not resume:  # nothing began that could be resumed: the same command may be given again
                (output / RUN).unlink(missing_ok=True)
            raise
        lost = {key: data.labelled.dropped[key] for key in sorted(data.labelled.lost)}
        resumed = resume and (output / checkpoint.NAME).exists()
        fitted = run.fit(progress, on_event, directory=output, resume=resumed, stop=stop)
        if fitted is None or not fitted.finished:
            return Trained(output, {}, lost, finished=False)
        results = {}
        if where.first:
            outputs = run.whole_clips().outputs(fitted.headed, data.division.valid)
            results = results_of(fitted, outputs, run.objectives, data, run.pooling_start) | {
                "seconds": time.perf_counter() - began,
                "device": where.device.type,
                "precision": next(name for name, dtype in DTYPES.items() if dtype == run.precision),
            }
            _write(output, config, fitted.headed, data, results, report)
        where.wait()
        return Trained(output, results, lost, finished=True)


class Run:
    """A model, its objectives and its clips; `fit` trains it.

    Args:
        config: of the run.
        network: from `start_model`.
        data: from `load_dataset`.
        where: the processes that train together.
    """

    def __init__(self, config: TrainConfig, network: SongModel, data: Dataset, where: Processes) -> None:
        self.config, self.data, self.where = config, data, where
        if config.init == SCRATCH:
            set_band_statistics(network, data.cache, [data.rows[index] for index in data.division.train])
        # Again, whatever was drawn for the model: runs that differ in their pooling alone have the same heads.
        torch.manual_seed(config.seed)
        self.objectives = Objectives(config, data, network.config)
        self.precision = choose_precision(config.precision, where.device)
        headed = HeadedModel(network, [each.head for each in self.objectives.classified], self.precision)
        self.pooling_start = [(where, name, values.clone()) for where, name, values in pooling_values(headed)]
        self.module = TrainingModule(headed, self.objectives.all, frozen=config.freeze == "encoder").to(where.device)
        frontend = network.config.frontend
        shift = math.floor(config.augment.shift * frontend.sample_rate / frontend.hop_length + 1e-6)
        self.source: Crops | FeatureCache = Crops.of(data.cache, data.rows, network.config.encoder, shift=shift)

    @property
    def windows(self) -> int:
        """Windows of a training crop."""
        longest = max(self.data.cache.frames(self.data.rows[index]) for index in self.data.division.train)
        return crop_windows(self.module.headed.model.config, self.config.seconds, longest)

    def fit(
        self,
        progress: Progress,
        on_event: Callable[[Plan | EpochRecord], None],
        *,
        directory: Path | None = None,
        resume: bool = False,
        stop: threading.Event | None = None,
    ) -> Fitted | None:
        """Train; None if told to stop before the first step.

        Args:
            progress: told how far it is.
            on_event: told of the plan and of every epoch.
            directory: where checkpoints go; None for none.
            resume: go on from the checkpoint there.
            stop: once set, the step in hand is finished.
        """
        if self.module.frozen and not self.encode(progress, stop):
            return None
        whole_clips, valid = self.whole_clips(), self.data.division.valid
        pooled = self.module.headed.frame_heads
        pooling = pooled[0].config.pooling if pooled else self.module.headed.model.config.pooling
        assert pooling is not None

        def validate(headed: HeadedModel) -> dict[str, float]:
            outputs = whole_clips.outputs(headed, valid)
            return self.objectives.validate(outputs, lambda: whole_clips.halves(headed, valid))

        return fit(
            self.module,
            self.loader(),
            validate,
            self.config,
            names=self.objectives.parts,
            metric=self.objectives.metric,
            pooling_lr=pooling_factor(pooling, self.config.pooling_lr),
            identity=self.data.identity,
            progress=progress,
            on_event=on_event,
            processes=self.where,
            directory=directory,
            resume=resume,
            stop=stop,
        )

    def loader(self) -> Loader:
        """The batches of its steps."""
        config, data = self.config, self.data
        if config.batch_size % self.where.count:
            raise UsageError(
                f"batches of {config.batch_size} clips cannot be dealt out evenly to {self.where.count} processes",
                hint="choose a multiple with --batch-size",
            )
        partner = self.objectives.partner_column
        clips = data.labelled.clips
        sampler = Sampler(
            data.division.train,
            batch_size=config.batch_size,
            seed=config.seed,
            views=max(objective.views for objective in self.objectives.all),
            partners=[clips[index].labels[partner] for index in data.division.train] if partner else None,
            rank=self.where.rank,
            ranks=self.where.count,
        )
        return Loader(
            self.source,
            sampler,
            windows=self.windows,
            config=config.augment,
            device=self.where.device,
            frontend=self.module.headed.model.frontend,
            rank=self.where.rank,
        )

    def whole_clips(self) -> WholeClips:
        """Runs the network over whole clips."""
        return WholeClips(self.source, device=self.where.device, log_floor=self.data.cache.log_floor)

    def encode(self, progress: Progress, stop: threading.Event | None) -> bool:
        """Store the features of a frozen encoder, once; False if told to stop before that was done."""
        network, cache = self.module.headed.model, self.data.cache
        features = FeatureCache(cache.directory, network, cache, self.data.rows, dtype=self.precision)
        self.source = features

        def fill() -> bool:
            watch = counted(progress, "encoding", "windows")
            return features.fill(limit_gb=self.config.cache_limit, watch=watch, stop=stop)

        return self.where.first_then_others(fill)


def _write(
    output: Path, config: TrainConfig, headed: HeadedModel, data: Dataset, results: dict[str, Any], report: bool
) -> None:
    """Everything that a finished run leaves; the bundle's ``config.json`` last."""
    with writing(output / RESULTS, f"--resume {output} goes on"), replacing(output / RESULTS, output) as part:
        part.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if report:
        write_report(output)
    name = output.resolve().name
    headed = headed.to("cpu").eval()
    bundle.save_bundle(
        output,
        headed.model,
        name=name,
        license="NOASSERTION",
        card=card(name, config, data.report, results),
        heads=[*headed.embedding_heads, *headed.frame_heads],
        nested=config.nested,
    )
    with writing(output):
        (output / checkpoint.NAME).unlink(missing_ok=True)
