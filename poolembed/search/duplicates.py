"""The same recording under several names, bitrates and formats, best first. Nothing is deleted here.

Two songs are held to be one recording if the cosine of their embeddings is at least a threshold and their lengths
differ by at most `TOLERANCE`. Songs that only a chain of others connects stay apart: each song of a group matches the
group's best one, which is the one to keep, itself. Connected components would join different songs through what lies
between them, a medley or a noisy copy; complete linkage would part two worn copies that both match their original.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from poolembed.audio.tags import Tags, read_tags
from poolembed.embed.manifest import NAME, Record, read_manifest
from poolembed.search.collection import Collection
from poolembed.search.selfjoin import has_match, nearest_leader

THRESHOLD = 0.8
"""Cosine from which on two songs of the model `MEASURED_ON` are one recording: ``tests/benchmarks/duplicates.py``.

There, of all pairs among 878 tracks and 780 re-encodings of 200 of them, 99.4 % of those found are right and 94.0 % are
found. Down to 0.7 as many are right and more are found; but in a collection of more tracks more of them are near to
each other by chance. Its rule asks for 0.982, which halves recall, for the sake of three pairs of tracks among 878.
"""

MEASURED_ON = "01e8bb30098cab82cd595b5312689b06cb67c0e018daa7f44e8cdfade5494401"
"""Fingerprint of the model that `THRESHOLD` was chosen for. Other models' cosines are spread otherwise."""

TOLERANCE = 2.0
"""Seconds by which copies may differ in length. An encoder adds less than a tenth of a second; the gap that a CD has
before a track is two seconds by custom, and one ripper keeps what another drops."""

_LOSSLESS = frozenset(["flac", "wav", "w64", "rf64", "aiff", "aif", "aifc", "au", "caf", "ape", "wv", "tta"])
_ALAC = 450.0  # kb/s; an .m4a above it is Apple Lossless, for AAC is seldom above 320


@dataclass(frozen=True, slots=True)
class Copy:
    """One song of a group.

    Attributes:
        key: its name in the collection.
        path: of the audio.
        cosine: to the group's best song; 1 for that song itself.
        duration: seconds, as decoded or else as its header says; None where unknown, as all that follow.
        size: bytes.
        lossless: by its suffix.
        bitrate: kb/s, on average.
        sample_rate: Hz.
        channels: how many.
    """

    key: str
    path: str
    cosine: float
    duration: float | None
    size: int | None
    lossless: bool
    bitrate: float | None
    sample_rate: int | None
    channels: int | None


@dataclass(frozen=True, slots=True)
class Group:
    """Copies of one recording.

    Attributes:
        songs: at least two, the best first: lossless before lossy, then by bitrate (lossy songs only), sample rate,
            channels and length; of equals the smallest file.
    """

    songs: tuple[Copy, ...]

    @property
    def freed(self) -> int:
        """Bytes of all songs but the best."""
        return sum(song.size or 0 for song in self.songs[1:])


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What was found.

    Attributes:
        groups: those of which the most space could be freed first.
        by_length: the songs' lengths were known and compared.
        stale: songs left out, for their files are gone, or have changed since they were embedded.
        links: names left out, for they lead to a file that is in their group under another name.
    """

    groups: list[Group]
    by_length: bool
    stale: int
    links: int


class _File(NamedTuple):
    """A song's file as it is now: None where there is none to look at; whether its path leads through a link."""

    status: os.stat_result | None
    is_link: bool


def find_duplicates(
    collection: Collection,
    *,
    threshold: float = THRESHOLD,
    tolerance: float = TOLERANCE,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Duplicates:
    """Find the songs of a collection that are the same recording.

    Lengths are those of the manifest that ``poolembed embed`` writes; other vectors have none, and go by their cosine
    alone. Only the files of songs that match another are looked at, and of these only the headers.

    Args:
        collection: in which to look.
        threshold: cosine, -1 to 1.
        tolerance: seconds.
        on_progress: told the share of the work that is done, 0 to 1.

    Raises:
        VectorsError: a row is zero, or not finite.
        OutputError: the manifest is damaged.
    """
    records = _records(collection)
    durations = None if records is None else np.array([record.duration for record in records], np.float64)
    matched = np.flatnonzero(has_match(collection, threshold, durations, tolerance, on_progress)).tolist()
    files = {row: _look(collection, row) for row in matched}
    if records is not None:
        files = {row: file for row, file in files.items() if _is_as_embedded(file, records[row])}
    songs = {
        row: _describe(collection, row, file, None if records is None else records[row]) for row, file in files.items()
    }
    order = sorted(files, key=lambda row: (_rank(songs[row], files[row]), row))
    rows = np.array(order, np.int64)
    leaders, cosines = nearest_leader(
        collection, rows, threshold, None if durations is None else durations[rows], tolerance
    )
    members = defaultdict(list)
    for row, leader, cosine in zip(order, leaders.tolist(), cosines.tolist(), strict=True):
        songs[row] = replace(songs[row], cosine=cosine)
        members[leader].append(row)
    groups, links = [], 0
    for group in members.values():
        once = _each_file_once(group, files)
        links += len(group) - len(once)
        if len(once) > 1:
            groups.append((once[0], Group(tuple(songs[row] for row in once))))
    groups.sort(key=lambda each: (-each[1].freed, each[0]))
    return Duplicates([group for _, group in groups], records is not None, len(matched) - len(files), links)


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


def _describe(collection: Collection, row: int, file: _File, record: Record | None) -> Copy:
    path = collection.paths[row]
    tags = Tags() if file.status is None else read_tags(path)
    size = None if file.status is None else file.status.st_size
    duration = tags.duration if record is None else record.duration
    bitrate = tags.bitrate or (size * 8e-3 / duration if size and duration else None)
    suffix = Path(path).suffix.lower().removeprefix(".")
    return Copy(
        key=collection.keys[row],
        path=path,
        cosine=1.0,
        duration=duration,
        size=size,
        lossless=suffix in _LOSSLESS or (suffix == "m4a" and (bitrate or 0) > _ALAC),
        bitrate=bitrate,
        sample_rate=tags.sample_rate,
        channels=tags.channels,
    )


def _rank(song: Copy, file: _File) -> tuple[float, ...]:
    """Less is better. Files that are not there come last, and a link after what it leads to."""
    return (
        file.status is None,
        not song.lossless,
        0 if song.lossless else -round(song.bitrate or 0),
        -(song.sample_rate or 0),
        -(song.channels or 0),
        -round(song.duration or 0, 1),
        song.size or 0,
        file.is_link,
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
