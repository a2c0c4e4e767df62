"""``manifest.jsonl``: which songs a directory of embeddings holds, of which model, and what became of each.

JSON Lines. The first line is a header with the model and the settings; every other line is one song. While a run
lasts, lines are only ever appended, and the last line of a song is the one that counts; when the run ends there is
one line a song, in row order. Pure ASCII, so a file name with a newline or of invalid UTF-8 survives the round trip.

This module reads the format. ``outputs/log.py`` is the only place that writes it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from poolembed.audio.encoding import Encoding
from poolembed.errors import OutputError
from poolembed.files.reading import is_below, read_regular
from poolembed.identity import ModelIdentity
from poolembed.nn.config import LARGEST_SIZE

NAME = "manifest.jsonl"
VERSION = 1
WORK = ".poolembed"  # the folder, inside an output directory, of everything that is not finished
FAULTS = "faults.log"  # in that folder, the tracebacks of faults of poolembed itself
WAY_OUT = "embed --overwrite replaces what is there; embed -o with another directory leaves it alone"

Format = Literal["npy", "matrix", "parquet", "jsonl"]
FloatType = Literal["float32", "float16"]
Status = Literal["ok", "failed"]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Amount = Annotated[float, Meta(ge=0)]

T = TypeVar("T")

_SHOWN = 100  # characters of a name that may be of any length


@dataclass(frozen=True, slots=True)
class Settings:
    """What shapes the files besides the model. ``timestamps`` is in seconds."""

    format: Format
    dtype: FloatType
    timestamps: Annotated[float, Meta(gt=0)] | None

    @property
    def numbers(self) -> np.dtype[Any]:
        """The type of the numbers on the disk, little-endian everywhere."""
        return np.dtype("<f2" if self.dtype == "float16" else "<f4")

    @property
    def output(self) -> str | None:
        """The file that holds all embeddings; None where each song has its own."""
        if self.format == "npy":
            return None
        return f"embeddings.{'npy' if self.format == 'matrix' else self.format}"


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
        timestamps: ``(first, count)`` rows of ``timestamps.npy``.
        journal: of versions before this: where the embedding was while a run lasted that was killed, or None.
        codec: as its decoder told when it was embedded, as all that follow (`Encoding` says what they are); None in
            manifests of earlier versions.
        lossless: see there.
        sample_rate: see there.
        channels: see there.
        bits: see there.
        bitrate: see there.
    """

    key: str
    path: str
    abspath: str
    status: Status
    reason: str | None
    size: Count | None
    mtime: float | None
    duration: Amount | None = None
    output: str | None = None
    row: Count | None = None
    timestamps: tuple[Count, Count] | None = None
    journal: Count | None = None
    codec: str | None = None
    lossless: bool | None = None
    sample_rate: Count | None = None
    channels: Count | None = None
    bits: Count | None = None
    bitrate: Amount | None = None

    @property
    def encoding(self) -> Encoding | None:
        """How the file is encoded, as its decoder told when it was embedded; None where that was not kept."""
        if self.codec is None or self.sample_rate is None or self.channels is None:
            return None
        return Encoding(self.codec, self.lossless, self.sample_rate, self.channels, self.bits, self.bitrate)

    def to_line(self) -> bytes:
        """The record as a line of the manifest, newline included."""
        song = {name: getattr(self, name) for name in _ALWAYS}
        if self.abspath != self.path:
            song["abspath"] = self.abspath
        song |= {name: value for name in _OPTIONAL if (value := getattr(self, name)) is not None}
        return _line(song)


_ALWAYS = ("path", "status", "reason", "row", "duration", "size", "mtime", "output", "key")
_OPTIONAL = tuple(field.name for field in fields(Record) if field.name not in (*_ALWAYS, "abspath"))
"""Fields that a line has only where they say something. A new one takes a line in `Record`, and a default there."""


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

    Every line is checked: that its values are of their types and can be, that its key stays below the directory, that
    its output is the file that this key and format have, and that rows are 0, 1, 2, … once each. Fields of a later
    poolembed that this one does not know are passed over, and are gone when the manifest is tidied.

    Raises:
        OutputError: it cannot be read, is damaged, or is of another version of poolembed. The line is named.
    """
    try:
        data = read_regular(path)
    except OSError as error:
        raise OutputError(f"cannot read {os.fspath(path)}: {error.strerror}") from error
    end = data.rfind(b"\n") + 1
    lines = data[:end].split(b"\n")[:-1]
    header = _read_header(lines[0] if lines else b"", os.fspath(path))
    shared = header.settings.output
    records: dict[str, Record] = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            record = _decode(line)
            _check(record, shared)
        except (ValueError, RecursionError) as error:
            raise OutputError(f"{os.fspath(path)} is damaged in line {number}: {error}", hint=WAY_OUT) from error
        records[record.key] = record
    if shared is not None:
        _check_rows(records.values(), lines, os.fspath(path))
    return Manifest(header, records, end, settled=len(records) == len(lines) - 1)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode("ascii") + b"\n"


def _read_header(line: bytes, path: str) -> Header:
    try:
        version = msgspec.json.decode(line, type=_Version).poolembed_manifest
    except (ValueError, RecursionError) as error:
        raise OutputError(f"{path} is not a manifest of poolembed, or is damaged", hint=WAY_OUT) from error
    if version != VERSION:
        message = f"{path} is of version {version}; this poolembed reads version {VERSION}"
        raise OutputError(message, hint=f"use the poolembed that wrote it; {WAY_OUT}")
    try:
        head = _loads(line, _Head)
    except (ValueError, RecursionError) as error:
        raise OutputError(f"{path} has a damaged header: {error}", hint=WAY_OUT) from error
    return Header(ModelIdentity(head.model, head.fingerprint, head.embedding_size), head.settings, head.created)


class _Version(msgspec.Struct):
    poolembed_manifest: int


class _Head(msgspec.Struct):
    """The first line as it is written."""

    model: str
    fingerprint: str
    embedding_size: Annotated[int, Meta(ge=1, le=LARGEST_SIZE)]
    settings: Settings
    created: str


_PATH = re.compile(rb'\{"path": ("(?:[^"\\]|\\.)*"), ')  # as `Record.to_line` begins
_read_record = msgspec.json.Decoder(Record).decode


def _decode(line: bytes) -> Record:
    # Half the time of json.loads, but it refuses the surrogates of names that are not UTF-8.
    if b"\\ud" not in line:
        if b'"abspath"' in line:
            return _read_record(line)
        if (found := _PATH.match(line)) is not None:
            return _read_record(b'{"abspath": %b, %b' % (found[1], line[1:]))
    return _loads(line, Record)


def _loads(line: bytes, type: type[T]) -> T:
    """A line of JSON as msgspec decodes it, and with lone surrogates, as far as they can be in a file's name."""
    value = json.loads(line, parse_constant=_no_number)
    if isinstance(value, dict):
        if type is Record:
            value.setdefault("abspath", value.get("path"))
        for name in ("key", "path", "abspath"):
            if isinstance(text := value.get(name), str):
                os.fsencode(text)
    return msgspec.convert(value, type)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _check(record: Record, shared: str | None) -> None:
    """Raise a ValueError unless a record can be one of a manifest whose songs all lie in `shared`, if they do."""
    if not is_below(record.key) or record.key.casefold().startswith(WORK + "/"):
        raise ValueError(f"the key {record.key[:_SHOWN]!r} is no path below this directory")
    if not (isfinite(record.mtime or 0.0) and isfinite(record.duration or 0.0) and isfinite(record.bitrate or 0.0)):
        raise ValueError("mtime, duration or bitrate is no number")
    if record.output is None:
        if record.status == "ok" or record.row is not None:
            raise ValueError("an embedding that has no output")
    elif record.output != (f"{record.key}.npy" if shared is None else shared):
        raise ValueError(f"the output {record.output[:_SHOWN]!r} is not that of its key and format")
    elif (record.row is None) != (shared is None):
        raise ValueError("an output of many songs has a row for each, and that of one has none")


def _check_rows(records: Collection[Record], lines: Sequence[bytes], path: str) -> None:
    """Raise an OutputError unless the rows are 0, 1, 2, … once each."""
    rows = sorted(record.row for record in records if record.row is not None)
    for expected, row in enumerate(rows):
        if row != expected:
            wrong = next(record for record in reversed(list(records)) if record.row == row)
            number = next(n for n, line in enumerate(lines[1:], 2) if b'"row"' in line and _decode(line) == wrong)
            what = f"row {row} is another song's too" if row < expected else f"there is no row {expected} before {row}"
            raise OutputError(f"{path} is damaged in line {number}: {what}", hint=WAY_OUT)
