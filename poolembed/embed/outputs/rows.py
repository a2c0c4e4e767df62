"""Embeddings as rows of ``.npy`` files that grow and can be read with ``np.load`` at every moment."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.embed.manifest import WAY_OUT, Record, Settings
from poolembed.embed.outputs.plan import Job
from poolembed.embed.song import Numbers
from poolembed.errors import OutputError
from poolembed.files.npy import HEADER_BYTES, npy_header, read_npy_header
from poolembed.files.writing import create, open_bytes, write_at, writing

EMBEDDINGS, TIMES, SEGMENTS = "embeddings.npy", "timestamps_times.npy", "timestamps.npy"
Span = tuple[int, int]  # first row and number of rows of the segments


class RowFile:
    """One growing ``.npy`` file of rows of equal shape.

    New rows are written beyond what the header promises and the header after them, so a reader, or a crash, sees a
    valid file of the old length or of the new one.

    Shape: the file is ``(rows, *shape)``.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], work: Path) -> None:
        self.path = path
        self.shape = shape
        self.dtype = dtype
        self._row_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        with writing(path):
            if not path.exists():
                create(path, npy_header((0, *shape), dtype), work)
            self._file = open_bytes(path, os.O_RDWR)
        try:
            self.rows = self._read_header()
        except OutputError:
            self.close()
            raise

    @property
    def whole(self) -> int:
        """The rows that are there whole: fewer than `rows` where the file was cut."""
        return min(self.rows, (os.fstat(self._file).st_size - HEADER_BYTES) // self._row_bytes)

    def write(self, at: int, values: NDArray[Any]) -> None:
        """Write ``values``, ``(n, *shape)``, to the rows from ``at`` on; at most one row beyond the end."""
        with writing(self.path):
            write_at(self._file, values.tobytes(), HEADER_BYTES + at * self._row_bytes)
            if at + len(values) > self.rows:
                self._set_rows(at + len(values))

    def read(self) -> NDArray[Any]:
        """All rows, mapped into memory: ``(rows, *shape)``."""
        shape = (self.rows, *self.shape)
        if not self.rows:
            return np.empty(shape, self.dtype)
        return np.asarray(np.memmap(self.path, self.dtype, "r", HEADER_BYTES, shape))

    def keep(self, rows: int) -> None:
        """Cut what the manifest does not know of: rows and torn rows that a crash left behind.

        Raises:
            OutputError: there are fewer rows than that.
        """
        size = os.fstat(self._file).st_size
        if self.whole < rows:
            raise too_few(self.path, self.whole, rows)
        with writing(self.path):
            if self.rows != rows:
                self._set_rows(rows)
            if size != HEADER_BYTES + rows * self._row_bytes:
                os.ftruncate(self._file, HEADER_BYTES + rows * self._row_bytes)

    def sync(self) -> None:
        """Flush to the disk."""
        with writing(self.path):
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file; twice is once."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _set_rows(self, rows: int) -> None:
        write_at(self._file, npy_header((rows, *self.shape), self.dtype), 0)
        self.rows = rows

    def _read_header(self) -> int:
        head = io.BytesIO(os.read(self._file, HEADER_BYTES))
        try:
            shape, fortran, dtype = read_npy_header(head)
            if head.tell() != HEADER_BYTES or fortran or dtype != self.dtype or shape[1:] != self.shape:
                raise ValueError
        except ValueError as error:
            raise OutputError(f"{self.path} is damaged, or not of poolembed", hint=WAY_OUT) from error
        return int(shape[0])


class Rows:
    """The embeddings of all songs, and their segments where asked for, in up to three files of one folder.

    Row i of ``embeddings.npy`` is row i of the manifest. A song that is embedded again overwrites its row.

    Shape: ``embeddings.npy`` ``(N, D)``, ``timestamps.npy`` ``(M, D)``, ``timestamps_times.npy`` ``(M,)`` seconds.

    Attributes:
        written: rows that were written since it was opened.
    """

    ordered = True  # songs have to come in the order of the input, because it becomes the order of the rows
    suffixes: tuple[str, ...] = ()

    def __init__(self, folder: Path, size: int, settings: Settings, work: Path) -> None:
        self.written: set[int] = set()
        self._files: list[RowFile] = []
        wanted: list[tuple[str, tuple[int, ...], np.dtype[Any]]] = [(EMBEDDINGS, (size,), settings.numbers)]
        if settings.timestamps is not None:
            # The times come first: a segment is there when its vector is.
            wanted += [(TIMES, (), np.dtype("<f8")), (SEGMENTS, (size,), settings.numbers)]
        try:
            for name, shape, dtype in wanted:
                self._files.append(RowFile(folder / name, shape, dtype, work))
        except OutputError:
            self.close()
            raise

    def __len__(self) -> int:
        return self._files[0].rows

    def is_stored(self, record: Record) -> bool:
        """True: `keep` has seen to it."""
        return True

    def write(self, job: Job, numbers: Numbers, earlier: Record | None) -> tuple[int, Span | None]:
        """Write a song to its row or to a new one; the row, and where its segments are."""
        if earlier is None or earlier.row is None:
            return len(self), self.put(len(self), numbers, None)
        return earlier.row, self.put(earlier.row, numbers, earlier.timestamps)

    def put(self, row: int, numbers: Numbers, earlier: Span | None) -> Span | None:
        """Write a row, its segments in place of ``earlier`` if as many; where these are."""
        self.written.add(row)
        self._files[0].write(row, numbers.embedding[None])
        if numbers.times is None or numbers.segments is None:
            return None
        _, times, segments = self._files
        first = earlier[0] if earlier is not None and earlier[1] == len(numbers.times) else segments.rows
        times.write(first, numbers.times)
        segments.write(first, numbers.segments)
        return first, len(numbers.times)

    def read(self) -> list[NDArray[Any]]:
        """Embeddings and, where there are segments, times and segments, mapped into memory."""
        return [file.read() for file in self._files]

    def keep(self, records: Sequence[Record]) -> None:
        """Keep the rows of some records, which are the first, and the segments that these mention.

        Raises:
            OutputError: there are fewer than that, or songs share segments.
        """
        spans = [record.timestamps for record in records if record.timestamps is not None]
        if sum(count for _, count in spans) > max(map(sum, spans), default=0):
            raise OutputError(f"the manifest of {self._files[0].path} is damaged: songs share timestamps", hint=WAY_OUT)
        for file, count in zip(self._files, _counts(records), strict=False):
            file.keep(count)

    def has(self, records: Sequence[Record]) -> bool:
        """Whether `keep` would find all of them."""
        return all(file.whole >= count for file, count in zip(self._files, _counts(records), strict=False))

    def sync(self) -> None:
        """Flush to the disk, before the manifest vouches for it."""
        for file in self._files:
            file.sync()

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


def _counts(records: Sequence[Record]) -> tuple[int, int, int]:
    segments = max((sum(record.timestamps) for record in records if record.timestamps is not None), default=0)
    return len(records), segments, segments


def too_few(path: Path, there: int, expected: int) -> OutputError:
    """The error for a file that lost rows which the manifest lists."""
    return OutputError(f"{path} has {there} of the {expected} rows that the manifest lists", hint=WAY_OUT)
