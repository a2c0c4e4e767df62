"""The vector of silence, which all silent songs have, of any model.

It is known by its numbers, all of which are the same and negative, so that it needs no column, no flag and no model: it
is itself in every format, as float16, after any of its numbers are cut off, in a table or an index, and in what another
program made of these. No network gives such a vector of a sound.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def silence(size: int) -> NDArray[np.float32]:
    """``(size,)``, of unit length."""
    return np.full(size, -1 / np.sqrt(size), np.float32)


def is_silence(vectors: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which of ``(..., D)`` vectors of any length are that of silence, ``(...)``; of one number none is."""
    first = vectors[..., :1]
    silent: NDArray[np.bool_] = ((vectors == first) & (first < 0)).all(axis=-1) & (vectors.shape[-1] > 1)
    return silent
