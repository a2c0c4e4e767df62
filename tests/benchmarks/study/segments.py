"""Segments of tracks, for retrieval: which of them are of one track?

    python -m tests.benchmarks.study.segments DIR --music SONGS      # SONGS from tests/benchmarks/fetch_songs.sh

Writes only ``DIR/labels.csv``: every row is a stretch of a file, ``start`` to ``end``, whose label and group is its
track. The folds divide tracks, so test tracks were never heard in training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from tests.benchmarks.study.making import tracks, write_table

FOLDS = 5
SEGMENTS = 12
SECONDS = 4.0
EDGE = 5.0
"""Seconds at the start and at the end of a track that are left out: many fade there."""


def make(target: Path, music: Path, *, seed: int = 0, segments: int = SEGMENTS, seconds: float = SECONDS) -> None:
    """Write the table: so many segments a track, spread over it, at random within their share of it."""
    target.mkdir(parents=True, exist_ok=True)
    found = tracks(music)
    random = np.random.default_rng(seed)
    folds = random.permutation(np.arange(len(found)) % FOLDS)
    rows = []
    for track, fold in zip(found, folds, strict=True):
        share = (track.seconds - 2 * EDGE) / segments
        for number in range(segments):
            start = round(EDGE + number * share + random.uniform(0, max(share - seconds, 0)), 2)
            rows.append(
                {
                    "path": track.path.resolve(),
                    "start": start,
                    "end": round(start + seconds, 2),
                    "label": track.piece,
                    "group": track.piece,
                    "fold": 1 + int(fold),
                }
            )
    write_table(target / "labels.csv", ["path", "start", "end", "label", "group", "fold"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--music", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make(arguments.directory, arguments.music, seed=arguments.seed)


if __name__ == "__main__":
    main()
