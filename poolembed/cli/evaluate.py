"""``poolembed evaluate``: a model, or anybody's vectors, scored on labelled clips."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from poolembed.cli.embed import SOME_FAILED
from poolembed.cli.options import Device, Json, LabelColumn, Precision, Quiet, Rows, Workers
from poolembed.cli.progress import showing
from poolembed.cli.report import SHOWN, table
from poolembed.errors import UsageError
from poolembed.text import printable

if TYPE_CHECKING:
    from poolembed.evaluate.run import Evaluation
    from poolembed.evaluate.scores import Score, Scores

HELP = """\
\b
Examples:
  poolembed evaluate base clips/                            a folder per label
  poolembed evaluate mymodel labels.csv --fold-column fold        the folds that the table gives
  poolembed evaluate mymodel labels.csv --json | jq '.systems[0].linear.accuracy'
  poolembed evaluate --embeddings other.npy --paths paths.txt labels.csv
  poolembed evaluate --embeddings embeddings/ clips/        what poolembed embed wrote

Each clip is predicted from the clips of the other folds. Without --fold-column there are five, with labels in
proportion and groups never taken apart. Intervals come from drawing groups of clips (column group; without it files)
1000 times. Beside the model always two baselines on the same clips: statistics of the mel bands, and the same network
untrained.
"""

NUMBERS = {
    "knn": ("5-NN", {"accuracy": "accuracy", "macro_f1": "macro F1", "map": "mAP"}),
    "linear": ("linear", {"accuracy": "accuracy", "macro_f1": "macro F1", "map": "mAP"}),
    "retrieval": ("retrieval", {"recall_at_1": "R@1", "map": "mAP", "mrr": "MRR"}),
}
"""What the scores are called in the table."""


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
    paths: Rows = None,
    folds: Annotated[
        str | None,
        typer.Option("--fold-column", metavar="COLUMN", help="The table's column of folds.", show_default="made here"),
    ] = None,
    column: LabelColumn = "label",
    dim: Annotated[
        int | None,
        typer.Option(
            metavar="D", help="Score the first D numbers, of a model trained for that.", show_default="all of them"
        ),
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Add how each label fares.")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Score a model on labelled clips."""
    model, labels = _model_and_labels(model_and_labels, embeddings)

    import poolembed

    with showing(quiet) as progress:
        evaluation = poolembed.evaluate(
            labels,
            model,
            embeddings=embeddings,
            paths=paths,
            column=column,
            folds=folds,
            dim=dim,
            device=device,
            precision=precision,
            workers=workers,
            progress=progress,
        )
    if not quiet:
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
    task = evaluation.task
    made = f"column {task.given}" if task.given else "made here"
    several = ", several a clip" if task.multi_label else ""
    typer.echo(
        f"{printable(evaluation.source)}: {evaluation.clips} clips, {len(task.labels)} labels{several}, "
        f"{len(task.fold_names)} folds ({made}), {task.group_count} groups"
    )
    systems = evaluation.systems
    rows = [["%", *(system.name for system in systems)]]
    for kind, (title, names) in NUMBERS.items():
        of_each: list[dict[str, Score]] = [getattr(system.scores, kind) for system in systems]
        rows += [[f"{title} {names[name]}", *(_percent(scores[name]) for scores in of_each)] for name in of_each[0]]
    rows.append(["numbers in a vector", *(str(system.size) for system in systems)])
    typer.echo(table(rows))
    if per_class:
        typer.echo(f"\n{printable(systems[0].name)}, label by label")
        typer.echo(table(_label_by_label(systems[0].scores)))


def _label_by_label(scores: Scores) -> list[list[str]]:
    heads = [
        f"{NUMBERS[probe][0]} {what}" for probe in scores.per_class for what in ("precision", "recall", "F1", "AP")
    ]
    rows = [["%", "clips", *heads]]
    for classes in zip(*scores.per_class.values(), strict=True):
        numbers = [
            "" if number is None else f"{100 * number:.1f}"
            for each in classes
            for number in (each.precision, each.recall, each.f1, each.average_precision)
        ]
        rows.append([classes[0].label, str(classes[0].clips), *numbers])
    return rows


def _percent(score: Score) -> str:
    if score.value is None:
        return "-"
    if score.low is None or score.high is None:
        return f"{100 * score.value:.1f}"
    return f"{100 * score.value:.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})"


def _say(evaluation: Evaluation) -> None:
    """Notes, and clips that are not among the scored ones, on standard error."""
    for note in evaluation.notes:
        typer.echo(f"note: {printable(note)}", err=True)
    for title, reasons in (("not used", evaluation.dropped), ("failed", evaluation.failures)):
        for key, reason in list(reasons.items())[:SHOWN]:
            typer.echo(f"{title}: {printable(key)}: {printable(reason)}", err=True)
        if len(reasons) > SHOWN:
            typer.echo(f"{title}: … and {len(reasons) - SHOWN} more; --json names all", err=True)
