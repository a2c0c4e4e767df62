"""What the four formats have in common, and the two that put each song in place at once."""

from __future__ import annotations

import errno
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from poolembed.embed.manifest import WORK, Record, Settings
from poolembed.embed.outputs.log import Log
from poolembed.embed.outputs.plan import Job
from poolembed.embed.outputs.rows import RowStore, cast_vectors, segments_of
from poolembed.embed.song import Embedded
from poolembed.errors import AudioError
from poolembed.files.npy import npy_bytes
from poolembed.files.writing import Folders, create
from poolembed.identity import ModelIdentity

TIMESTAMPS = ".timestamps.npz"

# What is wrong with one name, as opposed to the disk.
_NAME_TROUBLE = frozenset(
    {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ, errno.ELOOP}
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an embedding went; the attributes are those of a record."""

    output: str
    row: int | None = None
    timestamps: tuple[int, int] | None = None
    journal: int | None = None


class Sink(Protocol):
    """One format. The manifest is written by the caller, after the sink; so a crash leaves the sink ahead of it.

    Attributes:
        ordered: songs have to come in the order of the input, because it becomes the order of the rows.
        in_place: a song that is embedded again is overwritten at once, not when the run ends.
        suffixes: what the files of one song end in; empty if songs share a file.
    """

    ordered: bool
    in_place: bool
    suffixes: tuple[str, ...]

    def reconcile(self, log: Log) -> None:
        """Drop what the manifest does not know of; OutputError if something that it lists is gone."""

    def is_stored(self, record: Record) -> bool:
        """Whether the embedding of a record is where it was put."""

    def write(self, job: Job, song: Embedded, earlier: Record | None) -> Place:
        """Store a song; AudioError if this one song cannot be, OutputError if none can."""

    def finish(self, log: Log) -> None:
        """Bring the files to what the manifest says. Doing it again changes nothing."""

    def settle(self) -> None:
        """The manifest on the disk agrees with the files: drop what only a crash would have needed."""

    def close(self) -> None:
        """Close every file."""


def numpy_dtype(settings: Settings) -> np.dtype[Any]:
    """The dtype on the disk, little-endian everywhere."""
    return np.dtype("<f2" if settings.dtype == "float16" else "<f4")


class NpySink:
    """One ``.npy`` of shape ``(D,)`` per song, and ``.timestamps.npz`` beside it where asked for."""

    ordered = False
    in_place = True

    def __init__(self, directory: Path, model: ModelIdentity, settings: Settings) -> None:
        self.suffixes: tuple[str, ...] = (".npy",) if settings.timestamps is None else (".npy", TIMESTAMPS)
        self._directory = directory
        self._folders = Folders(directory)
        self._work = directory / WORK
        self._size = model.embedding_size
        self._dtype = numpy_dtype(settings)

    def reconcile(self, log: Log) -> None:
        """Nothing to do: a file that the manifest does not know of is replaced when its song comes again."""

    def is_stored(self, record: Record) -> bool:
        """Whether every file of the song is there."""
        # Not Path.is_file, which raises for a name that is too long.
        return all(os.path.isfile(self._directory / (record.key + suffix)) for suffix in self.suffixes)  # noqa: PTH113

    def write(self, job: Job, song: Embedded, earlier: Record | None) -> Place:
        """Put the song's files in place, the vector last."""
        files = {".npy": npy_bytes(cast_vectors(song.embedding[None], self._dtype, self._size)[0])}
        if TIMESTAMPS in self.suffixes:
            times, vectors = segments_of(song, self._dtype, self._size)
            archive = io.BytesIO()
            np.savez(archive, times=times, embeddings=vectors)
            files = {TIMESTAMPS: archive.getvalue(), **files}
        for suffix, data in files.items():
            try:
                self._folders.check(self._directory / (job.key + suffix))
                create(self._directory / (job.key + suffix), data, self._work)
            except OSError as error:
                if error.errno not in _NAME_TROUBLE:
                    raise
                name = job.key.rpartition("/")[2] + suffix
                raise AudioError(f"its output cannot be named {name!r}: {error.strerror}") from error
        return Place(f"{job.key}.npy")

    def finish(self, log: Log) -> None:
        """Nothing to do."""

    def settle(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class MatrixSink:
    """All songs in ``embeddings.npy``, ``(N, D)``; a song that is embedded again overwrites its row."""

    ordered = True
    in_place = True
    suffixes: tuple[str, ...] = ()

    def __init__(self, directory: Path, model: ModelIdentity, settings: Settings) -> None:
        self._store = RowStore(
            directory,
            model.embedding_size,
            numpy_dtype(settings),
            segments=settings.timestamps is not None,
            work=directory / WORK,
        )

    def reconcile(self, log: Log) -> None:
        """Cut rows that the manifest does not know of."""
        self._store.keep(log.rows(), log.records.values())

    def is_stored(self, record: Record) -> bool:
        """True: ``reconcile`` has seen to it."""
        return True

    def write(self, job: Job, song: Embedded, earlier: Record | None) -> Place:
        """Write the song to its row or to a new one."""
        row = self._store.rows
        span = None
        if earlier is not None and earlier.row is not None:
            row, span = earlier.row, earlier.timestamps
        return Place("embeddings.npy", row, self._store.write(row, song, span))

    def finish(self, log: Log) -> None:
        """Flush to the disk before the manifest vouches for it."""
        self._store.sync()

    def settle(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Close the files."""
        self._store.close()
