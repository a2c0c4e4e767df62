"""What the makers of the study's data share: music to cut from, clips and tables to write. Everything is seeded."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from poolembed.audio.source import open_source

RATE = 16_000
SHORTEST_TRACK = 60.0
"""Seconds; what is shorter is a game's jingle."""

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Track:
    """A piece of music, and what all its versions have in common."""

    path: Path
    piece: str
    seconds: float


def tracks(music: Path) -> list[Track]:
    """The pieces of music below a folder, in a fixed order; of several versions of one piece, the first.

    ``track3_enhanced.opus`` is a version of ``track3.ogg``, and so are copies in other formats: were both kept, one
    could be a training track and the other a test track.
    """
    found: dict[str, Track] = {}
    for path in sorted(music.rglob("*"), key=lambda path: path.relative_to(music).as_posix()):
        if path.suffix.lower() in (".ogg", ".opus", ".mp3", ".flac", ".wav") and path.stat().st_size > 300_000:
            piece = re.sub(r"[-_ ]?(enhanced|version|remix)$|^\d\d-", "", path.stem.lower())
            if piece not in found and (seconds := len(read(path)) / RATE) >= SHORTEST_TRACK:
                found[piece] = Track(path, piece, seconds)
    if len(found) < 10:
        raise SystemExit(f"only {len(found)} pieces of music below {music}; see tests/benchmarks/fetch_songs.sh")
    return list(found.values())


def read(path: Path) -> Samples:
    """A whole file, mono, at `RATE`."""
    with open_source(str(path), RATE) as source:
        return np.concatenate(list(source.blocks()))


def loudness(samples: Samples) -> float:
    """Root mean square."""
    return math.sqrt(float(np.mean(np.square(samples, dtype=np.float64))) + 1e-12)


def write_clip(path: Path, samples: Samples) -> None:
    """A 16-bit FLAC at `RATE`, turned down where it would clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    peak = float(np.abs(samples).max(initial=0))
    soundfile.write(path, samples * min(1.0, 0.95 / max(peak, 1e-9)), RATE, subtype="PCM_16")


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A CSV; it appears last and in one step, so that a folder with a table is a finished one."""
    partial = path.with_suffix(".part")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)
