"""A whole study: data prepared once, a search for each pooling, final runs of all seeds, and what came of it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from poolembed.bundle import load_bundle
from poolembed.catalog import described
from poolembed.compare.config import StudyConfig, small_model
from poolembed.compare.contenders import CONTENDERS, Contender, Trial
from poolembed.compare.jobs import WORK, Job, Record, Result, perform, read_record
from poolembed.compare.splits import StudySplit, divide_for_study, identity, write_tables
from poolembed.compare.workers import run_all
from poolembed.embed.device import usable_cores
from poolembed.errors import LabelsError, UsageError
from poolembed.files.claims import claimed
from poolembed.labels import read_labels
from poolembed.nn.model import SongModel
from poolembed.progress import Progress, counted, silent
from poolembed.text import printable
from poolembed.train.cache import MelCache
from poolembed.train.config import ObjectiveConfig, TrainConfig
from poolembed.train.dataset import columns_of
from poolembed.train.sampling import crop_windows
from poolembed.train.start import SCRATCH, start_model

VERSION = 2
"""Of what a run's result depends on; raised, all runs are done again."""

CACHE, TABLES = "cache", "tables"


@dataclass
class Study:
    """All that a study has to show.

    Attributes:
        config: of it.
        model: the architecture.
        splits: the divisions that seeds took in turn.
        labels: how many labels there are.
        frames: frame features of a training crop.
        searched: per pooling, the records of its trials.
        final: per pooling, the records of its seeds.
        failures: run -> why it failed.
        skipped: pooling -> why it was left out.
        notes: on the data.
        finished: every run is done or has failed.
    """

    config: StudyConfig
    model: SongModel
    splits: list[StudySplit]
    labels: int
    frames: int
    searched: dict[str, list[Record]] = field(default_factory=dict)
    final: dict[str, list[Record]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    finished: bool = False


def run_study(config: StudyConfig, progress: Progress = silent, *, stop: threading.Event | None = None) -> Study | None:
    """Do every run that is not done yet, and collect all; None if told to stop before the first.

    Each pooling with something to learn is trained once, on seed 0, for each of its trials, and takes the options that
    did best in the validation split. Then each is trained once per seed, from 1, and scored in the test split. Runs of
    one seed start from the same encoder and see the same batches, whatever the pooling.

    Args:
        config: of the study.
        progress: told how far it is.
        stop: once set, no further run is started.

    Raises:
        UsageError: options that mean nothing.
        LabelsError: the table cannot be used, or not be divided into three splits.
        OutputError: the directory is in use, or cannot be written.
    """
    stop = stop or threading.Event()
    contenders, skipped = _contenders(config)
    with claimed(Path(config.output) / ".study.lock", f"another study is running in {config.output}"):
        plan = StudyPlan.make(config, progress, stop)
        if plan is None:
            return None
        study = plan.study
        study.skipped = skipped
        trials = {c.name: [plan.job(c, trial, 0) for trial in c.trials] for c in contenders if c.searched}
        finals = {c.name: [plan.job(c, c.trials[0], seed) for seed in plan.seeds] for c in contenders if not c.searched}
        count = sum(map(len, trials.values())) + len(contenders) * config.seeds
        # Which final runs a search leads to is not known yet, so those done before are counted as they come up.
        known = [job for jobs in (trials | finals).values() for job in jobs]
        done = sum(read_record(job) is not None for job in known)
        already = f", {done} of them done by an earlier call" if done else ""
        progress("training", done, count, f"{count} runs{already}")

        def tell(job: Job, result: Result) -> None:
            nonlocal done
            done += 1
            progress("training", done, count, f"{done}/{count} runs, {job.id}: {_outcome(result)}")

        records = plan.do([job for jobs in trials.values() for job in jobs], tell, stop, announce=False)
        for contender in contenders:
            if not contender.searched:
                continue
            found = [records[job.id] for job in trials[contender.name] if job.id in records]
            study.searched[contender.name] = found
            if len(found) + sum(job.id in study.failures for job in trials[contender.name]) == len(contender.trials):
                if found:
                    chosen = best_trial(found)
                    finals[contender.name] = [plan.job(contender, chosen, seed) for seed in plan.seeds]
                else:
                    study.skipped[contender.name] = "every run of its search failed"
        # Seed by seed, so that what a study shows before it is done is of all poolings alike.
        order = [job for seed in zip(*finals.values(), strict=True) for job in seed]
        records = plan.do(order, tell, stop, announce=True)
        for contender in contenders:
            jobs = finals.get(contender.name, [])
            study.final[contender.name] = [records[job.id] for job in jobs if job.id in records]
        study.finished = not stop.is_set()
        return study


def best_trial(records: Sequence[Record]) -> Trial:
    """What did best in the validation split; of equals the first."""
    return max(records, key=lambda record: record.valid[record.metric]).trial


@dataclass
class StudyPlan:
    """What jobs are made of."""

    study: Study
    base: TrainConfig
    tables: list[tuple[str, str]]
    identities: list[str]

    @classmethod
    def make(cls, config: StudyConfig, progress: Progress, stop: threading.Event) -> StudyPlan | None:
        """Read, decode and divide the clips; None if told to stop before that was done."""
        output = Path(config.output)
        base = TrainConfig(
            data="",
            output=str(output),
            init=config.init,
            model=(config.model or small_model()) if config.init == SCRATCH else None,
            freeze=config.freeze,
            pool=config.pool,
            objectives=(ObjectiveConfig(kind=config.objective, column=config.column),),
            seconds=config.seconds,
            epochs=config.epochs,
            batch_size=config.batch_size,
            lr=config.lr,
            patience=0,  # all train for equally long
            workers=1,
            cache=str(output / CACHE),
        )
        model = start_model(base)
        columns = columns_of(base)
        column = columns[0] if columns else None
        labelled = read_labels(config.data, columns=columns, need_labels=bool(columns))
        cache = MelCache(output / CACHE, model.frontend, before=model.config.encoder.context)
        watch = counted(progress, "decoding", "clips")
        filled = cache.fill(labelled.clips, workers=usable_cores(), limit_gb=base.cache_limit, watch=watch, stop=stop)
        if stop.is_set():
            return None
        if labelled.clips and len(filled.failed) == len(labelled.clips):
            key, reason = next(iter(filled.failed.items()))
            raise LabelsError(
                f"none of the {len(filled.failed)} clips of {config.data} can be decoded: {key}: {reason}"
            )
        content = [each for each, row in zip(filled.content, filled.rows, strict=True) if row is not None]
        labelled = labelled.without(filled.failed)
        splits = divide_for_study(labelled, content, column)
        tables = [write_tables(output / TABLES, each, labelled, column) for each in splits]
        start = "" if config.init == SCRATCH else load_bundle(config.init).fingerprint
        identities = [start + identity(each, labelled, content, column) for each in splits]
        labels = {label for clip in labelled.clips for label in clip.labels[column]} if column else set()
        encoder, longest = model.config.encoder, max(cache.frames(row) for row in filled.rows if row is not None)
        windows = crop_windows(model.config, config.seconds, longest)
        frames = windows * encoder.window_frames // encoder.time_reduction
        study = Study(config, model, splits, len(labels), frames)
        study.notes += labelled.notes + [f"{key} is left out: {reason}" for key, reason in labelled.dropped.items()]
        study.notes += splits[0].division.notes
        return cls(study, base, tables, identities)

    @property
    def seeds(self) -> list[int]:
        """Of the final runs; seed 0 is the search's."""
        return list(range(1, self.study.config.seeds + 1))

    def job(self, contender: Contender, trial: Trial, seed: int) -> Job:
        """One run; the search's if the seed is 0."""
        place = (seed - 1) % len(self.tables) if seed else 0
        learn, test = self.tables[place]
        config = msgspec.structs.replace(self.base, seed=seed, **contender.settings(trial))
        parts = {**msgspec.to_builtins(config), "init": self.base.init == SCRATCH}
        # Where things are, and what studies never set: run ids of studies that were begun before it came still hold.
        for name in ("data", "output", "cache", "cache_limit", "workers", "nested"):
            del parts[name]
        del parts["augment"]["shift"], parts["augment"]["noise"]
        if config.model is not None:
            parts["model"] = described(config.model)
        whole = msgspec.json.encode([VERSION, seed > 0, parts, self.identities[place]], order="sorted")
        id = f"{contender.name}-seed{seed}-{hashlib.sha256(whole).hexdigest()[:10]}"
        output = Path(self.study.config.output)
        return Job(
            id=id,
            directory=str(output),
            pooling=contender.name,
            trial=trial,
            seed=seed,
            test=test if seed else None,
            config=msgspec.structs.replace(config, data=learn, output=str(output / WORK / id)),
        )

    def do(
        self, jobs: Sequence[Job], tell: Callable[[Job, Result], None], stop: threading.Event, *, announce: bool
    ) -> dict[str, Record]:
        """Records of jobs, read or made; what fails is noted in the study.

        Args:
            jobs: to do.
            tell: called with each that is done.
            stop: see `run_all`.
            announce: also of those of searched poolings that were done before.
        """
        records: dict[str, Record] = {}
        left = []
        for job in jobs:
            record = read_record(job)
            if record is None:
                left.append(job)
                continue
            records[job.id] = record
            if announce and CONTENDERS[job.pooling].searched:
                tell(job, record)

        def done(job: Job, result: Result) -> None:
            if isinstance(result, str):
                self.study.failures[job.id] = result
            else:
                records[job.id] = result
            tell(job, result)

        run_all(left, perform, min(self.study.config.jobs or usable_cores(), max(len(left), 1)), done, stop)
        return records


def _outcome(result: Result) -> str:
    if isinstance(result, str):
        return f"failed: {printable(result)}"
    return f"{result.metric} {result.valid[result.metric]:.3f} on the clips held out"


def _contenders(config: StudyConfig) -> tuple[list[Contender], dict[str, str]]:
    """Those that take part, and why others that were asked for cannot."""
    unknown = [name for name in config.poolings if name not in CONTENDERS]
    if unknown or not config.poolings:
        raise UsageError(
            f"no such pooling: {', '.join(unknown)}" if unknown else "no pooling to compare",
            hint=f"the poolings are: {', '.join(CONTENDERS)}",
        )
    if config.pool == "predictions" and config.objective != "classification":
        raise UsageError(f"the objective {config.objective} has no predictions to pool", hint="use --pool features")
    asked = [contender for name, contender in CONTENDERS.items() if name in config.poolings]
    skipped = {}
    if config.pool == "predictions":
        skipped = {c.name: "it gives two numbers per class, which are no probability" for c in asked if c.outputs > 1}
    return [contender for contender in asked if contender.name not in skipped], skipped
