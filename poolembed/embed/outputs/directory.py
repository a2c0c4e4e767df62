"""An output directory: opened for one run at a time, resumable at any moment."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, get_args

from poolembed.embed.manifest import (
    NAME,
    WAY_OUT,
    WORK,
    FloatType,
    Format,
    Header,
    Manifest,
    Record,
    Settings,
    read_manifest,
)
from poolembed.embed.outputs.log import Log
from poolembed.embed.outputs.parquet import require_pyarrow
from poolembed.embed.outputs.plan import Job, Names, Plan, make_plan, vanished
from poolembed.embed.outputs.rows import Rows
from poolembed.embed.outputs.songs import TIMESTAMPS, SongFiles
from poolembed.embed.outputs.table import ROWS, ExportedTable
from poolembed.embed.song import Embedded, numbers_of
from poolembed.errors import AudioError, OutputError, UsageError
from poolembed.files.claims import claimed
from poolembed.files.reading import read_regular
from poolembed.files.writing import PART, Folders, writing
from poolembed.identity import ModelIdentity

if TYPE_CHECKING:
    from poolembed.audio.find import FoundFile

_PID_BYTES = 32


def open_output(
    directory: str | os.PathLike[str],
    *,
    format: Format,
    dtype: FloatType,
    timestamps: float | None,
    model: ModelIdentity,
    overwrite: bool,
) -> OutputDirectory:
    """Open a directory of embeddings to add to it, making it if need be.

    Args:
        directory: where the embeddings go.
        format: one of ``npy``, ``matrix``, ``parquet``, ``jsonl``.
        dtype: ``float32`` or ``float16``.
        timestamps: seconds per segment, or None for none.
        model: what embeds the songs.
        overwrite: first remove what an earlier run put there, and nothing else.

    Raises:
        UsageError: unknown format or dtype, or pyarrow is missing.
        OutputError: another run is writing there, the directory holds embeddings of another model or setting or
            files that are not of poolembed, or it cannot be written.
    """
    if format not in get_args(Format) or dtype not in get_args(FloatType):
        raise UsageError(f"unknown format or dtype: {format}, {dtype}")
    if format == "parquet":
        require_pyarrow()
    settings = Settings(format, dtype, timestamps)
    path = Path(directory)
    work = path / WORK
    with ExitStack() as undo:
        with writing(work):
            path.mkdir(parents=True, exist_ok=True)
            Folders(path).check(work / "lock")
        undo.enter_context(claimed(work / "lock", f"another run{_owner(work)} is writing to {path}"))
        undo.callback(_forget_owner, work)
        with writing(work):
            (work / "pid").unlink(missing_ok=True)  # a link there would be written through
            (work / "pid").write_text(str(os.getpid()))
            for leftover in work.glob("*" + PART):
                leftover.unlink()
        manifest = _read_or_remove(path, settings, overwrite=overwrite)
        with writing(path / NAME):
            if manifest is None:
                created = datetime.now(UTC).isoformat(timespec="seconds")
                log = Log.create(path / NAME, Header(model, settings, created), work)
            else:
                _refuse_mismatch(path, manifest.header, model, settings)
                log = Log(path / NAME, manifest, work)
        undo.callback(log.close)
        table = ExportedTable(path, model, settings) if format in ("parquet", "jsonl") else None
        storage: Rows | SongFiles
        if table is not None:
            storage = table.rows
        elif format == "matrix":
            storage = Rows(path, model.embedding_size, settings, work)
        else:
            storage = SongFiles(path, settings)
        undo.callback(storage.close)
        if table is not None:
            table.open(log)
        storage.keep(log.rows())
        return OutputDirectory(path, log, storage, table, undo.pop_all())


class OutputDirectory:
    """A directory of embeddings that this process is writing. Use from one thread, as a context manager.

    A song is safe from a killed process when ``write`` returns. Leaving the block, however that comes about,
    finishes the files; a process that never gets there leaves that to the next run.

    Attributes:
        directory: the path.
        ordered: songs must be written, or fail, in the order of the plan.
    """

    def __init__(
        self, directory: Path, log: Log, storage: Rows | SongFiles, table: ExportedTable | None, last: ExitStack
    ) -> None:
        self.directory = directory
        self.ordered = storage.ordered
        self._log = log
        self._storage = storage
        self._table = table
        self._last = last

    @property
    def records(self) -> Mapping[str, Record]:
        """What the manifest says: key -> record."""
        return self._log.records

    def plan(self, found: Sequence[FoundFile]) -> Plan:
        """Sort songs into those to embed, failed ones again among them, and those that are unchanged.

        Raises:
            OutputError: the manifest cannot be written.
        """
        self._log.drop(vanished(self._log.records.values(), found))
        names = Names(self._log.records.values(), self._storage.suffixes, _folding(self.directory))
        plan, moved = make_plan(found, self._log.records.values(), names, self._storage.is_stored)
        for record in moved:
            self._log.put(record)
        return plan

    def write(self, job: Job, song: Embedded) -> str | None:
        """Store the embedding of a song.

        Returns:
            None, or the reason why this one song cannot be stored; it is then recorded as failed.

        Raises:
            OutputError: nothing can be stored, because the disk is full for example.
            ValueError: the vectors are not of the model's size, or the segments are missing.
        """
        model, settings = self._log.header.model, self._log.header.settings
        numbers = numbers_of(song, model.embedding_size, settings.numbers, segments=settings.timestamps is not None)
        earlier = self._log.records.get(job.key)
        if earlier is not None and earlier.status == "ok":
            # From here on the files are neither of the old version nor of the new one.
            self._log.put(replace(earlier, status="failed", reason="interrupted while it was embedded again"))
        try:
            with writing(self.directory / job.key):
                row, timestamps = self._storage.write(job, numbers, earlier)
        except AudioError as error:
            self.fail(job, error.message)
            return error.message
        self._log.put(
            Record(
                key=job.key,
                path=job.path,
                abspath=job.abspath,
                status="ok",
                reason=song.note,
                size=job.size,
                mtime=job.mtime,
                duration=song.duration,
                output=settings.output or f"{job.key}.npy",
                row=row,
                timestamps=timestamps,
                **({} if song.encoding is None else asdict(song.encoding)),
            )
        )
        return None

    def fail(self, job: Job, reason: str) -> None:
        """Record that a song could not be embedded. An embedding of an earlier version of it stays.

        Raises:
            OutputError: the manifest cannot be written.
        """
        earlier = self._log.records.get(job.key)
        record = Record(job.key, job.path, job.abspath, "failed", reason, job.size, job.mtime)
        if earlier is not None and earlier.output is not None:
            record = replace(
                earlier,
                path=job.path,
                abspath=job.abspath,
                status="failed",
                reason=f"{reason}; the embedding kept is that of an earlier version of the file",
                size=job.size,
                mtime=job.mtime,
            )
        self._log.put(record)

    def close(self) -> None:
        """Finish the files, tidy the manifest and let others in.

        Raises:
            OutputError: the files cannot be written; what was stored is safe and the next run finishes.
        """
        with self._last:  # closes what is open, and lets go
            self._storage.keep(self._log.rows())
            self._storage.sync()
            if self._table is not None:
                self._table.write(self._log)
            self._log.compact()
            if self._table is not None:
                self._table.settle(self._log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, OutputError):
            # The disk is full already; that finishing fails as well is no news.
            with suppress(OutputError):
                self.close()
        else:
            self.close()


def _owner(work: Path) -> str:
    """The process that is writing, in brackets, as far as that is known."""
    try:
        return f" (process {int(read_regular(work / 'pid', _PID_BYTES))})"
    except (OSError, ValueError):
        return ""


def _forget_owner(work: Path) -> None:
    with suppress(OSError):
        (work / "pid").unlink(missing_ok=True)


def _read_or_remove(directory: Path, settings: Settings, *, overwrite: bool) -> Manifest | None:
    """The manifest there is; None if there is none or it is to be replaced, after removing what goes with it."""
    there = os.path.lexists(directory / NAME)
    if there and not overwrite:
        return read_manifest(directory / NAME)
    manifest = None
    if there:
        # A damaged manifest cannot say what is of poolembed; only what the new run would write is replaced then.
        with suppress(OutputError):
            manifest = read_manifest(directory / NAME)
    if not overwrite:
        for name in _data_files(settings):
            if os.path.lexists(directory / name):
                raise OutputError(f"{directory / name} is there, and no {NAME} says what it holds", hint=WAY_OUT)
        return None
    folders = Folders(directory)
    for name in {*_data_files(settings), *(_listed_files(manifest) if manifest is not None else ())}:
        with writing(directory / name), suppress(FileNotFoundError, NotADirectoryError):
            folders.check(directory / name)
            (directory / name).unlink()
    shutil.rmtree(directory / WORK / ROWS, ignore_errors=True)
    return None


def _data_files(settings: Settings) -> list[str]:
    if settings.format == "npy":
        return []
    if settings.format != "matrix":
        return [f"embeddings.{settings.format}"]
    return ["embeddings.npy", *(["timestamps.npy", "timestamps_times.npy"] if settings.timestamps is not None else [])]


def _listed_files(manifest: Manifest) -> list[str]:
    """The files that a manifest lists."""
    listed = _data_files(manifest.header.settings)
    if manifest.header.settings.output is None:
        for record in manifest.records.values():
            if record.output is not None:
                listed.append(record.output)
                if manifest.header.settings.timestamps is not None:  # else the name may be too long for any file
                    listed.append(record.output.removesuffix(".npy") + TIMESTAMPS)
    return listed


def _refuse_mismatch(directory: Path, header: Header, model: ModelIdentity, settings: Settings) -> None:
    there, wanted = header.settings, settings
    pairs = [
        ("format", there.format, wanted.format),
        ("dtype", there.dtype, wanted.dtype),
        ("timestamps", there.timestamps, wanted.timestamps),
        ("embedding size", header.model.embedding_size, model.embedding_size),
    ]
    differences = [f"{name} {old} there, {new} asked for" for name, old, new in pairs if old != new]
    if header.model.fingerprint != model.fingerprint:
        old, new = (f"{m.name} [{m.fingerprint}]" for m in (header.model, model))
        differences.insert(0, f"model {old} there, {new} asked for")
    if differences:
        message = f"{directory} holds embeddings of another model or setting: {'; '.join(differences)}"
        raise OutputError(message, hint=WAY_OUT)


def _folding(directory: Path) -> Callable[[str], str]:
    """How names compare on the file system of ``directory``."""
    insensitive = (directory / WORK.upper()).exists()
    return _fold if insensitive else str


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
