"""``poolembed train``: labelled clips in, a model out, with its own pooling and a report."""

from __future__ import annotations

import json
import os
import shlex
import signal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from poolembed.cli.embed import SOME_FAILED
from poolembed.cli.progress import showing
from poolembed.cli.report import facts
from poolembed.cli.settings import OUTPUT, resolve
from poolembed.cli.stopping import stop_on_signal
from poolembed.errors import UsageError
from poolembed.text import printable

if TYPE_CHECKING:
    from poolembed.train.run import Trained

HELP = """\
Train a model, its pooling included, on clips: a folder per label, or a table of paths and labels.

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

_MODEL, _LEARNING, _LOOP = "Model and pooling", "What is learned", "How it is trained"
_CLIPS, _AUGMENT, _MACHINE = "Clips", "Augmentation of training clips; 0 is off", "Machine"


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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run put there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Start from this model, or from scratch.", rich_help_panel=_MODEL, show_default="base"
        ),
    ] = None,
    freeze: Annotated[
        Literal["none", "encoder"] | None,
        typer.Option(help="What is left as it is.", rich_help_panel=_MODEL, show_default="none"),
    ] = None,
    pooling: Annotated[
        Literal["mean", "max", "mean+max", "softmax", "autopool", "gem", "attention", "attentive-statistics"] | None,
        typer.Option(help="How frames become one vector.", rich_help_panel=_MODEL, show_default="the model's"),
    ] = None,
    pooling_scope: Annotated[
        Literal["scalar", "channel"] | None,
        typer.Option(help="One alpha or p for all, or one each.", rich_help_panel=_MODEL, show_default="channel"),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="autopool: where alpha starts.", rich_help_panel=_MODEL, show_default="1.0")
    ] = None,
    alpha_max: Annotated[
        float | None, typer.Option(help="autopool: bound of alpha (CAP).", rich_help_panel=_MODEL, show_default="none")
    ] = None,
    alpha_l2: Annotated[
        float | None,
        typer.Option(
            "--alpha-l2", help="autopool: penalty on alpha (RAP).", rich_help_panel=_MODEL, show_default="0.0"
        ),
    ] = None,
    p: Annotated[
        float | None, typer.Option("--p", help="gem: where p starts.", rich_help_panel=_MODEL, show_default="3.0")
    ] = None,
    pool: Annotated[
        Literal["features", "predictions"] | None,
        typer.Option(
            help="features: of frames, to an embedding that is classified. predictions: the classes of every frame, "
            "which also tells when.",
            rich_help_panel=_MODEL,
            show_default="features",
        ),
    ] = None,
    pooling_lr: Annotated[
        float | None,
        typer.Option(
            metavar="TIMES",
            help="Learning rate of alpha or p, as a multiple of --lr.",
            rich_help_panel=_MODEL,
            show_default="10 for a scalar, 100 per channel",
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:WEIGHT]",
            help="classification, supcon (clips of a label belong together), contrastive (two crops of a clip do) or "
            "distill (towards --targets); again for several together.",
            rich_help_panel=_LEARNING,
            show_default="classification",
        ),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR",
            help="distill: what `poolembed embed` wrote with any model, one for each distill.",
            rich_help_panel=_LEARNING,
            show_default=False,
        ),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="The table's column of labels.", rich_help_panel=_LEARNING, show_default="label"
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="supcon, contrastive: what cosines are divided by.", rich_help_panel=_LEARNING, show_default="0.1"
        ),
    ] = None,
    nested: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES",
            help="So many of an embedding's first numbers are to be embeddings too: 64,128,256.",
            rich_help_panel=_LEARNING,
            show_default="none",
        ),
    ] = None,
    balance: Annotated[
        bool | None,
        typer.Option(
            "--balance/--no-balance",
            help="Classes count alike, however many clips they have.",
            rich_help_panel=_LEARNING,
            show_default="balance",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the clips.", rich_help_panel=_LOOP, show_default="30")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            metavar="EPOCHS",
            help="End after so many epochs without a better one; 0 never does.",
            rich_help_panel=_LOOP,
            show_default="10",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Clips per step.", rich_help_panel=_LOOP, show_default="32")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate of AdamW.", rich_help_panel=_LOOP, show_default="0.001")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Of weight matrices and kernels.", rich_help_panel=_LOOP, show_default="0.05")
    ] = None,
    warmup: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the steps in which the learning rate climbs, before its cosine.",
            rich_help_panel=_LOOP,
            show_default="0.1",
        ),
    ] = None,
    clip_norm: Annotated[
        float | None, typer.Option(help="Largest norm of the gradient.", rich_help_panel=_LOOP, show_default="1.0")
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            help="Decay per step of the average of the weights, which is what is kept; 0 for none.",
            rich_help_panel=_LOOP,
            show_default="0.99",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of everything random.", rich_help_panel=_LOOP, show_default="0")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Length of a training crop.",
            rich_help_panel=_CLIPS,
            show_default="the longest clip, up to 10",
        ),
    ] = None,
    valid: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Held out to measure on, where the table has no split.",
            rich_help_panel=_CLIPS,
            show_default="0.15",
        ),
    ] = None,
    valid_fold: Annotated[
        str | None,
        typer.Option(metavar="FOLD", help="Hold out this fold instead.", rich_help_panel=_CLIPS, show_default=False),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Where decoded clips are kept.", rich_help_panel=_CLIPS, show_default="DIR/cache"
        ),
    ] = None,
    cache_limit: Annotated[
        float | None, typer.Option(metavar="GB", help="Its largest size.", rich_help_panel=_CLIPS, show_default="20.0")
    ] = None,
    gain: Annotated[
        float | None,
        typer.Option(
            metavar="DB", help="Louder or quieter by up to this.", rich_help_panel=_AUGMENT, show_default="0.0"
        ),
    ] = None,
    equalizer: Annotated[
        float | None,
        typer.Option(
            metavar="DB", help="Parts of the spectrum, likewise.", rich_help_panel=_AUGMENT, show_default="0.0"
        ),
    ] = None,
    low_pass: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="How many crops lose their highs.", rich_help_panel=_AUGMENT, show_default="0.0"
        ),
    ] = None,
    time_mask: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Longest stretch masked (SpecAugment).", rich_help_panel=_AUGMENT, show_default="0.0"
        ),
    ] = None,
    band_mask: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Most mel bands masked (SpecAugment).", rich_help_panel=_AUGMENT, show_default="0.0"
        ),
    ] = None,
    mixup: Annotated[
        float | None,
        typer.Option(
            metavar="BETA", help="Mix two clips; parameter of Beta.", rich_help_panel=_AUGMENT, show_default="0.0"
        ),
    ] = None,
    resized_crop: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Largest change of speed and of the bands' place.",
            rich_help_panel=_AUGMENT,
            show_default="0.0",
        ),
    ] = None,
    shift: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Crops begin up to so much early.", rich_help_panel=_AUGMENT, show_default="0.0"
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"] | None,
        typer.Option(help="Where the network runs.", rich_help_panel=_MACHINE, show_default="auto"),
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"] | None,
        typer.Option(help="What it computes in.", rich_help_panel=_MACHINE, show_default="auto"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads that decode.", rich_help_panel=_MACHINE, show_default="one per core")
    ] = None,
) -> None:
    """Train a model, its pooling included, on clips."""
    given = {name: value for name, value in context.params.items() if value not in (None, (), [])}
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
        summary["clips"] = {name: side["clips"] for name, side in data["sides"].items()}
        summary["dropped"] = data["dropped"]
        summary["failed"] = len(trained.lost)
    return {"output": str(trained.output), "finished": trained.finished, **summary}
