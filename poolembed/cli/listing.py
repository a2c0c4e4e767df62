"""Neighbours as text: a table to read, JSON Lines, CSV, bare paths, and a playlist."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import typer

from poolembed.audio.tags import Tags, read_tags
from poolembed.cli.separated import csv_line
from poolembed.errors import PoolembedError
from poolembed.search.answers import Answer
from poolembed.search.collection import Collection
from poolembed.text import printable

_ADDRESS = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")
_REMEMBERED = 1 << 16  # songs whose tags are read once though they are neighbours of several


@dataclass(frozen=True)
class Neighbour:
    """A song that was found."""

    rank: int
    cosine: float
    key: str
    path: str
    tags: Tags
    seconds: float | None = None

    @property
    def title(self) -> str | None:
        """Artist and title, as far as they are known."""
        return " - ".join(text for text in (self.tags.artist, self.tags.title) if text) or None


@dataclass(frozen=True)
class Listing:
    """A query and its neighbours."""

    query: str
    neighbours: list[Neighbour]


def look_up(answers: Iterable[Answer], collection: Collection, lengths: Mapping[str, float]) -> Iterator[Listing]:
    """Rows to songs, with the tags of those alone; `lengths` are seconds by path, of songs of which they are known."""
    tags = lru_cache(_REMEMBERED)(read_tags)
    for answer in answers:
        neighbours = []
        for rank, (row, cosine) in enumerate(zip(answer.rows, answer.cosines, strict=True), start=1):
            path = collection.paths[row]
            found = tags(path) if collection.named else Tags()
            seconds = lengths.get(path)
            neighbours.append(Neighbour(rank, round(cosine, 6), collection.keys[row], path, found, seconds))
        yield Listing(answer.query, neighbours)


def as_jsonl(listings: Iterable[Listing]) -> Iterator[str]:
    """An object per query."""
    for listing in listings:
        neighbours = [
            {
                "rank": each.rank,
                "cosine": each.cosine,
                "path": each.path,
                "key": each.key,
                "title": each.tags.title,
                "artist": each.tags.artist,
            }
            for each in listing.neighbours
        ]
        yield json.dumps({"query": listing.query, "neighbours": neighbours}) + "\n"


def as_csv(listings: Iterable[Listing]) -> Iterator[str]:
    """A line per neighbour, under a line of names."""
    yield csv_line("query", "rank", "cosine", "path", "key", "title", "artist")
    for listing in listings:
        for each in listing.neighbours:
            yield csv_line(
                listing.query, each.rank, each.cosine, each.path, each.key, each.tags.title, each.tags.artist
            )


def as_paths(listings: Iterable[Listing], end: str = "\n") -> Iterator[str]:
    """Every song once, in the order in which it first turns up.

    Raises:
        PoolembedError: a path has `end` in it.
    """
    for each in _each_once(listings):
        if end in each.path:
            message = f"{printable(each.path)} would be two lines"
            raise PoolembedError(message, hint="-0 ends paths in NUL, as xargs -0 reads them")
        yield each.path + end


def as_m3u(listings: Iterable[Listing]) -> Iterator[str]:
    """An extended playlist of every song once, by absolute paths, which play from wherever the playlist lies.

    Lengths are whole seconds of what was decoded when the song was embedded, and -1 where that is not known.
    """
    yield "#EXTM3U\n"
    for each in _each_once(listings):
        if "\n" in each.path or "\r" in each.path:
            typer.echo(f"not in the playlist: {printable(each.path)} has a line break in its name", err=True)
            continue
        path = each.path if _ADDRESS.match(each.path) else os.path.abspath(each.path)  # noqa: PTH100
        seconds = -1 if each.seconds is None else round(each.seconds)
        name = each.title or os.path.splitext(os.path.basename(path))[0]  # noqa: PTH119, PTH122
        yield f"#EXTINF:{seconds},{name}\n{path}\n"


def as_table(listings: Iterable[Listing], *, headings: bool) -> Iterator[str]:
    """For people: as wide as the terminal, and the query above its neighbours if there are several."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    terminal = Console(highlight=False)
    for listing in listings:
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(justify="right", style="dim", no_wrap=True)
        table.add_column(no_wrap=True)
        titled = any(each.title for each in listing.neighbours)
        if titled:
            table.add_column(style="bold", overflow="fold", max_width=50)
        table.add_column(overflow="fold")
        for each in listing.neighbours:
            title = [escape(printable(each.title or ""))] if titled else []
            table.add_row(str(each.rank), f"{each.cosine:.4f}", *title, escape(printable(each.key)))
        with terminal.capture() as capture:
            width = None if terminal.is_terminal else 1000  # a file has no edge to wrap at
            if headings:
                terminal.print(f"[bold]{escape(printable(listing.query))}[/bold]", width=width)
            terminal.print(table, width=width)
            if headings:
                terminal.print()
        text = capture.get()
        yield text if terminal.is_terminal else "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _each_once(listings: Iterable[Listing]) -> Iterator[Neighbour]:
    seen: set[str] = set()
    for listing in listings:
        for each in listing.neighbours:
            if each.path not in seen:
                seen.add(each.path)
                yield each
