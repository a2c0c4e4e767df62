"""The terms of the loss: what embeddings are to be good for.

Every term looks at the same batch: V views of B clips, V B rows in all, view by view (row ``v * B + i`` is clip i). A
clip that says nothing to a term (its label cell is empty, it has no target vector) has weight 0 there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from poolembed.nn.config import HeadConfig
from poolembed.nn.head import EmbeddingHead


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
class Rows:
    """What the network made of a batch.

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

    def first(self, size: int) -> Rows:
        """The same with the first numbers of each embedding, at unit length, in its place; scores are of the whole."""
        return Rows(self.clips, functional.normalize(self.embeddings[:, :size], dim=1), {}, self.mix)


class Term(nn.Module):
    """One term of the loss; call it with `Rows` to get a scalar.

    Targets are plain tensors on the CPU, not buffers: there is one for every clip of the run, and of each step's few
    only those travel to the device.
    """

    def forward(self, rows: Rows) -> Tensor:
        """The loss of a batch."""
        raise NotImplementedError


class Classification(Term):
    """Cross-entropy: softmax for one label a clip, sigmoid for several.

    Args:
        config: of the head whose scores it looks at.
        targets: ``(N, K)`` of 0 and 1, all clips; a row of a clip that is not labelled is all 0.
        labelled: ``(N,)`` 1 where a clip is labelled.
        class_weights: ``(K,)``; multi-label: the weight of a present label against an absent one.
        own: a classifier of the embedding that serves this term alone, in the place of the head.
    """

    def __init__(
        self,
        config: HeadConfig,
        targets: Tensor,
        labelled: Tensor,
        class_weights: Tensor,
        own: EmbeddingHead | None = None,
    ) -> None:
        super().__init__()
        self.column, self.multi_label = config.column, config.multi_label
        self.own = own
        self.probabilities = config.pool == "predictions" and own is None
        self.targets, self.labelled, self.class_weights = targets, labelled, class_weights

    def forward(self, rows: Rows) -> Tensor:
        """The loss of a batch."""
        scores = rows.scores[self.column].float() if self.own is None else self.own(rows.embeddings)
        y, weight = rows.of(self.targets), rows.of(self.labelled)
        class_weights = self.class_weights.to(y.device)
        if rows.mix is not None:
            y, weight = rows.mix(y * weight.unsqueeze(1)), rows.mix(weight)
            y = y / weight.clamp_min(1e-6).unsqueeze(1)
        if self.multi_label:
            present, absent = (
                (_log(scores), _log(1 - scores))
                if self.probabilities
                else (functional.logsigmoid(scores), functional.logsigmoid(-scores))
            )
            losses = -(class_weights * y * present + (1 - y) * absent).mean(1)
        else:
            log_p = _log(scores) if self.probabilities else functional.log_softmax(scores, 1)
            y = class_weights * y
            losses = -(y * log_p).sum(1) / y.sum(1).clamp_min(1e-6)
            weight = weight * y.sum(1)
        return _weighted_mean(losses, weight)


class SameLabel(Term):
    r"""Supervised contrastive loss (Khosla et al. 2020): rows that share a label belong together.

    .. math:: -\frac{1}{|P_i|} \sum_{j \in P_i} \log \frac{e^{s_{ij} / \tau}}{\sum_{k \ne i} e^{s_{ik} / \tau}}

    over the rows i that have any, where :math:`P_i` are the other rows with a label of row i and s are cosines. With
    each clip a label of its own it is the self-supervised NT-Xent loss (Chen et al. 2020).

    Args:
        labels: ``(N, L)`` numbers of the labels of all clips, -1 where a clip has fewer (`label_numbers`), for there
            may be more labels than a matrix of all of them could hold; None: every clip is a label of its own.
        temperature: :math:`\tau`.
    """

    def __init__(self, labels: Tensor | None, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.labels = labels

    def forward(self, rows: Rows) -> Tensor:
        """The loss of a batch."""
        e, clips = rows.embeddings.float(), rows.clips
        itself = torch.eye(len(e), dtype=torch.bool, device=e.device)
        if self.labels is None:
            together = (clips.unsqueeze(0) == clips.unsqueeze(1)).to(e.device)
        else:
            y = rows.of(self.labels)
            same = y[:, None, :, None] == y[None, :, None, :]
            together = (same & (y >= 0)[:, None, :, None]).flatten(2).any(2)
        positive = (together & ~itself).float()
        # A finite floor rather than -inf: 0 * -inf is no number.
        logits = (e @ e.T / self.temperature).masked_fill(itself, -1e9)
        log_p = functional.log_softmax(logits, 1)
        count = positive.sum(1)
        return _weighted_mean(-(positive * log_p).sum(1) / count.clamp_min(1), (count > 0).float())


class Distill(Term):
    """1 - cosine between a linear map of the embedding and a teacher's standardised vector.

    Args:
        embedding_size: D.
        targets: ``(N, T)`` standardised, all clips.
        known: ``(N,)`` 1 where a clip has a target.
    """

    def __init__(self, embedding_size: int, targets: Tensor, known: Tensor) -> None:
        super().__init__()
        self.project = nn.Linear(embedding_size, targets.shape[1])
        self.targets, self.known = targets, known

    def forward(self, rows: Rows) -> Tensor:
        """The loss of a batch."""
        y, weight = rows.of(self.targets), rows.of(self.known)
        if rows.mix is not None:
            y, weight = rows.mix(y), torch.minimum(weight, weight[rows.mix.partner])
        guess = self.project(rows.embeddings.float())
        return _weighted_mean(1 - functional.cosine_similarity(guess, y, dim=1), weight)


class Nested(Term):
    """The mean of a term over the whole embedding and over its first numbers (Matryoshka; Kusupati et al. 2022).

    So that the first numbers of an embedding, brought back to unit length, are a smaller embedding.

    Args:
        whole: looks at the whole embedding.
        parts: by how many of the first numbers, the term that looks at those.
    """

    def __init__(self, whole: Term, parts: Mapping[int, Term]) -> None:
        super().__init__()
        self.whole = whole
        self.sizes = tuple(parts)
        self.parts = nn.ModuleList(parts.values())

    def forward(self, rows: Rows) -> Tensor:
        """The loss of a batch."""
        losses = [part(rows.first(size)) for size, part in zip(self.sizes, self.parts, strict=True)]
        return torch.stack([self.whole(rows), *losses]).mean()


def nested(whole: Term, sizes: Sequence[int], part: Callable[[int], Term]) -> Term:
    """A term, taught to so many first numbers of the embedding too, each with the term that `part` makes for it."""
    return Nested(whole, {size: part(size) for size in sizes}) if sizes else whole


def standardised(vectors: NDArray[np.float32], fit: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Vectors ``(N, T)`` less the mean and over the standard deviation of the rows in `fit` ``(N,)``."""
    mean, deviation = vectors[fit].mean(0), vectors[fit].std(0)
    result: NDArray[np.float32] = ((vectors - mean) / np.maximum(deviation, 1e-6)).astype(np.float32)
    return result


def multi_hot(labels: Sequence[Sequence[str]], names: Sequence[str]) -> NDArray[np.float32]:
    """``(N, K)`` of 0 and 1: which of the names each clip is labelled with."""
    place = {name: number for number, name in enumerate(names)}
    hot = np.zeros((len(labels), len(names)), np.float32)
    for row, mine in enumerate(labels):
        hot[row, [place[label] for label in mine if label in place]] = 1
    return hot


def label_numbers(labels: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """``(N, L)`` numbers of each clip's labels, -1 behind them; L is how many a clip has at most, or 1."""
    number: dict[str, int] = {}
    numbers = np.full((len(labels), max([1, *map(len, labels)])), -1, np.int64)
    for row, mine in enumerate(labels):
        for place, label in enumerate(mine):
            numbers[row, place] = number.setdefault(label, len(number))
    return numbers


def class_weights(hot: NDArray[np.float32], *, multi_label: bool, balance: bool) -> NDArray[np.float32]:
    """Weights ``(K,)`` under which classes count alike, from the training clips' ``(N, K)``.

    One label a clip: N / (K n_k), scikit-learn's "balanced". Several: absent over present, at most 20, so that a rare
    label's few clips do not rule the gradient.
    """
    n = np.maximum(hot.sum(0), 1)
    if not balance:
        return np.ones(hot.shape[1], np.float32)
    weights = np.clip((len(hot) - n) / n, 1, 20) if multi_label else hot.sum() / (hot.shape[1] * n)
    result: NDArray[np.float32] = weights.astype(np.float32)
    return result


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(1e-6).log()


def _weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    # Never an empty selection: the graph stays whole, which DDP needs, and there is no 0 / 0.
    return (losses * weights).sum() / weights.sum().clamp_min(1e-6)
