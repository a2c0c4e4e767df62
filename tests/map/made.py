"""Collections and songs for the tests of the map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from poolembed.identity import ModelIdentity
from poolembed.map.layout import Layout
from poolembed.search.collection import Collection
from poolembed.search.exact import Hits
from tests.conftest import RATE, noise


def collection(matrix: Any, paths: Sequence[str | Path] | None = None, keys: Sequence[str] | None = None) -> Collection:
    """Vectors, scaled to unit length, and what they are of."""
    rows = np.array(matrix, np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [str(path) for path in paths] if paths is not None else [f"/music/{row}.mp3" for row in range(len(rows))]
    identity = ModelIdentity("tiny", "f" * 64, rows.shape[1])
    return Collection("vectors", keys or names, names, rows, True, identity, "")


def layout(places: NDArray[np.float32], groups: Sequence[int], seed: int = 0) -> Layout:
    """A layout of given places; every song is like three others at random."""
    random = np.random.default_rng(seed)
    rows = np.array([random.permutation(np.delete(np.arange(len(places)), row))[:3] for row in range(len(places))])
    middles = [groups.index(group) for group in range(max(groups) + 1)]
    cosines = np.tile(np.array([0.9, 0.5, -0.25], np.float32), (len(places), 1))
    return Layout(places.astype(np.float32), "PCA", Hits(rows, cosines), np.array(groups), middles)


def song(path: Path, seed: int = 0, **tags: str) -> Path:
    """Two seconds of noise with tags."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for name, value in tags.items():
            setattr(file, name, value)
        file.write(noise(2 * RATE, seed))
    return path
