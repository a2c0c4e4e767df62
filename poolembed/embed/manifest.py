"""``manifest.jsonl``: which songs a directory of embeddings holds, of which model, and what became of each.

JSON Lines. The first line is a header with the model and the settings; every other line is one song. While a run
lasts, lines are only ever appended, and the last line of a song is the one that counts; when the run ends there is
one line a song, in row order. Pure ASCII, so a file name with a newline or of invalid UTF-8 survives the round trip.

This module reads the format. ``outputs/log.py`` is the only place that writes it.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, cast, get_args

from poolembed.audio.encoding import Encoding
from poolembed.errors import OutputError

NAME = "manifest.jsonl"
VERSION = 1
WAY_OUT = "--overwrite replaces what is there; -o with another directory leaves it alone"

Format = Literal["npy", "matrix", "parquet", "jsonl"]
FloatType = Literal["float32", "float16"]
Status = Literal["ok", "failed"]


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What has to agree for two embeddings to be comparable. The name is for people; the fingerprint decides."""

    name: str
    fingerprint: str
    embedding_size: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What shapes the files besides the model. ``timestamps`` is in seconds."""

    format: Format
    dtype: FloatType
    timestamps: float | None


@dataclass(frozen=True, slots=True)
class Header:
    """The first line. ``created`` is ISO 8601, UTC."""

    model: ModelIdentity
    settings: Settings
    created: str

    def to_line(self) -> bytes:
        """The header as a line of the manifest, newline included."""
        settings = self.settings
        return _line(
            {
                "poolembed_manifest": VERSION,
                "model": self.model.name,
                "fingerprint": self.model.fingerprint,
                "embedding_size": self.model.embedding_size,
                "settings": {
                    "format": settings.format,
                    "dtype": settings.dtype,
                    "timestamps": settings.timestamps,
                },
                "created": self.created,
            }
        )


@dataclass(frozen=True, slots=True)
class Record:
    """One song.

    Attributes:
        key: the song's name in this directory, ``/``-separated, unique.
        path: as the song was given or found; may hold surrogate escapes.
        abspath: the same from the root, which is what tells two songs apart.
        status: "ok" or "failed".
        reason: why it failed; for an embedded song a remark, or None.
        size: bytes, or None where the file could not be looked at.
        mtime: ``st_mtime``. JSON keeps a float exactly, so equality is a fair test of "unchanged".
        duration: decoded seconds of audio; None for a song that was never embedded.
        output: the file that holds the embedding, relative to the directory; None if there is none. A song that
            was embedded once and fails now keeps the output and the row of its earlier version.
        row: row of the embedding in ``output``; None for one file per song.
        timestamps: ``(first, count)`` rows of ``timestamps.npy``, or of the journal for a journalled song.
        journal: row of the journal in which the embedding waits for the end of the run, or None.
        encoding: how the file is encoded, as its decoder told when it was embedded; None where that was not kept.
    """

    key: str
    path: str
    abspath: str
    status: Status
    reason: str | None
    size: int | None
    mtime: float | None
    duration: float | None = None
    output: str | None = None
    row: int | None = None
    timestamps: tuple[int, int] | None = None
    journal: int | None = None
    encoding: Encoding | None = None

    def to_line(self) -> bytes:
        """The record as a line of the manifest, newline included."""
        song: dict[str, Any] = {
            "path": self.path,
            "status": self.status,
            "reason": self.reason,
            "row": self.row,
            "duration": self.duration,
            "size": self.size,
            "mtime": self.mtime,
            "output": self.output,
            "key": self.key,
        }
        if self.abspath != self.path:
            song["abspath"] = self.abspath
        if self.timestamps is not None:
            song["timestamps"] = list(self.timestamps)
        if self.journal is not None:
            song["journal"] = self.journal
        if self.encoding is not None:
            song |= asdict(self.encoding)
        return _line(song)


@dataclass(slots=True)
class Manifest:
    """A manifest as read.

    Attributes:
        header: the first line.
        records: key -> the last record of that song.
        end: bytes of the file that are whole lines; what follows is a line that a crash cut short.
        settled: no song has two lines, so the run that wrote it ended well or only added songs.
    """

    header: Header
    records: dict[str, Record]
    end: int
    settled: bool


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read a manifest, dropping a torn last line.

    Raises:
        OutputError: it cannot be read, is damaged, or is of another version of poolembed.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise OutputError(f"cannot read {os.fspath(path)}: {error.strerror}") from error
    end = data.rfind(b"\n") + 1
    lines = data[:end].split(b"\n")[:-1]
    header = _read_header(lines[0] if lines else b"", os.fspath(path))
    records: dict[str, Record] = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            record = _read_record(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{os.fspath(path)} is damaged in line {number}", hint=WAY_OUT) from error
        records[record.key] = record
    return Manifest(header, records, end, settled=len(records) == len(lines) - 1)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode("ascii") + b"\n"


def _read_header(line: bytes, path: str) -> Header:
    try:
        value = json.loads(line)
        version = value["poolembed_manifest"]
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} is not a manifest of poolembed, or is damaged", hint=WAY_OUT) from error
    if version != VERSION:
        message = f"{path} is of version {version}; this poolembed reads version {VERSION}"
        raise OutputError(message, hint=f"use the poolembed that wrote it; {WAY_OUT}")
    try:
        settings = value["settings"]
        model = ModelIdentity(str(value["model"]), str(value["fingerprint"]), int(value["embedding_size"]))
        if settings["format"] not in get_args(Format) or settings["dtype"] not in get_args(FloatType):
            raise ValueError(settings)
        timestamps = None if settings["timestamps"] is None else float(settings["timestamps"])
        return Header(model, Settings(settings["format"], settings["dtype"], timestamps), str(value["created"]))
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} has a damaged header", hint=WAY_OUT) from error


def _read_record(value: dict[str, Any]) -> Record:
    path = value["path"]
    key = value["key"]
    status = value["status"]
    if not isinstance(path, str) or not isinstance(key, str) or status not in get_args(Status):
        raise ValueError(value)
    span = value.get("timestamps")
    return Record(
        key=key,
        path=path,
        abspath=value.get("abspath", path),
        status=cast(Status, status),
        reason=value["reason"],
        size=value["size"],
        mtime=value["mtime"],
        duration=value["duration"],
        output=value["output"],
        row=value["row"],
        timestamps=None if span is None else (int(span[0]), int(span[1])),
        journal=value.get("journal"),
        encoding=_read_encoding(value),
    )


def _read_encoding(value: dict[str, Any]) -> Encoding | None:
    """None in manifests of earlier versions, which have no such fields."""
    if "codec" not in value:
        return None
    codec, lossless, rate, channels, bits, bitrate = (value[name] for name in Encoding.__match_args__)
    if (
        type(codec) is not str
        or type(lossless) not in (bool, NoneType)
        or type(rate) is not int
        or type(channels) is not int
        or type(bits) not in (int, NoneType)
        or type(bitrate) not in (int, float, NoneType)
        or not 0 <= (bitrate or 0) < math.inf
    ):
        raise ValueError(value)
    return Encoding(codec, lossless, rate, channels, bits, bitrate)
