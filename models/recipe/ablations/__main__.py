"""What each part of the recipe is worth: ``python -m models.recipe.ablations CORPUS WORK DEV...``.

Many short runs of one configuration by ``poolembed train``, each with one thing left out or changed
(`variants.py` lists them), on the same small share of the corpus, scored on the DEV tables (by their column
``fold``) and on clips of held-out packages. The result is ``models/recipe/ablations.md`` and ``.json``.

WORK keeps what came of every run under a name that stands for all that it depends on. What is done is not done again,
and a run that was cut off goes on from its checkpoint. Ctrl-C ends after the runs in hand; the same command goes on.
``--only`` runs some (``loss-supcon``, or ``pooling`` for all of these); the page has all that are done.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import structs

from models.recipe.ablations.page import in_short, write_page
from models.recipe.ablations.trials import ENVIRONMENT, Job, perform, read_record
from models.recipe.ablations.variants import (
    FULL,
    VARIANTS,
    Row,
    apply,
    changes,
    draw,
    objective_name,
    spelt_out,
    teachable,
    usable,
)
from models.recipe.dev import read_dev
from models.recipe.tables import read_table, write_table
from poolembed.cli.stopping import stop_on_signal
from poolembed.compare.workers import run_all
from poolembed.errors import PoolembedError
from poolembed.train.config import TrainConfig
from poolembed.train.configfile import as_config, as_settings, read_settings
from tests.benchmarks.common import machine, say

RECIPE = Path(__file__).parents[1]

VALID = 1500
"""Clips held out: to validate on all of the corpus' would take longer than to train."""


def main(arguments: list[str] | None = None) -> int:
    """Do the runs and write the page."""
    options = parse(arguments)
    about = machine()
    try:
        full = full_run(options)
        rows = list(read_table(Path(full.data)))
        kinds = {row["kind"] for row in rows}
        names = [name for name, variant in VARIANTS.items() if name == FULL or changes(variant, full, kinds)]
        runs = [(name, seed) for name in names for seed in range(options.seeds)]
        jobs = {(name, seed): make_job(name, seed, full, rows, options) for name, seed in runs}
        devs = [read_dev(table) for table in options.dev]
    except (PoolembedError, ValueError, OSError) as error:
        raise SystemExit(f"ablations: {error}") from error
    asked = {FULL, *(options.only or names)}
    todo: dict[Path, tuple[str, Job]] = {}  # by record, for two variants may come to the same run
    for (name, seed), job in jobs.items():
        if asked & {name, name.partition("-")[0]}:
            todo.setdefault(job.record, (f"{name}, seed {seed}", job))
    began, failed, number = time.perf_counter(), 0, 0
    called = {job: name for name, job in todo.values()}

    def done_with(job: Job, result: dict[str, Any] | str) -> None:
        nonlocal failed, number
        failed, number = failed + isinstance(result, str), number + 1
        outcome = f"FAILED: {result}" if isinstance(result, str) else in_short(result)
        say(f"{number}/{len(called)}, {(time.perf_counter() - began) / 60:.1f} min: {called[job]}: {outcome}")

    os.environ.update(ENVIRONMENT)
    with stop_on_signal("stopping") as stop:
        run_all(list(called), partial(perform, devs=devs), options.jobs, done_with, stop)
        if stop.is_set():
            say("stopped; the same command goes on")
            return 128 + stop.signal
    records = {job.record: read_record(job.record) for job in jobs.values()}
    done = {run: record for run, job in jobs.items() if (record := records[job.record]) is not None}
    if any((FULL, seed) in done for seed in range(options.seeds)):
        same = [name for name in VARIANTS if name not in names]
        page = options.work / "ablations" if options.smoke else RECIPE / "ablations"
        write_page(page, command(options), about, done, same)
    return 1 if failed else 0


def full_run(options: argparse.Namespace) -> TrainConfig:
    """The configuration that every run is a variant of, with the paths of the corpus, spelt out.

    Raises:
        UsageError: the file is no configuration.
        ValueError: it does not start from scratch.
    """
    settings = read_settings(options.config)
    table = f"{options.name}.csv" if options.name else settings.get("data", "train.csv")
    place = {"data": str(options.corpus / table), "output": "", "cache": str(options.cache)}
    config = as_config({**settings, **place}, str)
    if options.smoke:
        config = structs.replace(config, epochs=1, batch_size=8)
    objectives = [
        structs.replace(objective, targets=str(options.corpus / objective.targets)) if objective.targets else objective
        for objective in config.objectives
    ]
    return spelt_out(structs.replace(config, objectives=tuple(objectives)))


def make_job(name: str, seed: int, full: TrainConfig, rows: Sequence[Row], options: argparse.Namespace) -> Job:
    """The run of a variant at a seed; its table is written.

    Raises:
        ValueError: the corpus has too few clips for so many steps.
    """
    # Half a batch more, in case the run leaves some clips out for being copies.
    clips = -(-options.steps // full.epochs) * full.batch_size + full.batch_size // 2
    config = apply(VARIANTS[name], full)
    try:
        drawn = draw(usable(rows, VARIANTS[name], config.objectives), clips, options.valid, seed=seed)
    except ValueError as error:
        raise ValueError(f"{name}: {error}; fewer --steps need fewer") from error
    located = [{**row, "path": str(options.corpus / row["path"])} for row in drawn]
    table = options.work / "tables" / f"{_digest(located)}.csv"
    if not table.exists():
        table.parent.mkdir(parents=True, exist_ok=True)
        write_table(table, located)
    taught = teachable(config.objectives, drawn)
    untaught = [objective_name(objective) for objective in config.objectives if objective not in taught]
    config = structs.replace(config, data=str(table), objectives=taught, seed=seed)
    key = _digest({**as_settings(config), "data": table.name, "cache": None})
    return Job(structs.replace(config, output=str(options.work / "runs" / key)), tuple(untaught))


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def command(options: argparse.Namespace) -> str:
    """The command without places of this machine."""
    file = options.config.resolve()
    config = f"models/recipe/{file.name}" if file.parent == RECIPE.resolve() else file.name
    table = f"--name {options.name} " if options.name else ""
    given = f"--config {config} {table}--steps {options.steps} --seeds {options.seeds} --jobs {options.jobs}"
    return f"python -m models.recipe.ablations CORPUS WORK DEV... {given}"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m models.recipe.ablations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", type=Path, help="with the table and the targets that the configuration names")
    parser.add_argument("work", type=Path, help="folder for the runs")
    parser.add_argument("dev", nargs="+", help="tables of labelled clips with a column fold")
    parser.add_argument("--config", type=Path, default=RECIPE / "tiny.toml", help="of the full run")
    parser.add_argument("--name", help="of the table to draw from, without .csv; otherwise that of the configuration")
    parser.add_argument("--cache", type=Path, help="log-mels, where there are some already; otherwise WORK/cache")
    parser.add_argument("--steps", type=int, default=400, help="of every run")
    parser.add_argument("--seeds", type=int, default=1, help="runs of every variant")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="variants, or first words of their names")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, of one thread each")
    parser.add_argument("--smoke", action="store_true", help="a trial of a few steps; the page goes to WORK")
    options = parser.parse_args(arguments)
    known = {*VARIANTS, *(name.partition("-")[0] for name in VARIANTS)}
    if unknown := sorted(set(options.only or ()) - known):
        parser.error(f"no variant is called {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    if min(options.steps, options.seeds, options.jobs) < 1:
        parser.error("steps, seeds and jobs are 1 at least")
    options.corpus, options.work = options.corpus.absolute(), options.work.absolute()
    options.valid = VALID
    options.cache = (options.cache or options.work / "cache").absolute()
    if options.smoke:
        options.steps, options.valid = 4, 32
    return options


if __name__ == "__main__":
    sys.exit(main())
