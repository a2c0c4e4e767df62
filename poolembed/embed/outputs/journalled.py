"""The two formats whose rows cannot be overwritten in place: JSON Lines and Parquet.

Row i of the file is row i of the manifest, at every moment. A song that cannot go to its row at once, because the row
exists (JSON Lines) or because the file cannot grow at all (Parquet), waits in a journal: ``.npy`` files in the work
folder. When the run ends, or the next one after a crash, file and journal are merged into a new file that takes the
old one's place. Merging twice gives the same file, so a crash between any two steps is made good by merging again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from poolembed.embed.manifest import WORK, Record, Settings
from poolembed.embed.outputs.log import Log
from poolembed.embed.outputs.plan import Job
from poolembed.embed.outputs.rows import RowStore, too_few
from poolembed.embed.outputs.sink import Place, numpy_dtype
from poolembed.embed.song import Embedded
from poolembed.files.writing import replacing, writing
from poolembed.identity import ModelIdentity

Row = TypeVar("Row")
Vectors = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # embedding (D,), times (n,), segments (n, D)


class JournalledSink:
    """What JSON Lines and Parquet share. ``filed`` is the number of rows in the file itself."""

    ordered = True
    in_place = False
    suffixes: tuple[str, ...] = ()
    name = ""

    def __init__(self, directory: Path, model: ModelIdentity, settings: Settings) -> None:
        self.path = directory / self.name
        self.filed = 0
        self.model = model
        self.dtype = numpy_dtype(settings)
        self.segments = settings.timestamps is not None
        self._work = directory / WORK
        self._rows = 0
        self._journal = RowStore(self._work, model.embedding_size, self.dtype, segments=self.segments, work=self._work)

    def reconcile(self, log: Log) -> None:
        """Drop rows and journalled rows that the manifest does not know of."""
        self._rows = log.rows()
        self.filed = self._count_rows(self._rows)
        journalled = [r for r in log.records.values() if r.journal is not None]
        expected = max((r.row + 1 for r in log.records.values() if r.row is not None and r.journal is None), default=0)
        if self.filed < expected:
            raise too_few(self.path, self.filed, expected)
        self._journal.keep(max((r.journal + 1 for r in journalled if r.journal is not None), default=0), journalled)

    def is_stored(self, record: Record) -> bool:
        """True: ``reconcile`` has seen to it."""
        return True

    def write(self, job: Job, song: Embedded, earlier: Record | None) -> Place:
        """Store the song in the file or in the journal."""
        row = self._rows if earlier is None or earlier.row is None else earlier.row
        place = self._write(row, job, song)
        self._rows = max(self._rows, row + 1)
        return place

    def finish(self, log: Log) -> None:
        """Merge the journal, and paths that changed, into the file."""
        journalled = any(record.journal is not None for record in log.records.values())
        if journalled or not log.settled or not self.path.exists():
            with writing(self.path), replacing(self.path, self._work) as part:
                self._merge(log, part)

    def settle(self) -> None:
        """Remove the journal; the next run starts a new one."""
        self.close()
        for file in self._journal.files:
            with suppress(OSError):
                file.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files."""
        self._journal.close()

    def _rows_of(self, log: Log, filed: Iterator[Row]) -> Iterator[tuple[Record, Row | Vectors]]:
        """Every row in order: the filed one, or the vectors in the journal that supersede or follow it."""
        for record in log.in_row_order():
            if record.row is None:
                return
            row = next(filed) if record.row < self.filed else None
            if record.journal is not None:
                yield record, self._journal.read(record.journal, record.timestamps)
            elif row is not None:
                yield record, row

    def _to_journal(self, row: int, song: Embedded) -> Place:
        """Append to the journal, never over an entry that the manifest counts on."""
        entry = self._journal.rows
        return Place(self.name, row, self._journal.write(entry, song, None), entry)

    def _count_rows(self, wanted: int) -> int:
        """The rows in the file, after cutting those beyond ``wanted`` if it can grow."""
        raise NotImplementedError

    def _write(self, row: int, job: Job, song: Embedded) -> Place:
        """Put a song to the file, or ``_to_journal``."""
        raise NotImplementedError

    def _merge(self, log: Log, part: Path) -> None:
        """Write every row of the manifest to ``part``."""
        raise NotImplementedError
