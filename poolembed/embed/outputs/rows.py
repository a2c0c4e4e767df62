"""``.npy`` files that grow row by row and can be read with ``np.load`` at every moment."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.embed.manifest import WAY_OUT, Record
from poolembed.embed.song import Embedded
from poolembed.errors import OutputError
from poolembed.files.npy import HEADER_BYTES, npy_header, read_npy_header
from poolembed.files.writing import create, open_bytes, write_at, writing


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

    def write(self, at: int, values: NDArray[Any]) -> None:
        """Write ``values``, ``(n, *shape)``, to the rows from ``at`` on; at most one row beyond the end."""
        with writing(self.path):
            write_at(self._file, values.tobytes(), HEADER_BYTES + at * self._row_bytes)
            if at + len(values) > self.rows:
                self._set_rows(at + len(values))

    def read(self, at: int, count: int) -> NDArray[Any]:
        """``count`` rows from ``at`` on: ``(count, *shape)``."""
        os.lseek(self._file, HEADER_BYTES + at * self._row_bytes, os.SEEK_SET)
        wanted = count * self._row_bytes
        data = b""
        while len(data) < wanted and (block := os.read(self._file, wanted - len(data))):
            data += block
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape)

    def keep(self, rows: int) -> None:
        """Cut what the manifest does not know of: rows and torn rows that a crash left behind.

        Raises:
            OutputError: there are fewer rows than that.
        """
        size = os.fstat(self._file).st_size
        whole = min(self.rows, (size - HEADER_BYTES) // self._row_bytes)
        if whole < rows:
            raise too_few(self.path, whole, rows)
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


class RowStore:
    """Embeddings, and their segments where asked for, in up to three ``.npy`` files of one directory.

    Shape: ``embeddings.npy`` ``(N, D)``, ``timestamps.npy`` ``(M, D)``, ``timestamps_times.npy`` ``(M,)`` seconds.
    """

    def __init__(self, directory: Path, size: int, dtype: np.dtype[Any], *, segments: bool, work: Path) -> None:
        self.files: list[RowFile] = []
        wanted: list[tuple[str, tuple[int, ...], np.dtype[Any]]] = [("embeddings.npy", (size,), dtype)]
        if segments:
            # The times come first: a segment is there when its vector is.
            wanted.append(("timestamps_times.npy", (), np.dtype("<f8")))
            wanted.append(("timestamps.npy", (size,), dtype))
        try:
            for name, shape, kind in wanted:
                self.files.append(RowFile(directory / name, shape, kind, work))
        except OutputError:
            self.close()
            raise
        self._segments = segments
        self._size = size
        self._dtype = dtype

    @property
    def rows(self) -> int:
        """Number of embeddings."""
        return self.files[0].rows

    def write(self, row: int, song: Embedded, earlier: tuple[int, int] | None) -> tuple[int, int] | None:
        """Write a song to ``row``, its segments in place of ``earlier`` if as many, and say where those are."""
        self.files[0].write(row, cast_vectors(song.embedding[None], self._dtype, self._size))
        if not self._segments:
            return None
        times, vectors = segments_of(song, self._dtype, self._size)
        first = earlier[0] if earlier is not None and earlier[1] == len(times) else self.files[2].rows
        self.files[1].write(first, times)
        self.files[2].write(first, vectors)
        return first, len(times)

    def read(self, row: int, span: tuple[int, int] | None) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """``(embedding (D,), times (n,), segments (n, D))`` of one song."""
        first, count = span if span is not None and self._segments else (0, 0)
        embedding = self.files[0].read(row, 1)[0]
        if not count:
            return embedding, np.zeros(0), np.zeros((0, self._size), self._dtype)
        return embedding, self.files[1].read(first, count), self.files[2].read(first, count)

    def keep(self, rows: int, records: Iterable[Record]) -> None:
        """Keep ``rows`` embeddings, and the segments that ``records`` mention, if there are files for them.

        Raises:
            OutputError: there are fewer than that.
        """
        segments = max((sum(r.timestamps) for r in records if r.timestamps is not None), default=0)
        for file, count in zip(self.files, (rows, segments, segments), strict=False):
            file.keep(count)

    def sync(self) -> None:
        """Flush to the disk."""
        for file in self.files:
            file.sync()

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            file.close()


def cast_vectors(values: NDArray[Any], dtype: np.dtype[Any], size: int) -> NDArray[Any]:
    """``(n, size)`` in ``dtype``, C order.

    Raises:
        ValueError: the vectors are not of the model's size.
    """
    if values.ndim != 2 or values.shape[1] != size:
        raise ValueError(f"vectors of shape {values.shape[1:]} for a model of size {size}")
    return np.ascontiguousarray(values, dtype=dtype)


def segments_of(song: Embedded, dtype: np.dtype[Any], size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """``(times (n,) float64, vectors (n, size))`` of a song that was embedded with ``--timestamps``.

    Raises:
        ValueError: it was not, or the two do not go together.
    """
    if song.segments is None or len(song.segments.times) != len(song.segments.embeddings):
        raise ValueError("timestamps were asked for and the song comes without, or with more times than vectors")
    times = np.ascontiguousarray(song.segments.times, dtype="<f8")
    return times, cast_vectors(song.segments.embeddings, dtype, size)


def too_few(path: Path, there: int, expected: int) -> OutputError:
    """The error for a file that lost rows which the manifest lists."""
    return OutputError(f"{path} has {there} of the {expected} rows that the manifest lists", hint=WAY_OUT)
