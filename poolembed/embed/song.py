"""What goes into the engine and what comes out of it, song by song."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poolembed.audio.encoding import Encoding


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
