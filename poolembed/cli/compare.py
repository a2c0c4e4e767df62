"""``poolembed compare``: every pooling side by side on one table of labelled clips."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolembed.cli.embed import SOME_FAILED
from poolembed.cli.options import Json, Quiet
from poolembed.cli.progress import showing
from poolembed.cli.report import table
from poolembed.cli.settings import study, with_options_of
from poolembed.cli.stopping import stop_on_signal
from poolembed.compare.config import StudyConfig
from poolembed.errors import UsageError
from poolembed.text import printable

if TYPE_CHECKING:
    from poolembed.compare.results import Results

HELP = """\
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


@with_options_of(StudyConfig)
def compare(
    labels: Annotated[
        str,
        typer.Argument(
            metavar="LABELS", help="A folder per label, or a table (CSV, TSV, JSONL, Parquet).", show_default=False
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", "--out", metavar="DIR", help="Where to.")] = "study",
    width: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Channels of the small encoder's first stage.", show_default="16"),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Compare every temporal pooling on labelled clips."""
    if not output:
        raise UsageError("-o needs a directory")
    given = {name: value for name, value in options.items() if value not in (None, [])}
    config = study({"data": labels, "output": output, **given})
    if width is not None and config.init != "scratch":
        raise UsageError("--width is of the small encoder, and --init brings another", hint="drop one of them")

    import msgspec

    from poolembed.compare.command import compare as run
    from poolembed.compare.config import small_model

    if width is not None:
        config = msgspec.structs.replace(config, model=small_model(width))
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
