"""``poolembed evaluate``: a model, or anybody's vectors, scored on labelled clips."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from poolembed.cli.embed import SOME_FAILED
from poolembed.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

    from poolembed.evaluate.run import Evaluation, Watcher
    from poolembed.evaluate.scores import Score, Scores

HELP = """\
Score a model on labelled clips: nearest neighbours, linear probe and retrieval, with 95 % intervals.

\b
Examples:
  poolembed evaluate base clips/                            a folder per label
  poolembed evaluate mymodel labels.csv --folds fold        the folds that the table gives
  poolembed evaluate mymodel labels.csv --json | jq '.systems[0].linear.accuracy'
  poolembed evaluate --embeddings other.npy --paths paths.txt labels.csv
  poolembed evaluate --embeddings embeddings/ clips/        what poolembed embed wrote

Each clip is predicted from the clips of the other folds. Without --folds there are five, with labels in proportion and
groups never taken apart. Intervals come from drawing groups of clips (column group; without it files) 1000 times.
Beside the model always two floors on the same clips: statistics of the mel bands, and the same network untrained.
"""

NUMBERS = {
    "knn": ("5-NN", {"accuracy": "accuracy", "macro_f1": "macro F1", "map": "mAP"}),
    "linear": ("linear", {"accuracy": "accuracy", "macro_f1": "macro F1", "map": "mAP"}),
    "retrieval": ("retrieval", {"recall_at_1": "R@1", "map": "mAP", "mrr": "MRR"}),
}
"""What the scores are called in the table."""

LINE_EVERY = 5.0
"""Seconds between two plain lines."""

SHOWN = 20
"""Clips that are named one by one; --json has all."""


def evaluate(
    model_and_labels: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] LABELS",
            help="A name that `poolembed models` lists, or a path; then a folder per label, or a table "
            "(CSV, TSV, JSONL, Parquet).",
            show_default=False,
        ),
    ],
    embeddings: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Score these vectors instead of a model's.", show_default=False),
    ] = None,
    paths: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The path of each row of an .npy matrix, one a line.", show_default=False),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The table's column of folds.", show_default="made here"),
    ] = None,
    column: Annotated[str, typer.Option(metavar="COLUMN", help="The table's column of labels.")] = "label",
    dim: Annotated[
        int | None,
        typer.Option(
            metavar="D", help="Score the first D numbers, of a model trained for that.", show_default="all of them"
        ),
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Add how each label fares.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score a model on labelled clips."""
    model, labels = _model_and_labels(model_and_labels, embeddings)

    import poolembed

    with _watching() as watcher:
        evaluation = poolembed.evaluate(
            labels,
            model,
            embeddings=embeddings,
            paths=paths,
            column=column,
            folds=folds,
            dim=dim,
            watcher=watcher,
        )
    _say(evaluation)
    if as_json:
        typer.echo(json.dumps(evaluation.as_dict(per_class=per_class)))
    else:
        _tables(evaluation, per_class)
    if evaluation.failures:
        raise typer.Exit(SOME_FAILED)


def _model_and_labels(arguments: list[str], embeddings: str | None) -> tuple[str | None, str]:
    if len(arguments) == (2 if embeddings is None else 1):
        return (arguments[0] if embeddings is None else None), arguments[-1]
    if embeddings is not None:
        raise UsageError(
            f"with --embeddings there is one argument, the labels, not {len(arguments)}",
            hint="poolembed evaluate --embeddings other.npy --paths paths.txt labels.csv",
        )
    raise UsageError(
        f"expected a model and labels, not {len(arguments)} argument{'s' if len(arguments) > 1 else ''}",
        hint="for example: poolembed evaluate base clips/",
    )


def _tables(evaluation: Evaluation, per_class: bool) -> None:
    """The result, on standard output."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from poolembed.text import printable

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=1000)  # a file has no edge to wrap at
    task = evaluation.task
    made = f"column {task.given}" if task.given else "made here"
    several = ", several a clip" if task.multi_label else ""
    console.print(
        escape(
            f"{printable(evaluation.source)}: {evaluation.clips} clips, {len(task.labels)} labels{several}, "
            f"{len(task.fold_names)} folds ({made}), {task.group_count} groups"
        )
    )
    table = Table("%", box=None, padding=(0, 2, 0, 0))
    for system in evaluation.systems:
        table.add_column(escape(printable(system.name)), justify="right", no_wrap=True)
    for kind, (title, names) in NUMBERS.items():
        of_each: list[dict[str, Score]] = [getattr(system.scores, kind) for system in evaluation.systems]
        for name in of_each[0]:
            table.add_row(f"{title} {names[name]}", *(_percent(scores[name]) for scores in of_each))
    table.add_row("numbers in a vector", *(str(system.size) for system in evaluation.systems))
    console.print(table)
    if per_class:
        console.print(f"\n{escape(printable(evaluation.systems[0].name))}, label by label")
        console.print(_label_by_label(evaluation.systems[0].scores))


def _label_by_label(scores: Scores) -> object:
    from rich.markup import escape
    from rich.table import Table

    from poolembed.text import printable

    table = Table("%", "clips", box=None, padding=(0, 2, 0, 0))
    for probe in scores.per_class:
        for what in ("precision", "recall", "F1", "AP"):
            table.add_column(f"{NUMBERS[probe][0]} {what}", justify="right")
    for classes in zip(*scores.per_class.values(), strict=True):
        numbers = [
            "" if number is None else f"{100 * number:.1f}"
            for each in classes
            for number in (each.precision, each.recall, each.f1, each.average_precision)
        ]
        table.add_row(escape(printable(classes[0].label)), str(classes[0].clips), *numbers)
    return table


def _percent(score: Score) -> str:
    if score.value is None:
        return "-"
    if score.low is None or score.high is None:
        return f"{100 * score.value:.1f}"
    return f"{100 * score.value:.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})"


def _say(evaluation: Evaluation) -> None:
    """Notes, and clips that are not among the scored ones, on standard error."""
    from poolembed.text import printable

    for note in evaluation.notes:
        typer.echo(f"note: {printable(note)}", err=True)
    for title, reasons in (("not used", evaluation.dropped), ("failed", evaluation.failures)):
        for key, reason in list(reasons.items())[:SHOWN]:
            typer.echo(f"{title}: {printable(key)}: {printable(reason)}", err=True)
        if len(reasons) > SHOWN:
            typer.echo(f"{title}: … and {len(reasons) - SHOWN} more; --json names all", err=True)


class _Lines:
    """A plain line every few seconds, for logs."""

    def __init__(self) -> None:
        self._what, self._steps, self._done, self._last = "", 0, 0, 0.0

    def stage(self, what: str, steps: int) -> None:
        self._what, self._steps, self._done, self._last = what, steps, 0, time.perf_counter()
        typer.echo(f"{what}: {steps}", err=True)

    def step(self) -> None:
        self._done += 1
        if time.perf_counter() - self._last >= LINE_EVERY:
            self._last = time.perf_counter()
            typer.echo(f"{self._what}: {self._done}/{self._steps}", err=True)


class _Bar:
    """A progress bar, one stage after another."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def stage(self, what: str, steps: int) -> None:
        self._progress.reset(self._task, description=what, total=steps)

    def step(self) -> None:
        self._progress.advance(self._task)


@contextmanager
def _watching() -> Iterator[Watcher]:
    """A bar on a terminal, plain lines elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress)
