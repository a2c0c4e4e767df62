"""Which collection an index is of, and whether that has changed since."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from poolembed.embed.manifest import NAME
from poolembed.errors import OutputError, VectorsError
from poolembed.search.collection import Collection, open_collection


@dataclass(frozen=True)
class Origin:
    """A collection as it was.

    Attributes:
        source: file or directory, from the root.
        paths: the file of its paths, from the root, where one was given.
        stamp: of `Collection`.
        seen: path, size and time of the files that are written whenever the collection changes.
    """

    source: str
    paths: str | None
    stamp: str
    seen: list[tuple[str, int, int]]

    def has_changed(self) -> bool:
        """Whether the collection is another now. One that is gone is not: an index can be used without it.

        As long as no file is newer this takes no time, else as long as opening the collection.
        """
        if not os.path.exists(self.source) or _seen(self.source, self.paths) == self.seen:  # noqa: PTH110
            return False
        try:
            return open_collection(self.source, self.paths).stamp != self.stamp
        except (VectorsError, OutputError):
            return True


def open_origin(source: str | os.PathLike[str], paths: str | os.PathLike[str] | None) -> tuple[Collection, Origin]:
    """Open a collection; arguments and errors are those of `open_collection`."""
    place = os.path.abspath(source)  # noqa: PTH100 - links stay what they are
    listed = None if paths is None else os.path.abspath(paths)  # noqa: PTH100
    seen = _seen(place, listed)  # before it is read, so that what changes meanwhile is noticed
    collection = open_collection(source, paths)
    return collection, Origin(place, listed, collection.stamp, seen)


def _seen(source: str, paths: str | None) -> list[tuple[str, int, int]]:
    place = Path(source)
    files = [place / NAME] if place.is_dir() else [place, place.parent / NAME]
    seen = []
    for file in [*files, *([Path(paths)] if paths else [])]:
        try:
            status = file.stat()
        except OSError:
            continue
        seen.append((os.fspath(file), status.st_size, status.st_mtime_ns))
    return seen
