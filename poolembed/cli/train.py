"""``poolembed train``: labelled clips in, a model out, with its own pooling and a report."""

from __future__ import annotations

import json
import os
import shlex
import signal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolembed.cli.embed import SOME_FAILED
from poolembed.cli.options import Json, Overwrite, Quiet
from poolembed.cli.progress import showing
from poolembed.cli.report import facts
from poolembed.cli.settings import OUTPUT, resolve, with_options_of
from poolembed.cli.stopping import stop_on_signal
from poolembed.cli.verb import is_from_file
from poolembed.errors import UsageError
from poolembed.text import printable
from poolembed.train.config import TrainConfig

if TYPE_CHECKING:
    from poolembed.train.run import Trained

HELP = """\
\b
Examples:
  poolembed train clips/ -o mymodel                       clips/<label>/**; goes on from the model base
  poolembed train labels.csv -o mymodel --freeze encoder  pooling and classifier alone: minutes on a laptop
  poolembed train labels.csv -o mymodel --pooling gem --pooling-scope channel
  poolembed train songs/ -o mymodel --objective contrastive             no labels needed
  poolembed train songs/ -o mymodel --objective distill --targets teacher/
  poolembed train --config run.toml -o mymodel --epochs 50              the command line has the last word
  poolembed train --resume mymodel                        after Ctrl-C, a kill or a reboot

A table (CSV, TSV, JSONL, Parquet) has the columns path and label, and may have start, end, split, fold and group;
several labels in one cell are split by ";". The result is a model like any other, with run.toml, which repeats the
run, and report.html, which shows it.
"""


@with_options_of(TrainConfig)
def train(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="A folder per label, or a table of clips.", show_default=False),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", "--out", metavar="DIR", help="Where to.", show_default=OUTPUT)
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="Options from a TOML file, as run.toml.", show_default=False)
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="DIR", help="Go on with the run in DIR.", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Train a model, its pooling included, on clips."""
    given = {name: value for name, value in context.params.items() if value not in (None, (), [])}
    if resume is not None or config is not None:  # what says what the run is goes before what holds for all runs
        given = {name: value for name, value in given.items() if not is_from_file(context, name)}
    if resume is not None and overwrite:
        raise UsageError("--resume goes on with a run and --overwrite replaces it", hint="drop one of them")
    if os.environ.get("RANK", "0") != "0":  # torchrun started several; the first one speaks for all
        quiet, as_json = True, False

    from poolembed.cli import training
    from poolembed.train.run import train as run

    resolved = resolve(given)
    with (
        stop_on_signal(None if quiet else "finishing the step in hand") as stop,
        showing(quiet) as display,
    ):
        trained = run(
            resolved,
            display,
            on_event=training.Story(display),
            resume=resume is not None,
            overwrite=overwrite,
            stop=stop,
        )
    if as_json:
        typer.echo(json.dumps(_as_json(trained)))
    if trained.finished and not quiet:
        typer.echo(err=True)
        facts(training.result(trained))
        if trained.already:
            there = f"{printable(resolved.output)} holds the model of this very run"
            typer.echo(f"nothing to train: {there}; --overwrite trains it again", err=True)
    if not trained.finished:
        if not quiet:
            way_on = f"poolembed train --resume {shlex.quote(resolved.output)}"
            typer.echo(f"stopped; what was learned is kept, and this goes on with it: {way_on}", err=True)
        raise typer.Exit(128 + (stop.signal or signal.SIGINT))
    if trained.lost:
        raise typer.Exit(SOME_FAILED)


def _as_json(trained: Trained) -> dict[str, Any]:
    """The summary: all of results.json that is not a list of every class, clip or channel."""
    lists = ("heads", "pooling", "data")
    summary = {key: value for key, value in trained.results.items() if key not in lists}
    if trained.finished:
        data = trained.results["data"]
        summary["clips"] = {name: split["clips"] for name, split in data["splits"].items()}
        summary["dropped"] = data["dropped"]
        summary["failed"] = len(trained.lost)
    return {"output": str(trained.output), "finished": trained.finished, **summary}
