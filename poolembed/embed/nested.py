"""Nested embeddings: of a model that was trained for it, the first numbers are a smaller embedding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from poolembed.catalog import BundleConfig
from poolembed.embed.song import Embedded, Outcome
from poolembed.errors import UsageError


def check_dim(config: BundleConfig, dim: int | None) -> int:
    """The size of embedding that is asked for; None asks for all of it.

    Raises:
        UsageError: the model was not trained for that size; the message says for which.
    """
    whole = config.model.embedding_size
    if dim is None or dim == whole or dim in config.nested:
        return whole if dim is None else dim
    if not config.nested:
        raise UsageError(
            f"the first {dim} numbers of an embedding of {config.name} are no embedding: it was not trained for that",
            hint=f"its embeddings have {whole} numbers; `poolembed train --nested SIZES` makes them nested",
        )
    sizes = ", ".join(map(str, config.nested))
    raise UsageError(
        f"the first {dim} numbers of an embedding of {config.name} are no embedding: it was trained for {sizes}",
        hint=f"choose one of these, or {whole}, which is all",
    )


_SMALL = np.float32(1e-12)
"""Squares of numbers much smaller than this are no longer exact in float32, and in the end 0."""


def first_numbers(vectors: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """The first numbers of unit vectors ``(..., D)``, brought back to unit length: ``(..., dim)`` float32.

    All of them are given back as they are. Where the first numbers are all 0, so is what is made of them.
    """
    if vectors.shape[-1] == dim:
        return vectors
    first = vectors[..., :dim]
    largest = np.abs(first).max(axis=-1, keepdims=True)
    small = (largest > 0) & (largest < _SMALL)
    if small.any():
        first = np.divide(first, np.where(small, largest, 1), dtype=np.float32)
    length = np.linalg.norm(first, axis=-1, keepdims=True)
    unit: NDArray[np.float32] = (first / np.maximum(length, np.finfo(np.float32).tiny)).astype(np.float32)
    return unit


def shortened(outcome: Outcome, dim: int) -> Outcome:
    """An outcome whose vectors have their first numbers alone."""
    if not isinstance(outcome, Embedded):
        return outcome
    segments = outcome.segments
    if segments is not None:
        segments = replace(segments, embeddings=first_numbers(segments.embeddings, dim))
    return replace(outcome, embedding=first_numbers(outcome.embedding, dim), segments=segments)
