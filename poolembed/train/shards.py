"""Rows of bytes on disk, in shards: plain files of up to 64 MB that are written once and never change.

``00000.npy`` has the uint8 rows of some clips, one clip after the other, and ``00000.json`` says which rows are whose.
The JSON file comes last: a shard without it was not finished. So a killed process loses the clips of the shard in hand
and no others.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from filelock import Timeout
from msgspec import Meta
from numpy.typing import NDArray

from poolembed.errors import OutputError, VectorsError
from poolembed.files.claims import lock_at
from poolembed.files.npy import npy_bytes
from poolembed.files.reading import read_regular
from poolembed.files.writing import replacing
from poolembed.labels import Clip
from poolembed.text import size
from poolembed.vectors.npy import map_npy

SHARD = 64 << 20
"""Bytes from which a shard is written. So much, and a clip for each worker, is in memory."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What a clip is of: a part of one version of one file.

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

    @classmethod
    def of(cls, clip: Clip) -> Excerpt:
        """The excerpt of a clip.

        Raises:
            OSError, ValueError: there is no such file.
        """
        path = os.path.abspath(clip.path)  # noqa: PTH100 - Path would tidy names that only look alike
        status = os.stat(path)  # noqa: PTH116 - nor refuse a NUL in the same way
        return cls(path, status.st_size, status.st_mtime_ns, clip.start, clip.end)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is stored of an excerpt.

    Attributes:
        excerpt: what it is of.
        first: its first row in the shard.
        rows: how many there are.
        content: hash of the rows, in hexadecimal; excerpts that sound the same have the same.
        seconds: decoded audio.
        note: what was wrong with the audio though it was decoded, or None.
    """

    excerpt: Excerpt
    first: Annotated[int, Meta(ge=0)]
    rows: Annotated[int, Meta(ge=0)]
    content: str
    seconds: float
    note: str | None


class Shards:
    """The shards of a folder, open for adding; threads may add at the same time. The caller keeps other processes away.

    A shard that is damaged or not finished is removed: its clips are decoded again.

    Args:
        folder: where they are, or will be; it must exist.
        width: bytes of a row.
        limit: bytes of rows that there may be.

    Attributes:
        found: number of the shard and entry of every excerpt; those added count once their shard is written.
        size: bytes of all rows, those included that are not written yet.

    Raises:
        OSError: the folder cannot be read.
    """

    def __init__(self, folder: Path, width: int, limit: int) -> None:
        self.folder, self.size = folder, 0
        self.found: dict[Excerpt, tuple[int, Entry]] = {}
        self._width, self._limit = width, limit
        self._turn = threading.Lock()
        self._pending: list[tuple[Entry, NDArray[np.uint8]]] = []
        self._rows = self._next = 0
        for name in sorted({path.name[:5] for path in folder.glob("[0-9]" * 5 + ".*")}):
            number, index = int(name), folder / f"{name}.json"
            try:
                entries = msgspec.convert(json.loads(read_regular(index)), list[Entry])
                rows = len(read_shard(folder, number, width))
                if any(entry.first + entry.rows > rows for entry in entries):
                    raise ValueError("its index speaks of more rows than there are")
            except (OSError, ValueError, RecursionError, VectorsError):
                # The index first, which must never stand beside rows that are not its own.
                index.unlink(missing_ok=True)
                (folder / f"{name}.npy").unlink(missing_ok=True)
                continue
            self._next = number + 1
            self.size += rows * width
            self.found |= {entry.excerpt: (number, entry) for entry in entries}

    def add(self, excerpt: Excerpt, rows: NDArray[np.uint8], seconds: float, note: str | None) -> None:
        """Add what an excerpt sounds like, ``(rows, width)``.

        Raises:
            OutputError: the limit is reached, or a shard cannot be written.
        """
        content = hashlib.blake2b(rows.tobytes(), digest_size=16).hexdigest()
        with self._turn:
            if self.size + rows.nbytes > self._limit:
                raise OutputError(
                    f"the log-mel cache {self.folder} has reached its limit of {size(self._limit)}",
                    hint="raise it with --cache-limit, or name an empty directory with --cache if it holds clips of "
                    "other runs; what is in it is kept",
                )
            self._pending.append((Entry(excerpt, self._rows, len(rows), content, seconds, note), rows))
            self._rows += len(rows)
            self.size += rows.nbytes
            if self._rows * self._width >= SHARD:
                self._write()

    def close(self) -> None:
        """Write the last shard.

        Raises:
            OutputError: it cannot be written.
        """
        with self._turn:
            self._write()

    def _write(self) -> None:
        if not self._pending:
            return
        entries, number = [entry for entry, _ in self._pending], self._next
        rows = np.concatenate([rows for _, rows in self._pending])
        self._pending, self._rows = [], 0
        with writing_cache(self.folder):
            with replacing(self.folder / f"{number:05}.npy", self.folder) as part:
                part.write_bytes(npy_bytes(rows))
            with replacing(self.folder / f"{number:05}.json", self.folder) as part:
                # ASCII, so that names that are no text survive; msgspec would refuse their surrogates.
                part.write_text(json.dumps([asdict(entry) for entry in entries]), encoding="ascii")
        self._next += 1
        self.found |= {entry.excerpt: (number, entry) for entry in entries}


def read_shard(folder: Path, number: int, width: int) -> NDArray[np.uint8]:
    """The rows ``(n, width)`` of a shard, mapped into memory.

    Raises:
        VectorsError: it cannot be read, or is damaged.
    """
    path = folder / f"{number:05}.npy"
    rows = map_npy(path, [2])
    if rows.dtype != np.uint8 or rows.shape[1] != width:
        raise VectorsError(f"{path} has rows of another kind")
    return rows


@contextmanager
def writing_cache(folder: Path) -> Iterator[None]:
    """Turn an OSError inside the block into an OutputError about a cache, with the way on."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write the cache {folder}: {error.strerror or error}",
            hint="make room, or name another directory with --cache; the same command goes on from here",
        ) from error


@contextmanager
def alone(folder: Path, stop: threading.Event) -> Iterator[bool]:
    """Make a folder and wait until no other process is in it; False if told to stop first.

    Raises:
        OutputError: it cannot be made or locked.
    """
    with writing_cache(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_at(folder / "lock")
        while not stop.is_set():
            with suppress(Timeout):
                lock.acquire(timeout=0.2)
                break
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
