"""``poolembed compare``: every pooling side by side on one table of labelled clips."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from poolembed.cli.embed import SOME_FAILED
from poolembed.cli.progress import showing
from poolembed.cli.report import table
from poolembed.cli.stopping import stop_on_signal
from poolembed.errors import UsageError
from poolembed.text import printable

if TYPE_CHECKING:
    from poolembed.compare.results import Results

HELP = """\
Compare every temporal pooling on labelled clips: same encoder, same seeds, same batches, and a search of one size each.

\b
Examples:
  poolembed compare labels.csv -o study --seeds 5
  poolembed compare clips/ -o study --poolings mean,max,gem-channel
  poolembed compare scenes.csv -o study --pool predictions --seconds 60
  poolembed compare songs.csv -o study --objective supcon
  poolembed compare labels.csv -o study --init base --freeze encoder

Writes study.md, study.svg and study.json, and keeps the models of the final runs. The same command again goes on where
it was stopped. Clips to test on are those of the table's column split; without it, its folds test in turn, but for the
last, which validates; without folds there are five, and groups are never taken apart.
"""


def compare(
    labels: Annotated[
        str,
        typer.Argument(
            metavar="LABELS", help="A folder per label, or a table (CSV, TSV, JSONL, Parquet).", show_default=False
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", "--out", metavar="DIR", help="Where to.")] = "study",
    poolings: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Some of them, with commas between.", show_default="all twelve")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Final runs of each pooling.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training clips, in every run.")] = 20,
    pool: Annotated[
        Literal["features", "predictions"],
        typer.Option(help="features: pool, then classify. predictions: classify every frame, then pool."),
    ] = "features",
    objective: Annotated[
        Literal["classification", "supcon", "contrastive"], typer.Option(help="What is trained, as in train.")
    ] = "classification",
    column: Annotated[str, typer.Option(metavar="COLUMN", help="The table's column of labels.")] = "label",
    init: Annotated[
        str, typer.Option(metavar="MODEL", help="scratch: a small encoder; or a model that all runs start from.")
    ] = "scratch",
    freeze: Annotated[
        Literal["none", "encoder"], typer.Option(help="encoder: train pooling, projection and classifier alone.")
    ] = "none",
    width: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Channels of the small encoder's first stage.", show_default="16"),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(metavar="S", help="Length of a training crop.", show_default="the longest clip, up to 10"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=2, help="Clips per step.")] = 16,
    lr: Annotated[float, typer.Option(help="Learning rate of the network.")] = 1e-3,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Runs at a time.", show_default="one per core")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print study.json instead of the table.")] = False,
) -> None:
    """Compare every temporal pooling on labelled clips."""
    if width is not None and init != "scratch":
        raise UsageError("--width is of the small encoder, and --init brings another", hint="drop one of them")
    for name, value in (("--seconds", seconds), ("--lr", lr)):
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"{name} must be above 0, not {value:g}")
    if not output:
        raise UsageError("-o needs a directory")

    import msgspec

    from poolembed.compare.command import compare as run
    from poolembed.compare.config import StudyConfig, small_model
    from poolembed.compare.contenders import CONTENDERS

    config = StudyConfig(
        data=labels,
        output=output,
        poolings=tuple(CONTENDERS) if poolings is None else tuple(name.strip() for name in poolings.split(",")),
        seeds=seeds,
        column=column,
        objective=objective,
        pool=pool,
        init=init,
        freeze=freeze,
        model=None if width is None else small_model(width),
        seconds=seconds,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        jobs=jobs,
    )
    with stop_on_signal(None if quiet else "finishing the runs in hand") as stop, showing(quiet) as progress:
        results = run(config, progress, stop=stop)
    if results is not None:
        if as_json:
            typer.echo(msgspec.json.encode(results))
        elif not quiet:
            _table(results)
        _say(results, output, quiet)
    if stop.signal:
        raise typer.Exit(128 + stop.signal)
    if results is not None and results.failures:
        raise typer.Exit(SOME_FAILED)


def _table(results: Results) -> None:
    """The main table, on standard output."""
    from poolembed.compare.tables import about, main_table

    header, _, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in main_table(results).splitlines())
    typer.echo(about(results).replace("**", "") + "\n")
    typer.echo(table([header, *rows]))


def _say(results: Results, output: str, quiet: bool) -> None:
    """What was left out, what failed, and where everything is, on standard error."""
    if not quiet:
        for name, reason in results.skipped.items():
            typer.echo(f"left out: {name}: {reason}", err=True)
        typer.echo(f"all of it: {os.path.join(printable(output), 'study.md')}", err=True)  # noqa: PTH118
    for name, reason in results.failures.items():
        typer.echo(f"failed: {name}: {printable(reason)}", err=True)
    if results.failures:
        typer.echo("the same command again tries those once more", err=True)
