"""``poolembed predict``: songs in, labels out."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from poolembed.cli.embed import SOME_FAILED
from poolembed.cli.separated import harmless, rule
from poolembed.cli.stopping import stop_on_signal
from poolembed.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from poolembed.nn.head import HeadConfig
    from poolembed.predict import Prediction

    Labels = list[tuple[str, float]]

HELP = """\
Label songs: what a model that was trained on labelled clips hears in them, with probabilities.

\b
Examples:
  poolembed predict clip.wav --model mymodel
  poolembed predict ~/Music --model mymodel --top 1
  poolembed predict street.flac --model mymodel --timestamps 1
  poolembed predict ~/Music --model mymodel --json | jq .labels

One line per song: its path and its labels, tab-separated. --timestamps adds lines that begin with path and time: one
per S seconds; or, if the model was trained with --pool predictions, one per label and stretch of time that it is heard.

""" + rule("TSV")

THRESHOLD = 0.5


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Audio files, and directories to search for them.", show_default=False),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A model that was trained on labels: a name, or a path.")
    ] = "base",
    timestamps: Annotated[
        float | None, typer.Option(metavar="S", help="Also say when, as fine as S seconds.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many labels, the most probable first.")] = 3,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="From which probability on a label is heard.", show_default=f"{THRESHOLD}"),
    ] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Label column to predict; may be repeated.", show_default="all"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines, an object per song.")] = False,
) -> None:
    """Label songs: what a model that was trained on labelled clips hears in them, with probabilities."""
    from poolembed.embed.run import find_songs
    from poolembed.embed.song import Failed
    from poolembed.predict import load_predictor
    from poolembed.text import passed_over, printable

    songs = find_songs(inputs)
    predictor = load_predictor(model, columns=head)
    if threshold is not None and (timestamps is None or all(each.pool == "features" for each in predictor.heads)):
        raise UsageError(
            "--threshold tells from when to when a label is heard",
            hint="it goes with --timestamps, and with a model that was trained with --pool predictions",
        )
    render = _as_json if as_json else _as_lines
    failed = bool(songs.unreadable)
    for path, reason in songs.unreadable.items():
        typer.echo(f"{printable(path)}: {reason}", err=True)
    if songs.passed_over:
        typer.echo(f"passed over {passed_over(songs.passed_over)}", err=True)
    paths = [file.path for file in songs.files]
    with (
        stop_on_signal("finishing the songs in hand") as stop,
        closing(predictor.predict(paths, seconds=timestamps, stop=stop)) as outcomes,
    ):
        for outcome in outcomes:
            path = paths[outcome.index]
            if isinstance(outcome, Failed):
                failed = True
                typer.echo(f"{printable(path)}: {outcome.reason}", err=True)
                continue
            if outcome.note is not None:
                typer.echo(f"{printable(path)}: {outcome.note}", err=True)
            typer.echo(render(path, outcome, predictor.heads, top, THRESHOLD if threshold is None else threshold))
    if stop.signal:
        raise typer.Exit(128 + stop.signal)
    if failed:
        raise typer.Exit(SOME_FAILED)


def _as_lines(path: str, song: Prediction, heads: Sequence[HeadConfig], count: int, threshold: float) -> str:
    from poolembed.predict import top
    from poolembed.text import printable

    lines = []
    for head in heads:
        first = [harmless(printable(path)), *([harmless(head.column)] if len(heads) > 1 else [])]
        found = [("", top(head, song.probabilities[head.column], count))]
        found += [(f"{start:.2f}-{end:.2f}", labels) for start, end, labels in _moments(song, head, count, threshold)]
        for when, labels in found:
            fields = [
                *first,
                *([when] if when else []),
                *(harmless(f"{printable(label)} {p:.3f}") for label, p in labels),
            ]
            lines.append("\t".join(fields))
    return "\n".join(lines)


def _as_json(path: str, song: Prediction, heads: Sequence[HeadConfig], count: int, threshold: float) -> str:
    from poolembed.predict import top

    def objects(labels: Labels) -> list[dict[str, object]]:
        return [{"label": label, "probability": p} for label, p in labels]

    line: dict[str, object] = {
        "path": path,
        "duration": song.duration,
        "labels": {head.column: objects(top(head, song.probabilities[head.column], count)) for head in heads},
    }
    if song.timelines:
        line["timestamps"] = {
            head.column: [
                {"start": start, "end": end, "labels": objects(labels)}
                for start, end, labels in _moments(song, head, count, threshold)
            ]
            for head in heads
        }
    return json.dumps(line)


def _moments(song: Prediction, head: HeadConfig, count: int, threshold: float) -> Iterator[tuple[float, float, Labels]]:
    """What is heard from when to when: each stretch's likeliest labels, or each label's own time."""
    from poolembed.predict import intervals, top

    timeline = song.timelines.get(head.column)
    if timeline is None:
        return
    if head.pool == "predictions":
        for each in intervals(head, timeline, threshold):
            yield each.start, each.end, [(each.label, each.probability)]
        return
    for start, end, row in zip(timeline.start, timeline.end, timeline.probabilities, strict=True):
        yield float(start), float(end), top(head, row, count)
