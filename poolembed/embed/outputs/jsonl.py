"""``embeddings.jsonl``: new songs are appended at once, songs that are embedded again are merged at the end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

from poolembed.embed.manifest import WAY_OUT, Settings
from poolembed.embed.outputs.journalled import JournalledSink
from poolembed.embed.outputs.lines import encode_line, relabel
from poolembed.embed.outputs.log import Log
from poolembed.embed.outputs.plan import Job
from poolembed.embed.outputs.rows import cast_vectors, segments_of
from poolembed.embed.outputs.sink import Place
from poolembed.embed.song import Embedded
from poolembed.errors import OutputError
from poolembed.files.writing import create, open_bytes, write_at, writing
from poolembed.identity import ModelIdentity


class JsonlSink(JournalledSink):
    """JSON Lines: path, duration, row, embedding and, where asked for, timestamps."""

    name = "embeddings.jsonl"

    def __init__(self, directory: Path, model: ModelIdentity, settings: Settings) -> None:
        super().__init__(directory, model, settings)
        self._end = 0
        try:
            with writing(self.path):
                if not self.path.exists():
                    create(self.path, b"", self._work)
                self._file = open_bytes(self.path, os.O_RDWR)
        except OutputError:
            super().close()
            raise

    def finish(self, log: Log) -> None:
        """Merge, and flush to the disk before the manifest vouches for it."""
        super().finish(log)
        with writing(self.path):
            os.fsync(self._file)

    def close(self) -> None:
        """Close the files."""
        super().close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _count_rows(self, wanted: int) -> int:
        with writing(self.path):
            with self.path.open("rb") as file:
                lines, self._end = offset_of_line(file, wanted)
            if os.fstat(self._file).st_size > self._end:
                os.ftruncate(self._file, self._end)
        return lines

    def _write(self, row: int, job: Job, song: Embedded) -> Place:
        if row < self.filed:
            return self._to_journal(row, song)
        embedding = cast_vectors(song.embedding[None], self.dtype, self.model.embedding_size)[0]
        times = segments = None
        if self.segments:
            times, segments = segments_of(song, self.dtype, self.model.embedding_size)
        line = encode_line(_label(job.path, song.duration, row), embedding, times, segments)
        with writing(self.path):
            write_at(self._file, line, self._end)
        self._end += len(line)
        self.filed += 1
        return Place(self.name, row)

    def _merge(self, log: Log, part: Path) -> None:
        with self.path.open("rb") as filed, part.open("wb") as file:
            for record, row in self._rows_of(log, iter(filed)):
                label = _label(record.path, record.duration, record.row)
                if isinstance(row, bytes):
                    try:
                        file.write(relabel(row, label))
                    except ValueError as error:
                        message = f"{self.path} is damaged in line {(record.row or 0) + 1}"
                        raise OutputError(message, hint=WAY_OUT) from error
                    continue
                embedding, times, segments = row
                file.write(encode_line(label, embedding, *((times, segments) if self.segments else ())))


def _label(path: str, duration: float | None, row: int | None) -> dict[str, Any]:
    return {"path": path, "duration": duration, "row": row}


def offset_of_line(file: BinaryIO, number: int) -> tuple[int, int]:
    """Where line ``number`` starts: ``(whole lines before it, their bytes)``; fewer if the file has fewer lines."""
    lines = offset = 0
    while lines < number and (block := file.read(1 << 20)):
        found = block.count(b"\n")
        if lines + found < number:
            lines += found
            # A line cut short at the end of the file must not count as bytes of whole lines.
            last = block.rfind(b"\n") + 1
            if last:
                offset = file.tell() - len(block) + last
            continue
        at = -1
        for _ in range(number - lines):
            at = block.index(b"\n", at + 1)
        return number, file.tell() - len(block) + at + 1
    return lines, offset
