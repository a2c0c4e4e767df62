"""Which rows of a collection a name means: a path in any spelling, or a key."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence

from poolembed.search.collection import Collection
from poolembed.search.lance import Names
from poolembed.text import path_text

# Strings, not Paths: a Path for each of a million rows would take longer than the search itself.
# ruff: noqa: PTH100, PTH116, PTH119


def locate(collection: Collection, names: Sequence[str]) -> list[list[int]]:
    """The rows of each name, ascending; none where the collection does not have it, or the name is empty.

    A name is a path first: as given, from the root, with ``./`` and links resolved, or of the same file by another way.
    One that names no file on the disk may also be a key, or the path of a song that is no longer there.
    """
    by_path: defaultdict[str, list[int]] = defaultdict(list)
    by_key: defaultdict[str, list[int]] = defaultdict(list)
    by_last: defaultdict[str, list[int]] = defaultdict(list)
    files = [_identity(name) for name in names]
    for number, name in enumerate(names):
        if not name:
            continue
        real = os.path.realpath(name)
        spellings = {name, os.path.normpath(name), os.path.abspath(name), real}
        for spelling in spellings | set(map(path_text, spellings)):  # the latter in a table, which has only UTF-8
            by_path[spelling].append(number)
        if files[number] is None:
            for spelling in {name, os.path.normpath(name), path_text(name)}:
                by_key[spelling].append(number)
        else:
            for last in {os.path.basename(name), os.path.basename(real)}:
                by_last[last].append(number)
    rows: list[list[int]] = [[] for _ in names]
    lasts = {os.path.basename(path) for path in by_path}
    if not lasts:
        return rows
    for row, key, path in _candidates(collection, {*by_path, *by_key}):
        last = path.rpartition(os.sep)[2]
        if last not in lasts and key not in by_key:
            continue  # of a million rows, all but a few
        meant = {*by_path.get(_tidy(path), ()), *by_key.get(key, ())}
        alike = [number for number in by_last.get(last, ()) if number not in meant]
        if alike:
            file = _identity(path)
            meant.update(number for number in alike if files[number] == file)
        for number in meant:
            rows[number].append(row)
    return rows


def _candidates(collection: Collection, spellings: Iterable[str]) -> Iterable[tuple[int, str, str]]:
    """Row, key and path of all rows; or of those alone that a table finds by its own means."""
    if isinstance(collection.paths, Names):
        return collection.paths.table.find(spellings)
    return zip(range(len(collection)), collection.keys, collection.paths, strict=True)


def _tidy(path: str) -> str:
    return os.path.normpath(path) if "/." in path or "//" in path or path.startswith("./") else path


def _identity(path: str) -> tuple[int, int] | None:
    """What tells a file from others, or None where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
