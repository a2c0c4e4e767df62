"""``poolembed tags``: what is heard in the songs of a collection, told from their vectors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from poolembed.cli.labelled import objects, tsv_line
from poolembed.cli.options import Json, Quiet, Rows
from poolembed.cli.progress import showing
from poolembed.cli.separated import csv_line, rule
from poolembed.text import printable

if TYPE_CHECKING:
    from poolembed.search.tagging import TaggedSong

HELP = """\
\b
Examples:
  poolembed tags                                   every song of ./embeddings and the likeliest tags
  poolembed tags music.index --top 10 --label-column audioset
  poolembed tags embeddings/ --format csv > tags.csv
  poolembed tags --list --model mymodel            all tags that a model knows
  poolembed search --tag piano --tag "female singing"

One line per song and column of labels: path, column, and the likeliest tags with their probabilities, tab-separated.
They are told from the vectors alone, of silent songs none; nothing is decoded. poolembed predict tells the same of
audio files, and when.

""" + rule("CSV and TSV")


def tags(
    collection: Annotated[
        str | None,
        typer.Argument(
            metavar="COLLECTION",
            help="What embed, index or push wrote, or an .npy matrix.",
            show_default="embeddings",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many tags of each column, the most probable first.")] = 3,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--label-column", metavar="COLUMN", help="Column of labels to tell; again for several.", show_default="all"
        ),
    ] = None,
    format: Annotated[
        Literal["tsv", "csv", "jsonl"],
        typer.Option(help="tsv: a line per song and column. csv: a line per tag. jsonl: a line per song."),
    ] = "tsv",
    listing: Annotated[bool, typer.Option("--list", help="List the tags that the model knows instead.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Tells the tags.", show_default="the collection's own")
    ] = None,
    paths: Rows = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Tell what is heard in the songs of a collection, from their embeddings alone."""
    import poolembed

    if listing:
        _list(collection, model, columns, as_json)
        return
    songs = poolembed.open(collection or "embeddings", paths, model=model)
    format = "jsonl" if as_json else format
    # Not where the lines themselves show how far it is.
    with showing(quiet or sys.stdout is None or sys.stdout.isatty()) as progress:
        found = songs.tags(columns=columns, count=top, progress=progress)
        render = {"tsv": _as_tsv, "csv": _as_csv, "jsonl": _as_jsonl}[format]
        for line in render(found):
            typer.echo(line.encode("utf-8", "surrogateescape"), nl=False)


def _list(collection: str | None, model: str | None, columns: list[str] | None, as_json: bool) -> None:
    import poolembed
    from poolembed.heads import choose, load_tagger

    tagger = load_tagger(model or "base") if collection is None else poolembed.open(collection, model=model).tagger
    heads = choose(tagger.heads, columns, tagger.name)
    if as_json:
        typer.echo(json.dumps({head.config.column: head.config.labels for head in heads}))
        return
    for head in heads:
        for label in head.config.labels:
            typer.echo(tsv_line([printable(head.config.column), printable(label)], []))


def _as_tsv(songs: Iterable[TaggedSong]) -> Iterator[str]:
    for song in songs:
        for column, labels in song.labels.items():
            yield tsv_line([printable(song.path), *([column] if len(song.labels) > 1 else [])], labels) + "\n"


def _as_csv(songs: Iterable[TaggedSong]) -> Iterator[str]:
    yield csv_line("path", "key", "column", "tag", "probability")
    for song in songs:
        for column, labels in song.labels.items():
            for label, probability in labels:
                yield csv_line(song.path, song.key, column, label, round(probability, 6))


def _as_jsonl(songs: Iterable[TaggedSong]) -> Iterator[str]:
    for path, key, labels in songs:
        told = {column: objects(each) for column, each in labels.items()}
        yield json.dumps({"path": path, "key": key, "labels": told}) + "\n"
