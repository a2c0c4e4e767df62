"""One ``.npy`` of shape ``(D,)`` per song, and ``.timestamps.npz`` beside it where asked for."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from poolembed.embed.manifest import WORK, Record, Settings
from poolembed.embed.outputs.plan import Job
from poolembed.embed.song import Numbers
from poolembed.errors import AudioError
from poolembed.files.npy import npy_bytes
from poolembed.files.writing import Folders, create

TIMESTAMPS = ".timestamps.npz"

# What is wrong with one name, as opposed to the disk.
_NAME_TROUBLE = frozenset(
    {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ, errno.ELOOP}
)


class SongFiles:
    """The files of an output directory in which each song has its own.

    Attributes:
        suffixes: what the files of one song end in; the vector's is the last to be put in place.
    """

    ordered = False

    def __init__(self, directory: Path, settings: Settings) -> None:
        self.suffixes: tuple[str, ...] = (".npy",) if settings.timestamps is None else (TIMESTAMPS, ".npy")
        self._directory = directory
        self._folders = Folders(directory)

    def is_stored(self, record: Record) -> bool:
        """Whether every file of the song is there."""
        # Not Path.is_file, which raises for a name that is too long.
        return all(os.path.isfile(self._directory / (record.key + suffix)) for suffix in self.suffixes)  # noqa: PTH113

    def write(self, job: Job, numbers: Numbers, earlier: Record | None) -> tuple[None, None]:
        """Put the song's files in place.

        Raises:
            AudioError: this one song cannot be written, for its name.
            OSError: no song can be.
        """
        for suffix in self.suffixes:
            data = npy_bytes(numbers.embedding) if suffix == ".npy" else _archive(numbers)
            try:
                self._folders.check(self._directory / (job.key + suffix))
                create(self._directory / (job.key + suffix), data, self._directory / WORK)
            except OSError as error:
                if error.errno not in _NAME_TROUBLE:
                    raise
                name = job.key.rpartition("/")[2] + suffix
                raise AudioError(f"its output cannot be named {name!r}: {error.strerror}") from error
        return None, None

    def keep(self, records: Sequence[Record]) -> None:
        """Nothing to do: a file that the manifest does not know of is replaced when its song comes again."""

    def sync(self) -> None:
        """Nothing to do: a song whose file is lost is embedded again."""

    def close(self) -> None:
        """Nothing to do."""


def _archive(numbers: Numbers) -> bytes:
    archive = io.BytesIO()
    np.savez(archive, times=numbers.times, embeddings=numbers.segments)  # type: ignore[arg-type]
    return archive.getvalue()
