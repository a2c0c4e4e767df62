"""The same recording under several names, bitrates and formats, best first. Nothing is deleted here.

Two songs are held to be one recording if the cosine of their embeddings is at least a threshold and their lengths
differ by at most `TOLERANCE`. Songs that only a chain of others connects stay apart: each song of a group matches the
group's best one, which is the one to keep, itself. Connected components would join different songs through what lies
between them, a medley or a noisy copy; complete linkage would part two worn copies that both match their original.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from poolembed.audio.decode import open_audio
from poolembed.audio.encoding import Encoding
from poolembed.embed.manifest import NAME, Record, read_manifest
from poolembed.errors import AudioError, UsageError
from poolembed.progress import Progress, silent
from poolembed.search.collection import Collection
from poolembed.search.quality import Copy, doubt, is_soundless, rank
from poolembed.search.selfjoin import has_match, nearest_leader

THRESHOLD = 0.8
"""Cosine from which on two songs of the model `MEASURED_ON` are one recording: ``tests/benchmarks/duplicates.py``.

There, of all pairs among 321 tracks and 80 re-encodings of 20 of them, 99.5 % of those found are right and 98.5 % are
found. Down to 0.654 as many are right and all are found; but in a collection of more tracks more of them are near to
each other by chance.
"""

MEASURED_ON = "e3bb54bc29eb2a0b95ef3970a1309e8eb7ca75468c3da1d9f63626805313d0b0"
"""Fingerprint of the model that `THRESHOLD` was chosen for. Other models' cosines are spread otherwise."""

TOLERANCE = 2.0
"""Seconds by which copies may differ in length. An encoder adds less than a tenth of a second; the gap that a CD has
before a track is two seconds by custom, and one ripper keeps what another drops."""

SHORT = 10.0
"""Seconds below which songs have to be more alike, for there is less in them to differ by.

How far a cosine may be from 1, and how much lengths may differ, shrink in proportion to the length. Of 129 strokes of
one drum `duplicates` of the model `MEASURED_ON` lists 4 as copies, where 0.8 alone lists 102; of 300 spoken digits none
and 113; of 400 sounds of 5 s 12 and 52.
"""

PADDING = 0.1
"""Seconds by which lengths may always differ, which encoders add."""


@dataclass(frozen=True, slots=True)
class Group:
    """Copies of one recording.

    Attributes:
        songs: at least two, the best first: whole files before damaged ones, lossless before lossy, then by bitrate
            (lossy songs only), sample rate, channels, bits, phase and length; of equals the smallest file.
    """

    songs: tuple[Copy, ...]

    @property
    def spare(self) -> tuple[Copy, ...]:
        """The songs that the best one can stand for, for it is as good as they are for sure."""
        return tuple(song for song in self.songs[1:] if song.doubt is None)

    @property
    def freed(self) -> int:
        """Bytes of the spare songs."""
        return sum(song.size or 0 for song in self.spare)


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What was found. ``len`` is the number of groups, and iterating gives them.

    Attributes:
        groups: those of which the most space could be freed first.
        threshold: cosine that was asked for.
        tolerance: seconds that were.
        by_length: the songs' lengths were known and compared.
        stale: songs left out, for their files are gone, or have changed since they were embedded.
        links: names left out, for they lead to a file that is in their group under another name.
        soundless: songs left out, for they are silent, so that all of them are alike.
    """

    groups: list[Group]
    threshold: float
    tolerance: float
    by_length: bool
    stale: int
    links: int
    soundless: int

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)


class _File(NamedTuple):
    """A song's file as it is now: None where there is none to look at; whether its path leads through a link."""

    status: os.stat_result | None
    is_link: bool


def find_duplicates(
    collection: Collection,
    *,
    threshold: float | None = None,
    tolerance: float | None = None,
    progress: Progress = silent,
) -> Duplicates:
    """Find the songs of a collection that are the same recording.

    Lengths, encodings and what was wrong with a song are those of the manifest that ``poolembed embed`` writes. Of
    other vectors the cosine alone decides what matches. Songs that match another, and of which no encoding is kept, are
    decoded; of other files only those are read that are of the same size as the best of their group.

    Args:
        collection: in which to look.
        threshold: cosine, -1 to 1; None for `THRESHOLD`, and more of songs shorter than `SHORT` where that is known.
        tolerance: seconds; None for `TOLERANCE`, and less of such songs if `threshold` is None too.
        progress: told how far it is.

    Raises:
        VectorsError: a row is zero, or not finite.
        OutputError: the manifest is damaged.
        UsageError: threshold or tolerance is no such number.
    """
    asked = threshold, tolerance
    threshold = THRESHOLD if threshold is None else threshold
    tolerance = TOLERANCE if tolerance is None else tolerance
    for name, value, least, most in (("threshold", threshold, -1, 1), ("tolerance", tolerance, 0, math.inf)):
        if not isinstance(value, int | float | np.number) or not least <= value <= most:
            raise UsageError(f"{name} must be a number from {least} to {most}, got {value!r}")
    records = _records(collection)
    durations = None if records is None else np.array([record.duration for record in records], np.float64)
    cosine, seconds = _evidence(*asked, np.full(len(collection), np.inf) if durations is None else durations)
    alike = np.flatnonzero(has_match(collection, cosine, durations, seconds, progress))
    matched = alike[~collection.silent(alike)].tolist()
    files = {row: _look(collection, row) for row in matched}
    if records is not None:
        files = {row: file for row, file in files.items() if _is_as_embedded(file, records[row])}
    heard = _hear(collection, files, records, progress)
    soundless = {row for row in files if is_soundless(heard[row].note)}  # those that an earlier version embedded
    songs = {row: _describe(collection, row, files[row], heard[row]) for row in files if row not in soundless}
    order = sorted(songs, key=lambda row: (*rank(songs[row]), files[row].is_link, row))
    rows = np.array(order, np.int64)
    leaders, cosines = nearest_leader(
        collection, rows, cosine[rows], None if durations is None else durations[rows], seconds[rows]
    )
    members = defaultdict(list)
    for row, leader, each in zip(order, leaders.tolist(), cosines.tolist(), strict=True):
        songs[row] = replace(songs[row], cosine=each)
        members[leader].append(row)
    groups, links = [], 0
    for group in members.values():
        once = _each_file_once(group, files)
        links += len(group) - len(once)
        if len(once) > 1:
            best, *others = (songs[row] for row in once)
            judged = (replace(song, doubt=doubt(best, song, tolerance)) for song in others)
            groups.append((once[0], Group((best, *judged))))
    groups.sort(key=lambda each: (-each[1].freed, each[0]))
    stale = len(matched) - len(files)
    found = [group for _, group in groups]
    silent = len(alike) - len(matched) + len(soundless)
    return Duplicates(found, threshold, tolerance, records is not None, stale, links, silent)


def _evidence(
    threshold: float | None, tolerance: float | None, durations: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The cosine and the seconds that each song asks for, ``(N,)``: what was given, or by its length."""
    share = np.minimum(durations / SHORT, 1)
    if threshold is not None:
        return np.full(len(durations), threshold), np.full(
            len(durations), TOLERANCE if tolerance is None else tolerance
        )
    seconds = np.maximum(share * TOLERANCE, PADDING) if tolerance is None else np.full(len(durations), tolerance)
    return 1 - share * (1 - THRESHOLD), seconds


def _records(collection: Collection) -> list[Record] | None:
    """What the manifest says of each row; None where there is no manifest."""
    source = Path(collection.source)
    manifest = (source if source.is_dir() else source.parent) / NAME
    if collection.model is None or not manifest.is_file():
        return None
    records = read_manifest(manifest).records
    return [records[key] for key in collection.keys] if records.keys() >= set(collection.keys) else None


def _look(collection: Collection, row: int) -> _File:
    if not collection.named:
        return _File(None, False)
    path = collection.paths[row]
    try:
        return _File(Path(path).stat(), os.path.realpath(path) != os.path.abspath(path))  # noqa: PTH100
    except (OSError, ValueError):
        return _File(None, False)


def _is_as_embedded(file: _File, record: Record) -> bool:
    return file.status is not None and (file.status.st_size, file.status.st_mtime) == (record.size, record.mtime)


class _Heard(NamedTuple):
    """What decoding a song told."""

    encoding: Encoding | None = None
    duration: float | None = None
    note: str | None = None


def _hear(
    collection: Collection,
    files: dict[int, _File],
    records: list[Record] | None,
    progress: Progress,
) -> dict[int, _Heard]:
    """What the manifest keeps of each row, and what decoding tells where it does not."""
    heard, unknown = {}, []
    for row, file in files.items():
        record = None if records is None else records[row]
        if record is not None and record.encoding is not None:
            heard[row] = _Heard(record.encoding, record.duration, record.reason)
        elif file.status is None:
            heard[row] = _Heard()
        else:
            unknown.append(row)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        told = pool.map(_decode, [collection.paths[row] for row in unknown])
        for count, (row, each) in enumerate(zip(unknown, told, strict=True), start=1):
            heard[row] = each
            progress("decoding", count, len(unknown), f"{count:,}/{len(unknown):,} songs")
    return heard


def _decode(path: str) -> _Heard:
    try:
        with open_audio(path) as stream:
            for _ in stream.blocks():
                pass
            return _Heard(stream.encoding, stream.samples / stream.sample_rate, stream.note)
    except AudioError:
        return _Heard()


def _describe(collection: Collection, row: int, file: _File, heard: _Heard) -> Copy:
    told = {} if heard.encoding is None else asdict(heard.encoding)
    names = ("codec", "lossless", "bits", "bitrate", "sample_rate", "channels")
    return Copy(
        key=collection.keys[row],
        path=collection.paths[row],
        cosine=1.0,
        duration=heard.duration,
        size=None if file.status is None else file.status.st_size,
        **{name: told.get(name) for name in names},
        note=heard.note,
    )


def _each_file_once(rows: Sequence[int], files: dict[int, _File]) -> list[int]:
    """Rows without those whose file an earlier row has too: nothing would be freed, or the one file be lost."""
    seen: set[tuple[int, int]] = set()
    once = []
    for row in rows:
        status = files[row].status
        if status is not None:
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
        once.append(row)
    return once
