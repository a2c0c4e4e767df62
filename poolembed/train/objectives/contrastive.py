"""Contrastive learning: bring together the clips of one label, or two crops of one clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from poolembed.evaluate import metrics
from poolembed.evaluate.retrieval import retrieve
from poolembed.nn.config import ModelConfig
from poolembed.train.config import ObjectiveConfig, TrainConfig
from poolembed.train.dataset import Dataset
from poolembed.train.objectives.base import Objective, Outputs, weighted_mean
from poolembed.train.objectives.classification import multi_hot


class SupervisedContrastive(Objective):
    """Supervised contrastive loss: clips that share a label belong together; measured by the nearest clip."""

    metrics = ("recall_at_1",)
    views = 2

    def __init__(self, objective: ObjectiveConfig, config: TrainConfig, data: Dataset, model: ModelConfig) -> None:
        super().__init__(objective, config, data, model)
        self.name = "supcon" if objective.column == "label" else f"supcon of {objective.column}"
        self._temperature = objective.temperature
        self._labels = [clip.labels[objective.column] for clip in data.labelled.clips]
        # Numbers rather than a row of 0 and 1: there may be more labels than a matrix of all of them could hold.
        self._numbers = torch.from_numpy(label_numbers(self._labels))

    def losses(self, outputs: Outputs) -> list[Tensor]:
        """The contrastive loss, where rows with a label in common are positives."""

        def loss(part: Outputs, _: int) -> Tensor:
            return contrastive_loss(part.embeddings, share_a_label(part.of(self._numbers)), self._temperature)

        return [self.over_sizes(outputs, loss)]

    def measure(self, outputs: Outputs, halves: Callable[[], Tensor]) -> tuple[float, ...]:
        """How often the nearest clip shares a label."""
        labels = [self._labels[clip] for clip in outputs.clips.tolist()]
        where = [place for place, mine in enumerate(labels) if mine]
        mine = [labels[place] for place in where]
        true: metrics.Labels = label_numbers(mine)[:, 0]
        if any(len(labels) > 1 for labels in mine):
            true = multi_hot(mine, sorted({label for labels in mine for label in labels})) > 0
        found = retrieve(outputs.embeddings.numpy()[where], true).first if where else np.zeros(0)
        return (float(np.nanmean(found)) if np.isfinite(found).any() else 0.0,)


class Contrastive(Objective):
    """Self-supervised contrastive loss (NT-Xent, Chen et al. 2020): two crops of one clip belong together.

    It is measured by how often the nearest to one half of a clip is the other half.
    """

    name = "contrastive"
    metrics = ("recall_at_1",)
    views = 2

    def __init__(self, objective: ObjectiveConfig, config: TrainConfig, data: Dataset, model: ModelConfig) -> None:
        super().__init__(objective, config, data, model)
        self._temperature = objective.temperature

    def losses(self, outputs: Outputs) -> list[Tensor]:
        """The contrastive loss, where rows of the same clip are positives."""

        def loss(part: Outputs, _: int) -> Tensor:
            same = (part.clips.unsqueeze(0) == part.clips.unsqueeze(1)).to(part.embeddings.device)
            return contrastive_loss(part.embeddings, same, self._temperature)

        return [self.over_sizes(outputs, loss)]

    def measure(self, outputs: Outputs, halves: Callable[[], Tensor]) -> tuple[float, ...]:
        """How often the nearest to one half is the other."""
        both = halves().flatten(0, 1)
        return (float(retrieve(both.numpy(), np.tile(np.arange(len(outputs.clips)), 2)).first.mean()),)


def contrastive_loss(embeddings: Tensor, together: Tensor, temperature: float) -> Tensor:
    r"""Supervised contrastive loss (Khosla et al. 2020).

    .. math:: -\frac{1}{|P_i|} \sum_{j \in P_i} \log \frac{e^{s_{ij} / \tau}}{\sum_{k \ne i} e^{s_{ik} / \tau}}

    over the rows i that have any positives :math:`P_i`, where s are cosines.

    Args:
        embeddings: ``(R, D)``, unit length.
        together: ``(R, R)`` boolean, whether two rows belong together; the diagonal does not matter.
        temperature: :math:`\tau`.
    """
    e = embeddings.float()
    itself = torch.eye(len(e), dtype=torch.bool, device=e.device)
    positive = (together & ~itself).float()
    # A finite floor rather than -inf: 0 * -inf is no number.
    logits = (e @ e.T / temperature).masked_fill(itself, -1e9)
    log_p = functional.log_softmax(logits, 1)
    count = positive.sum(1)
    return weighted_mean(-(positive * log_p).sum(1) / count.clamp_min(1), (count > 0).float())


def share_a_label(numbers: Tensor) -> Tensor:
    """Whether two rows have a label in common, ``(R, R)``, from the ``(R, L)`` numbers of `label_numbers`."""
    same = numbers[:, None, :, None] == numbers[None, :, None, :]
    return (same & (numbers >= 0)[:, None, :, None]).flatten(2).any(2)


def label_numbers(labels: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """``(N, L)`` numbers of each clip's labels, -1 behind them; L is how many a clip has at most, or 1."""
    number: dict[str, int] = {}
    numbers = np.full((len(labels), max([1, *map(len, labels)])), -1, np.int64)
    for row, mine in enumerate(labels):
        for place, label in enumerate(mine):
            numbers[row, place] = number.setdefault(label, len(number))
    return numbers
