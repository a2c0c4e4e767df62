"""Collections in memory, to push."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.identity import ModelIdentity
from poolembed.search.collection import Collection
from poolembed.search.lance import open_table

SIZE = 16
FIRST = ModelIdentity("first", "1" * 64, SIZE)
SECOND = ModelIdentity("second", "2" * 64, SIZE)


def vectors(
    rows: int, size: int = SIZE, *, seed: int = 0, dtype: type[np.float16 | np.float32] = np.float32
) -> NDArray[Any]:
    """Seeded directions ``(rows, size)``; fewer rows are the first of more."""
    matrix = np.random.default_rng(seed).standard_normal((rows, size))
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix.astype(dtype)


def collection(
    matrix: NDArray[Any], names: Sequence[str] | None = None, model: ModelIdentity | None = FIRST
) -> Collection:
    """Songs called ``0.mp3`` and so on, in /music, unless they are given names."""
    keys = [f"{row}.mp3" for row in range(len(matrix))] if names is None else list(names)
    paths = [f"/music/{key}" for key in keys]
    return Collection("embeddings", keys, paths, matrix, matrix.dtype == np.float32, model, "stamp")


def content(place: str) -> dict[str, tuple[str, list[float]]]:
    """Path -> key and vector of every song of a table, each of which is there once."""
    rows = open_table(place).dataset.to_table().to_pylist()
    songs = {row["path"]: (row["key"], row["embedding"]) for row in rows}
    assert len(songs) == len(rows)
    return songs
