"""``poolembed search``: more like this, and what tags fit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from poolembed.cli.embed import SOME_FAILED
from poolembed.cli.options import Device, Json, Null, Precision, Quiet, Rows, Workers
from poolembed.cli.reading import read_stdin
from poolembed.cli.separated import rule
from poolembed.errors import PoolembedError, UsageError
from poolembed.text import printable

if TYPE_CHECKING:
    from poolembed.search.answers import Answer

HELP = """\
\b
Examples:
  poolembed search song.mp3                                  the ten nearest in ./embeddings
  poolembed search a.mp3 b.mp3 --mean -k 50 --format m3u > mix.m3u8
  poolembed search embeddings/ --all -k 5 --format jsonl     every song's neighbours
  poolembed search song.mp3 --filter '*.flac' --exclude 'live/*'
  poolembed search --tag piano --tag "female singing"        where both are heard; poolembed tags --list has all
  poolembed search song.mp3 --tag choir                      like the song, and with a choir
  poolembed embed new/ -o - | poolembed search - --in embeddings/ -k 3
  poolembed search song.mp3 --in music.index                 what poolembed index wrote

A query is an audio file, a song of the collection by its path or key, an .npy file, or - for JSON Lines of embeddings
on standard input. A song that the collection has is not decoded again, and is no neighbour of itself. Neighbours come
in the order of their cosines, equally near ones in the order of the collection.

--tag ranks by what the collection's model hears, told from the vectors alone: by the geometric mean of the tags'
probabilities; beside a query by that times the cosine. It reads every vector, whatever indexes them.

""" + rule("CSV")

DEFAULT = "embeddings"

SHOWN = 20
"""Queries that failed and are named one by one."""


def search(
    queries: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUERY...", help="What to search for; with --all the collection.", show_default=False),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--in",
            metavar="PATH",
            help="Where to search: what embed, index or push wrote, or an .npy matrix.",
            show_default=DEFAULT,
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--top", min=1, metavar="K", help="How many neighbours.")] = 10,
    format: Annotated[
        Literal["table", "jsonl", "paths", "m3u", "csv"],
        typer.Option(help="jsonl: a line per query. csv: a line per neighbour. paths, m3u: every song once."),
    ] = "table",
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="What is to be heard; may be repeated.", show_default=False),
    ] = None,
    mean: Annotated[bool, typer.Option("--mean", help="One answer, for the mean of all queries.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Search for every song of the collection.")] = False,
    including: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            "--include",
            metavar="GLOB",
            help="Find only songs whose key or path matches; may be repeated. * matches / too.",
            show_default=False,
        ),
    ] = None,
    excluding: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="GLOB", help="Find no song that matches.", show_default=False),
    ] = None,
    with_query: Annotated[
        bool, typer.Option("--with-query", help="Let a song that is searched for be found itself.")
    ] = False,
    dim: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="D", help="Compare the first D numbers alone, of nested embeddings.", show_default="all"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Embeds the audio files, and tells tags.", show_default="the collection's own"
        ),
    ] = None,
    paths: Rows = None,
    null: Null = False,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Search for songs like these, the nearest embeddings by cosine, or for songs that tags fit."""
    arguments, place = _what_and_where(queries or [], source, every, bool(tags))
    if every and mean:
        raise UsageError("--mean of --all songs is near to nothing in particular", hint="choose one of the two")
    format = "jsonl" if as_json else format
    if null and format != "paths":
        raise UsageError("-0 belongs to --format paths")

    import poolembed
    from poolembed.cli import listing

    songs = poolembed.open(place, paths, dim=dim, model=model, device=device, precision=precision, workers=workers)
    if format in ("paths", "m3u") and not songs.has_paths:
        raise UsageError(f"{place} does not name its songs", hint="--paths FILE does, with a path a line")
    answers = songs.search_each(
        None if every else arguments,
        k,
        tags=tags or (),
        mean=mean,
        include=including or (),
        exclude=excluding or (),
        with_query=with_query,
        stdin=read_stdin() if "-" in arguments and sys.stdin is not None else b"",
        on_note=lambda note: typer.echo(note, err=True),
    )
    _say(answers.failures)
    if not answers.asked:
        raise typer.Exit(1)
    fewest, without = k, 0

    def counted() -> Iterator[Answer]:
        nonlocal fewest, without
        for answer in answers:
            if answer.hits:
                fewest = min(fewest, len(answer.hits))
            else:
                without += 1
            yield answer

    render: dict[str, Callable[[Iterable[Answer]], Iterator[str]]] = {
        "table": partial(listing.as_table, headings=every or answers.asked > 1),
        "jsonl": listing.as_jsonl,
        "csv": partial(listing.as_csv, tags=tags or ()),
        "paths": partial(listing.as_paths, end="\0" if null else "\n"),
        "m3u": lambda each: listing.as_m3u(each, songs.durations),
    }
    for text in render[format](counted()):
        typer.echo(text.encode("utf-8", "surrogateescape"), nl=False)
    if fewest < k and not quiet:
        typer.echo(f"note: asked for {k} neighbours, and there are {fewest}", err=True)
    if without and not quiet:
        typer.echo(f"note: songs without any neighbour, as silent ones are: {without}", err=True)
    if answers.failures:
        raise typer.Exit(SOME_FAILED)


def _what_and_where(queries: list[str], source: str | None, every: bool, tagged: bool) -> tuple[list[str], str]:
    """The queries and the collection; with --all the one argument is the collection."""
    if not every:
        if not queries and not tagged:
            raise UsageError("nothing to search for", hint="give a song, for example: poolembed search song.mp3")
        if queries.count("-") > 1:
            raise UsageError("standard input can be read once")
        return queries, source or DEFAULT
    if len(queries) + (source is not None) > 1:
        raise UsageError("--all searches for every song of one collection", hint="poolembed search embeddings/ --all")
    return [], source or (queries or [DEFAULT])[0]


def _say(failures: Mapping[str, PoolembedError]) -> None:
    """What cannot be searched for, and why, on standard error."""
    for name, error in list(failures.items())[:SHOWN]:
        typer.echo(f"{printable(name)}: {printable(str(error))}", err=True)
    if len(failures) > SHOWN:
        typer.echo(f"… and {len(failures) - SHOWN} more", err=True)
