"""Two files that only ever grow: rows of bytes, and the journal that says which rows are what.

``mel.u8`` holds uint8 rows of one width, nothing else. ``index.jsonl`` begins with a header; every other line is one
entry, written after its rows, or a mark: all rows before it are on the disk for certain. A killed process leaves at
worst rows that no line speaks of, and half a line; the next one writes over both. After a power failure lines may have
outlived their rows: entries beyond the last mark are compared with their checksum, and those that fail are forgotten.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import msgspec
import numpy as np
from filelock import Timeout
from msgspec import Meta
from numpy.typing import NDArray

from poolembed.errors import OutputError
from poolembed.files.claims import lock_at
from poolembed.files.reading import read_regular
from poolembed.files.writing import open_bytes, replacing, write_at
from poolembed.text import size

ROWS, INDEX = "mel.u8", "index.jsonl"

_DIGEST = 16  # bytes of a checksum

PATIENCE = 16 << 20
"""Bytes of one entry that are kept in memory until it is whole. A longer one is written as it comes, while other
threads wait with theirs: the rows of an entry lie side by side."""

MARK_EVERY = 256 << 20
"""Bytes after which the rows are forced to the disk."""


@contextmanager
def alone(folder: Path, stop: threading.Event) -> Iterator[bool]:
    """Make a folder and wait until no other process is in it; False if told to stop first.

    Raises:
        OutputError: it cannot be made or locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_at(folder / "lock")
        while not stop.is_set():
            with suppress(Timeout):
                lock.acquire(timeout=0.2)
                break
    except OSError as error:
        raise OutputError(
            f"cannot write the cache {folder}: {error.strerror or error}", hint="name another directory with --cache"
        ) from error
    try:
        yield lock.is_locked
    finally:
        lock.release()


def check_disk(folder: Path, needed: float, what: str) -> None:
    """Raise an OutputError if the disk of a folder has fewer bytes left than are needed."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{what} need about {size(needed)}, and the disk of {folder} has {size(free)} left",
            hint="make room, or name a directory on another disk with --cache",
        )


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of one version of one file.

    Attributes:
        path: absolute; may hold surrogate escapes.
        size: of the file, in bytes.
        mtime_ns: when it was last modified.
        start: in seconds.
        end: in seconds; None is the end of the file.
    """

    path: str
    size: int
    mtime_ns: int
    start: float
    end: float | None


@dataclass(frozen=True, slots=True)
class Entry:
    """What is stored of a stretch.

    Attributes:
        stretch: what it is of.
        offset: its first row.
        rows: how many there are.
        content: checksum of the rows, in hexadecimal; stretches of equal content have equal rows.
        seconds: decoded audio.
        note: what was wrong with the audio though it was decoded, or None.
    """

    stretch: Stretch
    offset: Annotated[int, Meta(ge=0)]
    rows: Annotated[int, Meta(ge=0)]
    content: str
    seconds: float
    note: str | None

    def to_line(self) -> bytes:
        """The entry as a line of the journal, newline included."""
        # ASCII, so that names that are no text survive; msgspec would refuse their surrogates.
        return json.dumps(asdict(self)).encode("ascii") + b"\n"


class Store:
    """A directory of rows and journal, open for writing; threads may add at the same time. A context manager.

    The caller keeps other processes away. Readers may map ``mel.u8`` at any time: rows of entries never change.

    Args:
        directory: where the files are, or will be.
        header: what the rows mean, JSON; a directory with another header is not touched.
        width: bytes of a row.

    Attributes:
        entries: the last entry of every stretch.

    Raises:
        OutputError: the directory cannot be written, or holds something else.
    """

    def __init__(self, directory: Path, header: Mapping[str, Any], width: int) -> None:
        self.directory = directory
        self.entries: dict[Stretch, Entry] = {}
        self._header = json.dumps(header).encode("ascii") + b"\n"
        self._width = width
        self._turn = threading.Lock()
        self._end = self._marked = self._index_end = 0
        with self._writing(), ExitStack() as undo:
            directory.mkdir(parents=True, exist_ok=True)
            self._rows = open_bytes(directory / ROWS, os.O_RDWR | os.O_CREAT)
            undo.callback(os.close, self._rows)
            damaged = self._read()
            if damaged or not self._index_end:
                self._rewrite()
            self._index = open_bytes(directory / INDEX, os.O_RDWR)
            undo.pop_all()

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        return self._end * self._width

    def add(self, pieces: Iterable[NDArray[np.uint8]], entry: Callable[[int, int, str], Entry], limit: int) -> Entry:
        """Append an entry; it is safe from a killed process when this returns.

        Args:
            pieces: its rows, ``(n, width)`` at a time; an error that they raise leaves the store as it was.
            entry: makes it of its offset, rows and content, after the last piece.
            limit: bytes that the store may hold.

        Raises:
            OutputError: the limit is reached or the disk is full; the entries so far are safe.
        """
        digest = hashlib.blake2b(digest_size=_DIGEST)
        pending = bytearray()
        with ExitStack() as turn:
            written = rows = 0
            mine = False
            for piece in pieces:
                data = piece.tobytes()
                digest.update(data)
                pending += data
                rows += len(piece)
                if len(pending) >= PATIENCE:
                    if not mine:
                        turn.enter_context(self._turn)
                        mine = True
                    self._put(pending, written, limit)
                    written += len(pending)
                    pending.clear()
            if not mine:
                turn.enter_context(self._turn)
            self._put(pending, written, limit)
            made = entry(self._end, rows, digest.hexdigest())
            self._append(made.to_line())
            self._end += rows
            self.entries[made.stretch] = made
            if (self._end - self._marked) * self._width > MARK_EVERY:
                self._mark()
        return made

    def _put(self, data: bytearray, written: int, limit: int) -> None:
        at = self._end * self._width + written
        if at + len(data) > limit:
            raise OutputError(
                f"the log-mel cache {self.directory} has reached its limit of {size(limit)}",
                hint="raise it with --cache-limit, or name an empty directory with --cache if it holds clips of other "
                "runs; what is in it is kept",
            )
        with self._writing():
            write_at(self._rows, bytes(data), at)

    def _append(self, line: bytes) -> None:
        with self._writing():
            # If only half of it fits, the half has no newline: it is not read, and the next line goes over it.
            write_at(self._index, line, self._index_end)
        self._index_end += len(line)

    def _mark(self) -> None:
        if self._marked < self._end:
            with self._writing():
                os.fsync(self._rows)
            self._append(_mark_line(self._end))
            self._marked = self._end

    def _read(self) -> bool:
        """Read the journal; True if something in it cannot be kept."""
        path = self.directory / INDEX
        data = read_regular(path) if path.exists() else b""
        lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
        if not lines:
            return False
        if lines[0] != self._header:
            raise OutputError(
                f"{path} is damaged, or was not written by this version of poolembed",
                hint="remove its directory, and the clips are decoded again",
            )
        self._index_end = sum(map(len, lines))
        damaged = False
        entries: list[Entry] = []
        for line in lines[1:]:
            try:
                read = json.loads(line)
                if isinstance(read, dict) and "marked" in read:
                    self._marked = msgspec.convert(read, _Mark).marked
                else:
                    entries.append(msgspec.convert(read, Entry))
            except (ValueError, RecursionError):
                damaged = True
        if self._marked * self._width > os.fstat(self._rows).st_size:
            self._marked = 0  # the file was cut since, so what it goes on with may be anything
        for entry in entries:
            if self._holds(entry):
                self.entries[entry.stretch] = entry
                self._end = max(self._end, entry.offset + entry.rows)
            else:
                damaged = True
        self._marked = min(self._marked, self._end)
        return damaged

    def _holds(self, entry: Entry) -> bool:
        """Whether the rows of an entry are there, and beyond the last mark also whether they are right."""
        begin, end = entry.offset * self._width, (entry.offset + entry.rows) * self._width
        if end > os.fstat(self._rows).st_size:
            return False
        if entry.offset < self._marked:
            return True
        digest = hashlib.blake2b(digest_size=_DIGEST)
        with (self.directory / ROWS).open("rb") as file:
            file.seek(begin)
            while begin < end and (data := file.read(min(1 << 20, end - begin))):
                digest.update(data)
                begin += len(data)
        return digest.hexdigest() == entry.content

    def _rewrite(self) -> None:
        """The journal as it is in memory, in place of what is there."""
        os.fsync(self._rows)
        lines = [self._header, *(entry.to_line() for entry in self.entries.values()), _mark_line(self._end)]
        with replacing(self.directory / INDEX, self.directory) as part:
            part.write_bytes(b"".join(lines))
        self._index_end, self._marked = sum(map(len, lines)), self._end

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"cannot write the log-mel cache {self.directory}: {error.strerror or error}",
                hint="make room, or name another directory with --cache; the same command goes on from here",
            ) from error

    def close(self) -> None:
        """Force everything to the disk and close the files."""
        try:
            self._mark()
        finally:
            os.close(self._rows)
            os.close(self._index)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Mark(msgspec.Struct):
    """A line that says how many rows are on the disk for certain."""

    marked: Annotated[int, Meta(ge=0)]


def hash_rows(rows: NDArray[np.uint8]) -> str:
    """The checksum of an entry's rows, in hexadecimal."""
    return hashlib.blake2b(rows.tobytes(), digest_size=_DIGEST).hexdigest()


def _mark_line(rows: int) -> bytes:
    return json.dumps({"marked": rows}).encode("ascii") + b"\n"
