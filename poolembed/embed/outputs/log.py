"""The manifest while a run lasts: append a line per song, tidy up at the end."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from poolembed.embed.manifest import Header, Manifest, Record
from poolembed.files.writing import open_bytes, replacing, write_at, writing


class Log:
    """The open manifest of an output directory.

    Attributes:
        path: the file.
        records: key -> record, what the file says.
        settled: no line supersedes another.
    """

    def __init__(self, path: Path, manifest: Manifest, work: Path) -> None:
        self.path = path
        self.header = manifest.header
        self.records = manifest.records
        self.settled = manifest.settled
        self._end = manifest.end
        self._work = work
        # A run that was killed just before it tidied up has one line a song too, in the order in which they ended.
        order = [_place(record) for record in self.records.values()]
        in_order = all(before <= after for before, after in pairwise(order))
        self._tidy = manifest.settled and in_order and path.stat().st_size == manifest.end
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
        earlier = self.records.get(record.key)
        if earlier == record:
            return
        line = record.to_line()
        self._tidy = False
        with writing(self.path):
            # If only half of it fits, the half has no newline: it is not read, and the next line goes over it.
            write_at(self._file, line, self._end)
        self._end += len(line)
        self.settled = self.settled and earlier is None
        self.records[record.key] = record

    def drop(self, records: Iterable[Record]) -> None:
        """Forget songs. On the disk when the log is compacted; until then a line of the file remembers them."""
        for record in records:
            del self.records[record.key]
            self._tidy = False

    def in_row_order(self) -> list[Record]:
        """Every record: those with a row by row, then those without by key."""
        return sorted(self.records.values(), key=_place)

    def rows(self) -> int:
        """How many rows the manifest lists; they are 0, 1, 2, … without a gap."""
        return sum(record.row is not None for record in self.records.values())

    def compact(self) -> None:
        """One line a song, in row order, nothing journalled; in one step. The last thing to do with a log.

        A tidy manifest is not touched, not even its modification time.
        """
        records = [
            record if record.journal is None else replace(record, journal=None, timestamps=None)
            for record in self.in_row_order()
        ]
        if self._tidy and all(record.journal is None for record in self.records.values()):
            return
        self.close()  # some systems do not replace an open file
        with writing(self.path), replacing(self.path, self._work) as part, part.open("wb") as file:
            file.write(self.header.to_line())
            file.writelines(record.to_line() for record in records)
        self.records = {record.key: record for record in records}

    def close(self) -> None:
        """Close the file; twice is once."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _place(record: Record) -> tuple[bool, int, str]:
    """What songs are sorted by: those with a row by their rows, then those without by their keys."""
    return record.row is None, record.row or 0, record.key
