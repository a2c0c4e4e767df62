"""``embeddings.parquet`` or ``embeddings.jsonl``: made of the rows when a run ends.

While a run lasts, its songs go to rows in the work folder, as those of a matrix go to the directory itself; they stay
there for the next run. The file ``exported`` beside them says of which manifest they are the rows, and how large the
table is. It is removed before anything changes and written again when all three agree. So where it is missing, a run
was killed, and the table is still to be written; where it speaks of another manifest, or where there are no rows, as
earlier versions left none, or damaged ones, the rows are read back from the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from poolembed.embed.manifest import NAME, WORK, Record, Settings
from poolembed.embed.outputs.lines import read_jsonl, write_jsonl
from poolembed.embed.outputs.log import Log, digest_of
from poolembed.embed.outputs.parquet import read_parquet, write_parquet
from poolembed.embed.outputs.rows import EMBEDDINGS, SEGMENTS, TIMES, Rows, too_few
from poolembed.embed.song import Numbers
from poolembed.errors import OutputError
from poolembed.files.reading import open_regular, read_regular
from poolembed.files.writing import Folders, replacing, writing
from poolembed.identity import ModelIdentity

ROWS = "rows"  # the folder in the work folder
_FILES = (EMBEDDINGS, TIMES, SEGMENTS)
_MARK_BYTES = 100


class ExportedTable:
    """The table of an output directory.

    Raises:
        OutputError: the rows are damaged, or cannot be made.
    """

    def __init__(self, directory: Path, model: ModelIdentity, settings: Settings) -> None:
        self.path = directory / f"embeddings.{settings.format}"
        self._model = model
        self._settings = settings
        self._work = directory / WORK
        self._mark = self._work / ROWS / "exported"
        self._is_current = False
        with writing(self._mark.parent):
            Folders(directory).check(self._mark.parent / EMBEDDINGS)
            self._mark.parent.mkdir(exist_ok=True)
            Folders(directory).check(self._mark)
        try:
            self.rows = Rows(self._mark.parent, model.embedding_size, settings, self._work)
        except OutputError:
            if not self._has_all():
                raise
            with writing(self._mark.parent):
                for name in _FILES:
                    (self._mark.parent / name).unlink(missing_ok=True)
            self.rows = Rows(self._mark.parent, model.embedding_size, settings, self._work)

    def open(self, log: Log) -> None:
        """Have the rows that the manifest lists, from the table if need be.

        Raises:
            OutputError: neither has them.
        """
        mark = _read_mark(self._mark)
        records = log.rows()
        segments = self._settings.timestamps is not None
        lacking = len(self.rows) < len(records) or (segments and any(r.timestamps is None for r in records))
        lacking = lacking or (self._has_all() and not self.rows.has(records))
        known = digest_of(log.path)
        if records and (lacking or (mark and mark[0] != known)):
            self._read_back(log, records)
        elif mark and not log.changed:
            self._is_current = mark == (known, str(self.path.stat().st_size) if self.path.is_file() else "")
        log.before_change = self._forget

    def write(self, log: Log) -> None:
        """Write the table, unless it is as it should be.

        Raises:
            OutputError: it cannot be written; the one there was is as before.
        """
        if self._is_current and not log.changed:
            return
        songs = _songs(log.rows(), self.rows)
        with writing(self.path), replacing(self.path, self._work) as part, part.open("wb") as file:
            if self._settings.format == "parquet":
                write_parquet(file, songs, self._model, self._settings)
            elif self._is_current:
                with open_regular(self.path) as kept:
                    write_jsonl(file, songs, kept, self.rows.written)
            else:
                write_jsonl(file, songs, iter(()), set())
        self._is_current = False

    def settle(self, log: Log) -> None:
        """Say that manifest, rows and table agree, once they all are on the disk."""
        if not self._is_current:
            with writing(self._mark), replacing(self._mark, self._work) as part:
                part.write_text(f"{digest_of(log.path)} {self.path.stat().st_size}")

    def _has_all(self) -> bool:
        """Whether the table holds what the rows did, should they be damaged; those of a killed run may be more."""
        return self.path.is_file() and _read_mark(self._mark) is not None

    def _forget(self) -> None:
        self._mark.unlink(missing_ok=True)

    def _read_back(self, log: Log, records: list[Record]) -> None:
        """Make the rows anew.

        Earlier versions kept songs apart in a journal until a run ended. Those that a killed run left there are
        embedded again.
        """
        self.rows.keep(())
        with writing(self._work):
            self._forget()
            for name in _FILES:
                (self._work / name).unlink(missing_ok=True)  # the journal
        lost = []
        there = self._filed() if self.path.exists() else iter(())
        for record in records:
            numbers = next(there, None)
            if numbers is not None:
                found = replace(record, timestamps=self.rows.put(len(self.rows), numbers, None), journal=None)
                if record.journal is not None:
                    found = replace(found, status="failed", reason="interrupted while it was embedded again")
                log.put(found)
            elif record.journal is not None:
                lost.append(record)
            else:
                raise too_few(self.path, len(self.rows), len(records))
        log.drop(lost)

    def _filed(self) -> Iterator[Numbers]:
        if self._settings.format == "parquet":
            return read_parquet(self.path, self._model, self._settings)
        return read_jsonl(self.path, self._settings, self._model.embedding_size)


def rows_of(directory: Path, settings: Settings) -> Path | None:
    """The ``.npy`` file whose rows are those that a directory's manifest lists; None where it has only a table."""
    if settings.format == "matrix":
        return directory / EMBEDDINGS
    path = directory / WORK / ROWS / EMBEDDINGS
    mark = _read_mark(path.with_name("exported"))
    return path if path.is_file() and (mark is None or mark[0] == digest_of(directory / NAME)) else None


def _read_mark(path: Path) -> tuple[str, str] | None:
    """The digest of the manifest, and the bytes of the table; None where there is no mark."""
    try:
        digest, _, size = read_regular(path, _MARK_BYTES).decode("ascii", "replace").partition(" ")
    except OSError:
        return None
    return digest, size


def _songs(records: list[Record], rows: Rows) -> Iterator[tuple[Record, Numbers]]:
    embeddings, *others = rows.read()
    for record, embedding in zip(records, embeddings, strict=True):
        first, count = record.timestamps or (0, 0)
        yield record, Numbers(embedding, *(values[first : first + count] for values in others))
