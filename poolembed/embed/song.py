"""What goes into the engine and what comes out of it, song by song."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.audio.encoding import Encoding
from poolembed.errors import UsageError
from poolembed.nn.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Segments:
    """Vectors of consecutive stretches of one song.

    Attributes:
        times: ``(n,)`` float64, where each stretch starts, in seconds.
        embeddings: ``(n, D)`` float32, unit length.
    """

    times: NDArray[np.float64]
    embeddings: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Embedded:
    """A song that was embedded.

    Attributes:
        index: the song's place in the input.
        embedding: ``(D,)`` float32, unit length.
        duration: decoded seconds of audio.
        note: what was wrong with the file though it could be embedded ("truncated: …"), or None.
        segments: one vector per so many seconds, where they were asked for.
        encoding: how the file is encoded; None of samples in memory.
    """

    index: int
    embedding: NDArray[np.float32]
    duration: float
    note: str | None = None
    segments: Segments | None = None
    encoding: Encoding | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A song that could not be embedded, and why."""

    index: int
    reason: str


Outcome = Embedded | Failed


@dataclass(frozen=True, slots=True)
class Numbers:
    """A song's numbers as they are kept, in C order; none of segments that were not asked for.

    Attributes:
        embedding: ``(D,)``, float32 or float16.
        times: ``(n,)`` float64.
        segments: ``(n, D)``, of the embedding's type.
    """

    embedding: NDArray[Any]
    times: NDArray[np.float64] | None = None
    segments: NDArray[Any] | None = None


def numbers_of(song: Embedded, size: int, dtype: np.dtype[Any], *, segments: bool) -> Numbers:
    """A song's numbers, of a model of some size.

    Raises:
        ValueError: the vectors are not of that size, or the segments are missing or not as many as their times.
    """
    found = song.segments
    for vectors in (song.embedding, *((found.embeddings,) if found is not None else ())):
        if vectors.shape[-1] != size:
            raise ValueError(f"vectors of shape {vectors.shape} for a model of size {size}")
    embedding = np.ascontiguousarray(song.embedding, dtype)
    if not segments:
        return Numbers(embedding)
    if found is None or len(found.times) != len(found.embeddings):
        raise ValueError("timestamps were asked for and the song comes without, or with more times than vectors")
    return Numbers(embedding, np.ascontiguousarray(found.times, "<f8"), np.ascontiguousarray(found.embeddings, dtype))


def check_seconds(config: ModelConfig, seconds: float | None) -> None:
    """Raise a UsageError unless a model can embed stretches of so many seconds."""
    if seconds is not None and not config.time_resolution <= seconds < math.inf:
        raise UsageError(
            f"one vector per {seconds:g} seconds is impossible; the least with this model is "
            f"{config.time_resolution:g} seconds"
        )
