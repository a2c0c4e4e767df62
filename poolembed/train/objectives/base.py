"""What every objective has, and what it is given of a batch.

A batch is V views of B clips, V B rows in all, view by view (row ``v * B + i`` is clip i). A clip that says nothing to
an objective (its label cell is empty, it has no target vector) has weight 0 in its loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from poolembed.nn.config import ModelConfig
from poolembed.train.config import ObjectiveConfig, TrainConfig
from poolembed.train.dataset import Dataset


@dataclass
class Mix:
    """How clips were mixed: row i is ``share[i]`` of itself and the rest of row ``partner[i]``."""

    partner: Tensor
    share: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Mix what belongs to the rows, ``(R, ...)``, as the rows were mixed."""
        share = self.share.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))
        return share * x + (1 - share) * x[self.partner]


@dataclass
class Outputs:
    """What the network gives for a batch.

    Attributes:
        clips: ``(R,)`` numbers of the clips, in the order of the run's table; on the CPU, as the targets are.
        embeddings: ``(R, D)``, unit length.
        scores: per label column, logits of an embedding head, or probabilities of a frame head, ``(R, K)``.
        mix: how rows were mixed, if they were.
    """

    clips: Tensor
    embeddings: Tensor
    scores: dict[str, Tensor]
    mix: Mix | None = None

    def of(self, table: Tensor) -> Tensor:
        """The rows' share of a table with a row for every clip of the run."""
        return table[self.clips].to(self.embeddings.device)

    def first(self, size: int) -> Outputs:
        """The same with the first numbers of each embedding, at unit length, in its place; scores are of the whole."""
        return Outputs(self.clips, functional.normalize(self.embeddings[:, :size], dim=1), {}, self.mix)


class Objective(ABC):
    """One objective of a run.

    Targets are plain tensors on the CPU: there is one for every clip of the run, and of each step's few only those
    travel to the device.

    Args:
        objective: its part of the configuration.
        config: of the run.
        data: its clips.
        model: architecture.

    Raises:
        UsageError: it cannot be had with such options, or such clips.

    Attributes:
        name: unlike any other's of the run.
        weight: what its losses are multiplied by.
        metrics: names of what it is measured by; higher is better, and the first one leads.
        own: modules that learn with the model and are not kept.
        views: crops of each clip that a batch needs.
        nested: how many first numbers of an embedding are to be embeddings too (Matryoshka; Kusupati et al. 2022).
    """

    name: str
    metrics: tuple[str, ...]
    views = 1

    def __init__(self, objective: ObjectiveConfig, config: TrainConfig, data: Dataset, model: ModelConfig) -> None:
        self.weight = objective.weight
        self.nested = tuple(dict.fromkeys(config.nested))
        self.own = nn.ModuleList()

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of its losses."""
        return (self.name,)

    @abstractmethod
    def losses(self, outputs: Outputs) -> list[Tensor]:
        """Its losses of a batch, each a scalar, in the order of `parts`."""

    @abstractmethod
    def measure(self, outputs: Outputs, halves: Callable[[], Tensor]) -> tuple[float, ...]:
        """Its metrics, in the order of `metrics`.

        Args:
            outputs: of whole clips of the validation split, on the CPU.
            halves: gives embeddings ``(2, N, D)`` of the first and the second half of each of these clips.
        """

    def concerns(self, clips: Sequence[int]) -> bool:
        """Whether there is anything to measure in these clips."""
        return True

    def validation_loss(self, outputs: Outputs) -> float | None:
        """The weighted loss of whole clips; None where it says nothing without a batch that is made for it."""
        return None

    def over_sizes(self, outputs: Outputs, loss: Callable[[Outputs, int], Tensor]) -> Tensor:
        """The mean of a loss over the whole embedding and over its first numbers.

        Args:
            outputs: of a batch.
            loss: of a batch; it is also given 0 for the whole embedding, 1 for the first of `nested`, and so on.
        """
        parts = [loss(outputs.first(size), place) for place, size in enumerate(self.nested, start=1)]
        whole = loss(outputs, 0)
        return torch.stack([whole, *parts]).mean() if parts else whole


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """The mean of ``(R,)`` losses by ``(R,)`` weights; 0 where all weights are."""
    # Never an empty selection: the graph stays whole, which DDP needs, and there is no 0 / 0.
    return (losses * weights).sum() / weights.sum().clamp_min(1e-6)
