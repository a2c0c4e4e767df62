"""Neighbours as text: a table to read, JSON Lines, CSV, bare paths, and a playlist."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

import typer

from poolembed.cli.separated import csv_line
from poolembed.errors import PoolembedError
from poolembed.text import printable

if TYPE_CHECKING:
    from poolembed.search.answers import Answer, Hit

_ADDRESS = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")
_NAMES = ("rank", "cosine", "path", "key", "title", "artist")
_values = attrgetter(*_NAMES)


def as_jsonl(answers: Iterable[Answer]) -> Iterator[str]:
    """An object per query."""
    for query, hits in answers:
        yield json.dumps({"query": query, "neighbours": [_object(hit) for hit in hits]}) + "\n"


def as_csv(answers: Iterable[Answer], tags: Sequence[str] = ()) -> Iterator[str]:
    """A line per neighbour, under a line of names, among them the tags that were searched for."""
    yield csv_line("query", *_NAMES, *tags)
    for query, hits in answers:
        for hit in hits:
            yield csv_line(query, *_values(hit), *(probability for _, probability in hit.tags))


def as_paths(answers: Iterable[Answer], end: str = "\n") -> Iterator[str]:
    """Every song once, in the order in which it first turns up.

    Raises:
        PoolembedError: a path has `end` in it.
    """
    for each in _each_once(answers):
        if end in each.path:
            message = f"{printable(each.path)} would be two lines"
            raise PoolembedError(message, hint="-0 ends paths in NUL, as xargs -0 reads them")
        yield each.path + end


def as_m3u(answers: Iterable[Answer], durations: Mapping[str, float]) -> Iterator[str]:
    """An extended playlist of every song once, by absolute paths, which play from wherever the playlist lies.

    Lengths are whole seconds, -1 where `durations`, by path, does not tell.
    """
    yield "#EXTM3U\n"
    for each in _each_once(answers):
        if "\n" in each.path or "\r" in each.path:
            typer.echo(f"not in the playlist: {printable(each.path)} has a line break in its name", err=True)
            continue
        path = each.path if _ADDRESS.match(each.path) else os.path.abspath(each.path)  # noqa: PTH100
        seconds = round(durations.get(each.path, -1))
        name = _title(each) or os.path.splitext(os.path.basename(path))[0]  # noqa: PTH119, PTH122
        yield f"#EXTINF:{seconds},{name}\n{path}\n"


def as_table(answers: Iterable[Answer], *, headings: bool) -> Iterator[str]:
    """For people: as wide as the terminal, and the query above its neighbours if there are several.

    Cosines, if there is a query, then the probabilities of the tags that were searched for.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    terminal = Console(highlight=False)
    for query, hits in answers:
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(justify="right", style="dim", no_wrap=True)
        for _ in _numbers(hits[0]) if hits else ():
            table.add_column(no_wrap=True)
        titled = any(map(_title, hits))
        if titled:
            table.add_column(style="bold", overflow="fold", max_width=50)
        table.add_column(overflow="fold")
        for each in hits:
            title = [escape(printable(_title(each)))] if titled else []
            table.add_row(str(each.rank), *_numbers(each), *title, escape(printable(each.key)))
        with terminal.capture() as capture:
            width = None if terminal.is_terminal else 1000  # a file has no edge to wrap at
            if headings:
                terminal.print(f"[bold]{escape(printable(query))}[/bold]", width=width)
            terminal.print(table, width=width)
            if headings:
                terminal.print()
        text = capture.get()
        yield text if terminal.is_terminal else "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _each_once(answers: Iterable[Answer]) -> Iterator[Hit]:
    seen: set[str] = set()
    for _, hits in answers:
        for each in hits:
            if each.path not in seen:
                seen.add(each.path)
                yield each


def _object(hit: Hit) -> dict[str, object]:
    known = dict(zip(_NAMES, _values(hit), strict=True))
    return {**known, "tags": dict(hit.tags)} if hit.tags else known


def _numbers(hit: Hit) -> list[str]:
    from rich.markup import escape

    cosine = [] if hit.cosine is None else [f"{hit.cosine:.4f}"]
    return [*cosine, *(f"{escape(printable(tag))} {probability:.3f}" for tag, probability in hit.tags)]


def _title(hit: Hit) -> str:
    """Artist and title, as far as they are known."""
    return " - ".join(text for text in (hit.artist, hit.title) if text)
