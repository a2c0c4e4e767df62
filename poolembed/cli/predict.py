"""``poolembed predict``: songs in, labels out."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from poolembed.cli.embed import SOME_FAILED
from poolembed.cli.labelled import objects, tsv_line
from poolembed.cli.options import Device, Json, Precision, Quiet, Workers
from poolembed.cli.separated import rule
from poolembed.cli.stopping import stop_on_signal

if TYPE_CHECKING:
    from poolembed.embed.predict import LabelledSong

HELP = """\
\b
Examples:
  poolembed predict song.mp3 --model mymodel       what it hears in it
  poolembed predict ~/Music --model mymodel --top 1
  poolembed predict street.flac --model mymodel --timestamps 1
  poolembed predict ~/Music --model mymodel --json | jq .labels

One line per song: its path and its labels, tab-separated. --timestamps adds lines that begin with path and time: one
per S seconds; or, if the model was trained with --pool predictions, one per label and stretch of time that it is heard.
What is embedded already need not be decoded again: poolembed tags tells the same from embeddings.

""" + rule("TSV")


def predict(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Audio files, and directories to search for them.", show_default=False),
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="A model that knows labels: a name, or a path.")] = "base",
    timestamps: Annotated[
        float | None, typer.Option(metavar="S", help="Also say when, as fine as S seconds.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many labels, the most probable first.")] = 3,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="From which probability on a label is heard.", show_default="0.5"),
    ] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            "--label-column",
            metavar="COLUMN",
            help="Column of labels to predict; again for several.",
            show_default="all",
        ),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Label songs: what a model that knows labels hears in them, with probabilities."""
    import poolembed
    from poolembed.text import printable

    failed = False

    def fail(path: str, reason: str) -> None:
        nonlocal failed
        failed = True
        typer.echo(f"{printable(path)}: {reason}", err=True)

    with stop_on_signal(None if quiet else "finishing the songs in hand") as stop:
        songs = poolembed.predict(
            paths,
            model,
            columns=head,
            count=top,
            seconds=timestamps,
            threshold=threshold,
            device=device,
            precision=precision,
            workers=workers,
            stop=stop,
            on_error=fail,
            on_note=lambda note: typer.echo(note, err=True),
        )
        with closing(songs):
            for song in songs:
                typer.echo(_as_json(song) if as_json else _as_lines(song))
    if stop.signal:
        raise typer.Exit(128 + stop.signal)
    if failed:
        raise typer.Exit(SOME_FAILED)


def _as_lines(song: LabelledSong) -> str:
    from poolembed.text import printable

    lines = []
    for column, labels in song.labels.items():
        first = [printable(song.path), *([column] if len(song.labels) > 1 else [])]
        moments = [([f"{each.start:.2f}-{each.end:.2f}"], each.labels) for each in song.moments.get(column, ())]
        lines += [tsv_line([*first, *when], found) for when, found in [([], labels), *moments]]
    return "\n".join(lines)


def _as_json(song: LabelledSong) -> str:
    line: dict[str, object] = {
        "path": song.path,
        "duration": song.duration,
        "labels": {column: objects(labels) for column, labels in song.labels.items()},
    }
    if song.moments:
        line["timestamps"] = {
            column: [{"start": each.start, "end": each.end, "labels": objects(each.labels)} for each in moments]
            for column, moments in song.moments.items()
        }
    return json.dumps(line)
