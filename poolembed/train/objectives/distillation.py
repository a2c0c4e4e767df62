"""Distillation: predict the vectors of another model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from poolembed.errors import UsageError
from poolembed.nn.config import ModelConfig
from poolembed.train.config import ObjectiveConfig, TrainConfig
from poolembed.train.dataset import Dataset
from poolembed.train.objectives.base import Objective, Outputs, weighted_mean
from poolembed.vectors import match, read_vectors


class Distillation(Objective):
    """1 - cosine between a linear map of the embedding and a teacher's standardised vector; measured by the cosine.

    Where the two are of one size the map starts as the identity: a model that learns from its own former vectors starts
    where it is.
    """

    metrics = ("cosine",)

    def __init__(self, objective: ObjectiveConfig, config: TrainConfig, data: Dataset, model: ModelConfig) -> None:
        super().__init__(objective, config, data, model)
        assert objective.targets is not None
        clips = data.labelled.clips
        self.name = f"distill of {Path(objective.targets).name}"
        vectors = read_vectors(objective.targets)
        rows = match(vectors, [clip.key for clip in clips])
        known = np.array([row is not None for row in rows])
        fit = known & np.isin(np.arange(len(rows)), data.division.train)
        if not fit.any():
            raise UsageError(
                f"no training clip has a target vector in {objective.targets}",
                hint=f"it has paths like {vectors.keys[0]!r}, and the clips {clips[0].key!r}",
            )
        self._targets = torch.from_numpy(standardised(vectors.matrix[[row or 0 for row in rows]], fit))
        self._known = torch.from_numpy(known).float()
        size = self._targets.shape[1]
        maps = [nn.Linear(each, size) for each in (model.embedding_size, *self.nested)]
        for linear in maps if size == model.embedding_size else ():
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.own = nn.ModuleList(maps)

    def losses(self, outputs: Outputs) -> list[Tensor]:
        """1 - cosine."""
        return [self.over_sizes(outputs, self._loss)]

    def _loss(self, outputs: Outputs, place: int = 0) -> Tensor:
        y, weight = outputs.of(self._targets), outputs.of(self._known)
        if outputs.mix is not None:
            y, weight = outputs.mix(y), torch.minimum(weight, weight[outputs.mix.partner])
        guess = self.own[place](outputs.embeddings.float())
        return weighted_mean(1 - functional.cosine_similarity(guess, y, dim=1), weight)

    def measure(self, outputs: Outputs, halves: Callable[[], Tensor]) -> tuple[float, ...]:
        """Mean cosine with the targets."""
        return (1 - self._distance(outputs),)

    def concerns(self, clips: Sequence[int]) -> bool:
        """Whether any has a target."""
        return bool(self._known[list(clips)].any())

    def validation_loss(self, outputs: Outputs) -> float | None:
        """1 - cosine."""
        return self.weight * self._distance(outputs)

    @torch.no_grad()
    def _distance(self, outputs: Outputs) -> float:
        device = next(self.own.parameters()).device
        return float(self._loss(Outputs(outputs.clips, outputs.embeddings.to(device), {})))


def standardised(vectors: NDArray[np.float32], fit: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Vectors ``(N, T)`` less the mean and over the standard deviation of the rows in `fit` ``(N,)``."""
    mean, deviation = vectors[fit].mean(0), vectors[fit].std(0)
    result: NDArray[np.float32] = ((vectors - mean) / np.maximum(deviation, 1e-6)).astype(np.float32)
    return result
