"""What the page says of each song: its tags, its folder, and where it can be played from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from poolembed.audio.tags import read_tags
from poolembed.search.collection import Collection
from poolembed.text import printable

READERS = 8
"""Threads that read tags; they mostly wait for the disk."""


@dataclass(frozen=True)
class Folder:
    """A folder that songs are in.

    Attributes:
        shown: its path for people, with a separator at its end; empty where songs have no folder.
        url: what to put before a quoted file name; empty where it is not known where the songs are.
    """

    shown: str
    url: str


@dataclass(frozen=True)
class Songs:
    """N songs, column by column; text is on one line, and empty where nothing is known.

    Attributes:
        titles, artists, albums: from the files' tags.
        names: file names.
        tops: the first folder below the one that all songs are in.
        folders: every folder once.
        folder: of each song, by its number in `folders`.
        urls: row -> the quoted file name, for names that are not shown as they are.
        missing: rows of files that are not there.
    """

    titles: list[str]
    artists: list[str]
    albums: list[str]
    names: list[str]
    tops: list[str]
    folders: list[Folder]
    folder: list[int]
    urls: dict[int, str]
    missing: list[int]

    def title(self, row: int) -> str:
        """What to call a song."""
        return self.titles[row] or self.names[row]


def describe(collection: Collection, page: Path) -> Songs:
    """Read what there is to say of a collection's songs.

    Args:
        collection: whose paths are looked at; relative ones from the working directory.
        page: where the map will be. Songs in or below its folder get addresses relative to it, so that both can be
            moved or served together; others get ``file:`` addresses.
    """
    here = page.absolute().parent
    numbers: dict[Folder, int] = {}
    known: dict[tuple[str, bool], Folder] = {}
    names, folder, urls = [], [], {}
    with ThreadPoolExecutor(READERS) as pool:
        there = list(pool.map(os.path.isfile, collection.paths))
        tags = list(pool.map(read_tags, collection.paths))
    for row, path in enumerate(collection.paths):
        head, name = os.path.split(path)
        located = there[row] or Path(path).is_absolute()
        if (head, located) not in known:
            shown = head if head.endswith(os.sep) or not head else head + os.sep
            known[head, located] = Folder(printable(shown), _url(head, here) if located else "")
        folder.append(numbers.setdefault(known[head, located], len(numbers)))
        names.append(printable(name))
        if names[row] != name:
            urls[row] = quote(os.fsencode(name))
    return Songs(
        titles=[printable(each.title or "") for each in tags],
        artists=[printable(each.artist or "") for each in tags],
        albums=[printable(each.album or "") for each in tags],
        names=names,
        tops=_tops(collection.keys),
        folders=list(numbers),
        folder=folder,
        urls=urls,
        missing=[row for row, found in enumerate(there) if not found],
    )


def _url(folder: str, here: Path) -> str:
    """The address of a folder, with a slash at its end."""
    try:
        parts = Path(os.path.relpath(folder or os.curdir, here)).parts
    except ValueError:  # on another drive
        parts = (os.pardir,)
    if os.pardir in parts:
        return (Path(folder).absolute() / "_").as_uri()[:-1]
    return "".join(f"{quote(os.fsencode(part))}/" for part in (os.curdir, *parts))


def _tops(keys: Sequence[str]) -> list[str]:
    parents = [key.replace(os.sep, "/").split("/")[:-1] for key in keys]
    differ = (at for at, names in enumerate(zip(*parents, strict=False)) if len(set(names)) > 1)
    shared = next(differ, min(map(len, parents)))
    return [printable(parts[shared]) if len(parts) > shared else "" for parts in parents]
