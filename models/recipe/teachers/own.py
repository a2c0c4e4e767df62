"""A model of this project as a teacher: a smaller one can learn to embed as it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from poolembed.embed.model import load
from poolembed.embed.song import Embedded

BATCH = 16
"""Clips at a time."""


class OwnTeacher:
    """A bundle; call it with clips.

    Args:
        bundle: its directory, or the name of one at hand.
    """

    outputs = ("embedding",)

    def __init__(self, bundle: Path) -> None:
        # Batches are filled up to their size, whatever is in them: as many as clips come at a time.
        self._model = load(bundle, workers=1, batch_size=BATCH)
        self.sample_rate = self._model.sample_rate

    def __call__(self, samples: Tensor) -> dict[str, Tensor]:
        """Mono clips of one length (B, n) -> their embeddings (B, D), as ``poolembed embed`` gives them."""
        outcomes = self._model.outcomes((clip, self.sample_rate) for clip in samples.numpy())
        vectors = [outcome.embedding for outcome in outcomes if isinstance(outcome, Embedded)]
        return {"embedding": torch.from_numpy(np.stack(vectors))}
