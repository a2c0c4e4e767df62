"""``poolembed search``: more like this."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from poolembed.cli.embed import SOME_FAILED
from poolembed.cli.reading import read_stdin
from poolembed.cli.separated import rule
from poolembed.errors import BundleNotFoundError, UsageError, VectorsError
from poolembed.text import printable

if TYPE_CHECKING:
    from poolembed.cli.listing import Listing
    from poolembed.embed.model import Model
    from poolembed.search.collection import Collection
    from poolembed.search.queries import Queries, Query

HELP = """\
Search for songs like these: the nearest embeddings by cosine.

\b
Examples:
  poolembed search song.mp3                                  the ten nearest in ./embeddings
  poolembed search a.mp3 b.mp3 --mean -k 50 --format m3u > mix.m3u8
  poolembed search embeddings/ --all -k 5 --format jsonl     every song's neighbours
  poolembed search song.mp3 --filter '*.flac' --exclude 'live/*'
  poolembed embed new/ -o - | poolembed search - --in embeddings/ -k 3
  poolembed search song.mp3 --in music.index                 what poolembed index wrote

A query is an audio file, a song of the collection by its path or key, an .npy file, or - for JSON Lines of embeddings
on standard input. A song that the collection has is not decoded again, and is no neighbour of itself. Neighbours come
in the order of their cosines, equally near ones in the order of the collection.

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
        typer.Option("--model", "-m", help="Embeds the audio files.", show_default="the collection's own"),
    ] = None,
    paths: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The path of each row of an .npy matrix, one a line.", show_default=False),
    ] = None,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="End paths in NUL, as find -print0; with --format paths.")
    ] = False,
) -> None:
    """Search for songs like these: the nearest embeddings by cosine."""
    arguments, place = _what_and_where(queries or [], source, every)
    if every and mean:
        raise UsageError("--mean of --all songs is near to nothing in particular", hint="choose one of the two")
    if null and format != "paths":
        raise UsageError("-0 belongs to --format paths")

    from poolembed.cli import listing
    from poolembed.search.answers import allowed_rows, answer
    from poolembed.search.lengths import read_lengths
    from poolembed.search.opening import open_library
    from poolembed.search.queries import Queries, every_row, mean_query, read_queries

    library = open_library(place, paths, dim)
    collection = library.collection
    if format in ("paths", "m3u") and not collection.named:
        raise UsageError(f"{place} does not name its songs", hint="--paths FILE does, with a path a line")
    allowed = allowed_rows(collection, including or [], excluding or [])
    asked = Queries()
    if every:
        found: Iterable[Query] = every_row(collection)
    else:
        stdin = read_stdin() if "-" in arguments and sys.stdin is not None else b""
        asked = read_queries(arguments, collection, stdin, shorten=dim is not None)
        found = known = _embedded(asked, collection, model)
        _say(asked)
        if not known:
            raise typer.Exit(1)
        if mean:
            found = [mean_query(known)]
    lengths = read_lengths(collection) if format == "m3u" else {}
    answers = answer(library.searcher, found, k, allowed, with_query=with_query)
    fewest = k

    def counted() -> Iterator[Listing]:
        nonlocal fewest
        for each in listing.look_up(answers, collection, lengths):
            fewest = min(fewest, len(each.neighbours))
            yield each

    several = every or (len(asked.found) > 1 and not mean)
    render: dict[str, Callable[[Iterable[Listing]], Iterator[str]]] = {
        "table": partial(listing.as_table, headings=several),
        "jsonl": listing.as_jsonl,
        "csv": listing.as_csv,
        "paths": partial(listing.as_paths, end="\0" if null else "\n"),
        "m3u": listing.as_m3u,
    }
    for text in render[format](counted()):
        typer.echo(text.encode("utf-8", "surrogateescape"), nl=False)
    if fewest < k:
        typer.echo(f"note: asked for {k} neighbours, and there are {fewest}", err=True)
    if asked.failures:
        raise typer.Exit(SOME_FAILED)


def _what_and_where(queries: list[str], source: str | None, every: bool) -> tuple[list[str], str]:
    """The queries and the collection; with --all the one argument is the collection."""
    if not every:
        if not queries:
            raise UsageError("nothing to search for", hint="give a song, for example: poolembed search song.mp3")
        if queries.count("-") > 1:
            raise UsageError("standard input can be read once")
        return queries, source or DEFAULT
    if len(queries) + (source is not None) > 1:
        raise UsageError("--all searches for every song of one collection", hint="poolembed search embeddings/ --all")
    return [], source or (queries or [DEFAULT])[0]


def _embedded(asked: Queries, collection: Collection, model: str | None) -> list[Query]:
    """The queries, those that are audio embedded by the collection's model, without those that fail."""
    from poolembed.search.queries import BadVectorError, Query, unit_vector

    songs = [each for each in asked.found if isinstance(each, str)]
    if not songs:
        return [each for each in asked.found if isinstance(each, Query)]
    from poolembed.embed.song import Failed

    loaded = _load(songs, collection, model)
    if len(songs) > 1:
        typer.echo(f"{len(songs)} songs to embed", err=True)
    of_songs: dict[str, Query] = {}
    with closing(loaded.outcomes(songs)) as outcomes:
        for outcome in outcomes:
            path = songs[outcome.index]
            if isinstance(outcome, Failed):
                asked.failures[path] = outcome.reason
                continue
            if outcome.note is not None:
                typer.echo(f"{printable(path)}: {outcome.note}", err=True)
            try:
                of_songs[path] = Query(path, unit_vector(outcome.embedding, collection, shorten=True))
            except BadVectorError as error:
                asked.failures[path] = str(error)
    queries = (of_songs.get(each) if isinstance(each, str) else each for each in asked.found)
    return [query for query in queries if query is not None]


def _load(songs: Sequence[str], collection: Collection, model: str | None) -> Model:
    """The model that embeds queries, which has to be the collection's."""
    from poolembed.embed.model import load
    from poolembed.identity import ModelIdentity
    from poolembed.search.queries import check_model

    if model is not None:
        loaded = load(model)
    elif collection.model is None:
        raise UsageError(
            f"{collection.source} does not say which model its vectors are of, so {songs[0]} cannot be embedded",
            hint="--model names it",
        )
    else:
        own = collection.model
        try:
            loaded = load(own.name)
        except BundleNotFoundError as error:
            raise VectorsError(
                f"{collection.source} is of the model {own.name} ({own.fingerprint[:8]}), which is not at hand",
                hint="--model gives its path",
            ) from error
    identity = ModelIdentity(loaded.name, loaded.fingerprint, loaded.embedding_size)
    check_model(identity, collection, f"the query {songs[0]}")
    return loaded


def _say(asked: Queries) -> None:
    """What cannot be searched for, and why, on standard error."""
    for name, reason in list(asked.failures.items())[:SHOWN]:
        typer.echo(f"{printable(name)}: {printable(reason)}", err=True)
    if len(asked.failures) > SHOWN:
        typer.echo(f"… and {len(asked.failures) - SHOWN} more", err=True)
