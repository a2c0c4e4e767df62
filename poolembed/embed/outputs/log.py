"""The manifest while a run lasts: append a line per song, tidy up at the end."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

from poolembed.embed.manifest import Header, Manifest, Record
from poolembed.files.writing import open_bytes, replacing, write_at, writing


class Log:
    """The open manifest of an output directory.

    Attributes:
        path: the file.
        records: key -> record, what the file says.
        changed: it says something else than when it was opened, or is not tidy: it has to be written anew.
        before_change: called before the first change.
    """

    def __init__(self, path: Path, manifest: Manifest, work: Path) -> None:
        self.path = path
        self.header = manifest.header
        self.records = manifest.records
        self.before_change: Callable[[], None] = lambda: None
        self._end = manifest.end
        self._work = work
        # A run that was killed just before it tidied up has one line a song too, in the order in which they ended.
        order = [_place(record) for record in self.records.values()]
        in_order = all(before <= after for before, after in pairwise(order))
        self.changed = not (manifest.settled and in_order and path.stat().st_size == manifest.end)
        self._file = open_bytes(path, os.O_RDWR)

    @classmethod
    def create(cls, path: Path, header: Header, work: Path) -> Log:
        """Start an empty manifest in place of what is there."""
        line = header.to_line()
        with replacing(path, work) as part:
            part.write_bytes(line)
        return cls(path, Manifest(header, {}, len(line), settled=True), work)

    def put(self, record: Record) -> None:
        """Say what became of a song. On the disk when this returns, as far as a killed process is concerned.

        Raises:
            OutputError: it cannot be written; the manifest is as before.
        """
        if self.records.get(record.key) == record:
            return
        line = record.to_line()
        with writing(self.path):
            self._change()
            # If only half of it fits, the half has no newline: it is not read, and the next line goes over it.
            write_at(self._file, line, self._end)
        self._end += len(line)
        self.records[record.key] = record

    def drop(self, records: Iterable[Record]) -> None:
        """Forget songs. On the disk when the log is compacted; until then a line of the file remembers them."""
        for record in records:
            with writing(self.path):
                self._change()
            del self.records[record.key]

    def in_row_order(self) -> list[Record]:
        """Every record: those with a row by row, then those without by key."""
        return sorted(self.records.values(), key=_place)

    def rows(self) -> list[Record]:
        """The records with a row, in order; rows are 0, 1, 2, … without a gap."""
        return [record for record in self.in_row_order() if record.row is not None]

    def compact(self) -> None:
        """One line a song, in row order; in one step. The last thing to do with a log.

        A manifest that has not changed is not touched, not even its modification time.
        """
        self.close()  # some systems do not replace an open file
        if self.changed:
            with writing(self.path), replacing(self.path, self._work) as part, part.open("wb") as file:
                file.write(self.header.to_line())
                file.writelines(record.to_line() for record in self.in_row_order())

    def close(self) -> None:
        """Close the file; twice is once."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _change(self) -> None:
        self.before_change()
        self.changed = True


def digest_of(manifest: Path) -> str:
    """Of what a manifest says of its songs, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with manifest.open("rb") as file:
        file.readline()  # the header has the time at which it was begun
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _place(record: Record) -> tuple[bool, int, str]:
    """What songs are sorted by: those with a row by their rows, then those without by their keys."""
    return record.row is None, record.row or 0, record.key
