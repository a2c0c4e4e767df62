"""Which songs are left to embed, and under which name each is kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from poolembed.embed.manifest import NAME, WORK, Record

if TYPE_CHECKING:
    from poolembed.audio.find import FoundFile


@dataclass(frozen=True, slots=True)
class Job:
    """A song to embed.

    Attributes:
        path: as found; this is what to open.
        key: its name in the output, unique there.
        abspath: the path from the root.
        size: bytes before decoding, or None where the file could not be looked at.
        mtime: ``st_mtime`` before decoding, so that a change meanwhile is noticed by the next run.
    """

    path: str
    key: str
    abspath: str
    size: int | None
    mtime: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run has to do: ``todo`` in the order found, and how many songs are as they were."""

    todo: list[Job]
    unchanged: int


def job_for(path: str, key: str) -> Job:
    """Look at a file; one that cannot be looked at is left to the decoder to report."""
    # Not Path.resolve: a song reached through a link is known by the link.
    abspath = os.path.abspath(path)  # noqa: PTH100
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return Job(path, key, abspath, None, None)
    return Job(path, key, abspath, status.st_size, status.st_mtime)


def make_plan(
    found: Sequence[FoundFile], records: Iterable[Record], names: Names, is_stored: Callable[[Record], bool]
) -> tuple[Plan, list[Record]]:
    """Sort songs into those to embed and those that are as they were.

    Args:
        found: the songs, in order; one that is given twice counts once.
        records: what the manifest says; each must have been given to ``names``.
        names: hands out keys.
        is_stored: whether the embedding of a record is still where it was put.

    Returns:
        The plan, and a new record for every unchanged song that has moved.
    """
    by_path = {record.abspath: record for record in records}
    seen: set[str] = set()
    todo: list[Job] = []
    moved: list[Record] = []
    unchanged = 0
    for file in found:
        job = job_for(file.path, file.key)
        if job.abspath in seen:
            continue
        seen.add(job.abspath)
        record = by_path.get(job.abspath)
        if record is not None and names.claim(record.key):
            job = replace(job, key=record.key)
        else:
            job = replace(job, key=names.choose(file, job.abspath))
            record = names.holder(job.key)
        if (
            record is None
            or record.status != "ok"
            or (record.size, record.mtime) != (job.size, job.mtime)
            or not is_stored(record)
        ):
            todo.append(job)
            continue
        unchanged += 1
        if record.abspath != job.abspath:
            moved.append(replace(record, path=job.path, abspath=job.abspath))
    return Plan(todo, unchanged), moved


def vanished(records: Iterable[Record], found: Sequence[FoundFile]) -> list[Record]:
    """The records of what failed and is gone now, or was a folder that could not be searched and can be now.

    Whatever else failed is still there, or has an embedding of an earlier version that is to be kept.
    """
    seen = {os.path.abspath(file.path) for file in found}  # noqa: PTH100
    return [
        record
        for record in records
        if record.status == "failed" and record.output is None and record.abspath not in seen and _is_gone(record)
    ]


def _is_gone(record: Record) -> bool:
    try:
        with os.scandir(record.abspath):
            return True
    except NotADirectoryError:
        return False
    except (OSError, ValueError):
        return not os.path.lexists(record.abspath)


class Names:
    """Hands out keys so that no two songs share one, nor a file of one needs to be a directory of another.

    Args:
        records: the songs that have a key.
        suffixes: what the files of one song end in; empty if songs share one file.
        fold: two names that fold to the same are one file on this file system.
    """

    def __init__(self, records: Iterable[Record], suffixes: Sequence[str], fold: Callable[[str], str]) -> None:
        self._suffixes = suffixes
        self._fold = fold
        self._holders = {fold(record.key): record for record in records}
        self._claimed: set[str] = set()
        self._files = {fold(NAME), fold("embeddings.npy")}
        self._directories = {fold(WORK)}
        for key in self._holders:
            self._occupy(key)

    def holder(self, key: str) -> Record | None:
        """The song that had ``key`` before this plan."""
        return self._holders.get(self._fold(key))

    def claim(self, key: str) -> bool:
        """Take a key for a song of this plan; False if another song of it has it."""
        if self._fold(key) in self._claimed:
            return False
        self._claimed.add(self._fold(key))
        return True

    def choose(self, file: FoundFile, abspath: str) -> str:
        """A free key for a song that has none: the shortest that still says where the song is from.

        The key of a song that is no longer where it was is free: the library has moved.
        """
        for key in _candidates(file, abspath):
            folded = self._fold(key)
            if folded in self._claimed:
                continue
            holder = self._holders.get(folded)
            if holder is None:
                if self._clashes(folded):
                    continue
                self._occupy(folded)
            elif os.path.lexists(holder.abspath):
                continue
            self._claimed.add(folded)
            return key if holder is None else holder.key  # they may differ in case
        raise AssertionError("candidates never end")

    def _occupy(self, folded: str) -> None:
        if self._suffixes:
            self._files.update(folded + suffix for suffix in self._suffixes)
            self._directories.update(_parents(folded))

    def _clashes(self, folded: str) -> bool:
        if not self._suffixes:
            return False
        files = [folded + suffix for suffix in self._suffixes]
        return any(file in self._files or file in self._directories for file in files) or any(
            parent in self._files or parent == self._fold(WORK) for parent in _parents(folded)
        )


def _candidates(file: FoundFile, abspath: str) -> Iterator[str]:
    # A drive letter becomes a directory; what is left has no way of leading out of the output directory.
    drive, tail = os.path.splitdrive(abspath)
    whole = f"{drive.replace(':', '')}/{tail}".replace(os.sep, "/").strip("/")
    wanted = [file.key, f"{file.root}/{file.key}", whole] if file.root else [file.key, whole]
    # What an argument that is no file's name is called; an embedding never is.
    wanted, whole = [key.replace("\0", "_") for key in wanted], whole.replace("\0", "_")
    yield from (key for key in wanted if all(part not in ("", ".", "..") for part in key.split("/")))
    number = 2
    while True:
        # A new first directory, because any of the others may be where another song has a file.
        yield f"~{number}/{whole}"
        number += 1


def _parents(key: str) -> Iterator[str]:
    at = key.find("/")
    while at >= 0:
        yield key[:at]
        at = key.find("/", at + 1)
