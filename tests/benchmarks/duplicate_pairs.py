"""Pairs of files that are the same recording, and how many of them a threshold finds, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.search.duplicates import THRESHOLD
from tests.benchmarks.common import Table
from tests.benchmarks.reencoded import KINDS

Bools = NDArray[np.bool_]

SHOWN = 20
COLUMNS = ["precision", "recall", "false pairs", "true pairs"]


@dataclass(frozen=True)
class Files:
    """Everything that was embedded, tracks and copies: F files, in the order of the rows.

    Attributes:
        paths: where they are.
        track: ``(F,)`` the number of the track that each is, or is a copy of.
        kind: ``(F,)`` how each was made; "" for a track.
        recording: ``(F,)`` the first track that is the same recording.
        cosine: ``(F, F)``.
        fits: ``(F, F)``; lengths differ by no more than the tolerance.
    """

    paths: list[str]
    track: NDArray[np.int64]
    kind: NDArray[np.str_]
    recording: NDArray[np.int64]
    cosine: NDArray[np.float32]
    fits: Bools

    @property
    def same(self) -> Bools:
        return np.asarray(self.recording[:, None] == self.recording)

    def once(self, of: Bools) -> Bools:
        """Each pair of the chosen files once."""
        return np.triu(of[:, None] & of, 1)


@dataclass(frozen=True)
class Score:
    """Pairs that were found, those of them that are right, and those that were to be found."""

    found: int
    right: int
    wanted: int

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        return self.right / self.wanted if self.wanted else 1.0

    @property
    def false(self) -> int:
        return self.found - self.right

    def cells(self) -> tuple[str, ...]:
        return percent(self.precision), percent(self.recall), str(self.false), str(self.wanted)


def percent(share: float) -> str:
    return f"{100 * share:.2f}"


def score(files: Files, threshold: float, among: Bools, *, lengths: bool = True) -> Score:
    """Of the pairs ``among``, ``(F, F)``."""
    found = (files.cosine >= threshold) & among
    if lengths:
        found &= files.fits
    return Score(int(found.sum()), int((found & files.same).sum()), int((files.same & among).sum()))


def by_threshold(files: Files, thresholds: Sequence[float]) -> tuple[Table, list[dict[str, Any]]]:
    columns = ["cosine at least", *COLUMNS, "precision without lengths", "recall", "false among tracks alone"]
    table = Table("All pairs of files, by threshold (%, and pairs)", columns)
    data = []
    pairs, alone = files.once(files.kind == files.kind), files.once(files.kind == "")
    for threshold in thresholds:
        guarded, free = score(files, threshold, pairs), score(files, threshold, pairs, lengths=False)
        tracks = score(files, threshold, alone)
        label = f"**{threshold:g}** (default)" if threshold == THRESHOLD else f"{threshold:g}"
        table.add(label, *guarded.cells(), percent(free.precision), percent(free.recall), tracks.false)
        about = {"guarded": vars(guarded), "without lengths": vars(free), "tracks alone": vars(tracks)}
        data.append({"threshold": threshold, **about})
    return table, data


def by_kind(files: Files, split: NDArray[np.str_]) -> tuple[Table, dict[str, Any]]:
    """At the default threshold; and by ``split``, ``(F,)``, of each file's track."""
    title = f"Pairs of a copy and any track, by kind of copy, at {THRESHOLD:g} (%, and pairs)"
    table = Table(title, ["copy", *COLUMNS, "cosine to its track, median", "lowest"])
    data: dict[str, Any] = {}
    track = files.kind == ""
    choices = {kind.name: files.kind == kind.name for kind in KINDS} | {"**all**": ~track}
    for name in sorted(set(split.tolist()) - {""}):
        choices[f"of the split {name}"] = ~track & (split == name)
    for name, chosen in choices.items():
        among = chosen[:, None] & track
        if among.any():
            own = files.cosine[among & (files.track[:, None] == files.track)]
            result = score(files, THRESHOLD, among)
            table.add(name, *result.cells(), f"{np.median(own):.4f}", f"{own.min():.4f}")
            data[name] = {**vars(result), "cosines": own.tolist()}
    return table, data


def pairs_of_tracks(files: Files, waveforms: dict[tuple[int, int], float]) -> tuple[Table, list[dict[str, Any]]]:
    """What is found among the tracks alone, right or not, the nearest first."""
    title = f"Tracks that are found to be one recording, at {THRESHOLD:g}: the nearest {SHOWN}, and what waveforms say"
    table = Table(title, ["tracks", "cosine", "waveforms", "right"])
    found = files.once(files.kind == "") & files.fits & (files.cosine >= THRESHOLD)
    data = []
    for one, other in sorted(np.argwhere(found).tolist(), key=lambda pair: -files.cosine[*pair]):
        numbers = sorted((int(files.track[one]), int(files.track[other])))
        r = waveforms.get((numbers[0], numbers[1]))
        right = bool(files.same[one, other])
        names = [files.paths[row] for row in (one, other)]
        data.append({"tracks": [Path(name).name for name in names], "cosine": float(files.cosine[one, other])})
        data[-1] |= {"waveforms": r, "right": right, "one folder": len({Path(name).parent for name in names}) == 1}
        if len(table.rows) < SHOWN:
            heard = "unlike" if r is None else f"{r:.3f}"
            cells = f"{data[-1]['cosine']:.5f}", heard, "yes" if right else "no"
            table.add(", ".join(Path(name).name for name in names), *cells)
    return table, data
