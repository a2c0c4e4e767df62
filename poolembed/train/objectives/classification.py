"""Classification: tell the labels of a clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from poolembed.errors import TrainingError, UsageError
from poolembed.evaluate import metrics
from poolembed.nn.config import HeadConfig, ModelConfig, PoolingConfig
from poolembed.nn.head import EmbeddingHead, build_head
from poolembed.train.config import ObjectiveConfig, TrainConfig
from poolembed.train.dataset import Dataset
from poolembed.train.objectives.base import Mix, Objective, Outputs, weighted_mean
from poolembed.train.start import pooling_asked


class Classification(Objective):
    """Cross-entropy: softmax for one label a clip, sigmoid for several; measured by accuracy or average precision.

    Where predictions are pooled, the embedding would learn nothing beside the head on frames: it has a classifier of
    its own, and a second loss.

    Attributes:
        labels: the K labels of the training clips, sorted.
        targets: ``(N, K)`` of 0 and 1, every clip of the run.
        known: ``(N,)`` whether a clip has labels, all of them known from training clips.
        class_weights: ``(K,)``, see `class_weights`.
        head: the classifier, which is kept with the model.
    """

    def __init__(self, objective: ObjectiveConfig, config: TrainConfig, data: Dataset, model: ModelConfig) -> None:
        super().__init__(objective, config, data, model)
        column, train = objective.column, data.division.train
        self.name = "classification" if column == "label" else f"classification of {column}"
        self.multi_label = data.labelled.multi_label[column]
        self.metrics = ("map", "macro_f1") if self.multi_label else ("macro_f1", "accuracy")
        labels = [clip.labels[column] for clip in data.labelled.clips]
        self.labels = sorted({label for index in train for label in labels[index]})
        self.targets = multi_hot(labels, self.labels)
        self.known = np.array([bool(mine) and set(self.labels).issuperset(mine) for mine in labels])
        self.pooled = config.pool == "predictions"
        try:
            head = HeadConfig(
                column=column,
                labels=tuple(self.labels),
                multi_label=self.multi_label,
                pool=config.pool,
                pooling=pooling_asked(config, PoolingConfig()) if self.pooled else None,
            )
        except ValueError as error:  # a pooling that is none of probabilities
            raise UsageError(str(error)) from error
        self.head = build_head(head, model)
        sizes = ((model.embedding_size,) if self.pooled else ()) + self.nested
        self.own = nn.ModuleList(EmbeddingHead(head, size) for size in sizes)
        seen = self.targets[[index for index in train if self.known[index]]]
        self.class_weights = class_weights(seen, multi_label=self.multi_label, balance=config.balance)
        self._weights = torch.from_numpy(self.class_weights)
        self._targets, self._known = torch.from_numpy(self.targets), torch.from_numpy(self.known).float()

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of its losses."""
        return (self.name, f"{self.name}, embedding") if self.pooled else (self.name,)

    def losses(self, outputs: Outputs) -> list[Tensor]:
        """Cross-entropy; where predictions are pooled also that of the embedding."""
        if not self.pooled:
            return [self.over_sizes(outputs, lambda part, place: self._loss(part, place - 1 if place else None))]
        return [self._loss(outputs), self.over_sizes(outputs, self._loss)]

    def _loss(self, outputs: Outputs, own: int | None = None) -> Tensor:
        """Of the head's scores, or of the embedding by one of the classifiers of its own."""
        scores = outputs.scores[self.head.config.column].float() if own is None else self.own[own](outputs.embeddings)
        return cross_entropy(
            scores,
            outputs.of(self._targets),
            outputs.of(self._known),
            self._weights.to(scores.device),
            multi_label=self.multi_label,
            probabilities=self.pooled and own is None,
            mix=outputs.mix,
        )

    def measure(self, outputs: Outputs, halves: Callable[[], Tensor]) -> tuple[float, ...]:
        """Macro-F1, and accuracy or mean average precision, of those with a label."""
        clips = outputs.clips.tolist()
        where = self.labelled(clips)
        true, scores = self.true([clips[place] for place in where]), self.probabilities(outputs)[where]
        if not np.isfinite(scores).all():
            raise TrainingError("the model's scores are no numbers any more", hint="lower --lr, or --precision fp32")
        f1 = metrics.macro_f1(true, scores)
        if self.multi_label:
            return metrics.mean_average_precision(true, scores), f1
        return f1, metrics.accuracy(true, scores)

    def concerns(self, clips: Sequence[int]) -> bool:
        """Whether any has a label."""
        return bool(self.known[list(clips)].any())

    @torch.no_grad()
    def validation_loss(self, outputs: Outputs) -> float | None:
        """Cross-entropy."""
        return self.weight * float(self._loss(outputs))

    def labelled(self, clips: Sequence[int]) -> list[int]:
        """Places, among the clips, of those with a label."""
        return [place for place, clip in enumerate(clips) if self.known[clip]]

    def true(self, clips: Sequence[int]) -> metrics.Labels:
        """Labels of clips as `poolembed.evaluate.metrics` wants them."""
        return self.targets[clips] > 0 if self.multi_label else self.targets[clips].argmax(1).astype(np.int64)

    def probabilities(self, outputs: Outputs) -> NDArray[np.float64]:
        """Of each label, ``(R, K)``."""
        return probabilities(outputs, self.head.config)


def probabilities(outputs: Outputs, head: HeadConfig) -> NDArray[np.float64]:
    """What a head's scores say: the probability of each label, ``(R, K)``."""
    scores = outputs.scores[head.column].double()
    if head.pool == "features":
        scores = scores.sigmoid() if head.multi_label else scores.softmax(1)
    return scores.numpy()


def cross_entropy(
    scores: Tensor,
    targets: Tensor,
    weight: Tensor,
    class_weights: Tensor,
    *,
    multi_label: bool,
    probabilities: bool = False,
    mix: Mix | None = None,
) -> Tensor:
    """Weighted cross-entropy, softmax for one label a clip and sigmoid for several.

    Args:
        scores: ``(R, K)`` logits or probabilities.
        targets: ``(R, K)`` of 0 and 1; a row of a clip that is not labelled is all 0.
        weight: ``(R,)`` 1 where a clip is labelled.
        class_weights: ``(K,)``; multi-label: the weight of a present label against an absent one.
        multi_label: whether clips may have several labels.
        probabilities: whether the scores are some.
        mix: how rows were mixed.
    """
    y = targets
    if mix is not None:
        y, weight = mix(y * weight.unsqueeze(1)), mix(weight)
        y = y / weight.clamp_min(1e-6).unsqueeze(1)
    if multi_label:
        present, absent = (
            (_log(scores), _log(1 - scores))
            if probabilities
            else (functional.logsigmoid(scores), functional.logsigmoid(-scores))
        )
        losses = -(class_weights * y * present + (1 - y) * absent).mean(1)
    else:
        log_p = _log(scores) if probabilities else functional.log_softmax(scores, 1)
        y = class_weights * y
        losses = -(y * log_p).sum(1) / y.sum(1).clamp_min(1e-6)
        weight = weight * y.sum(1)
    return weighted_mean(losses, weight)


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(1e-6).log()


def multi_hot(labels: Sequence[Sequence[str]], names: Sequence[str]) -> NDArray[np.float32]:
    """``(N, K)`` of 0 and 1: which of the names each clip is labelled with."""
    place = {name: number for number, name in enumerate(names)}
    hot = np.zeros((len(labels), len(names)), np.float32)
    for row, mine in enumerate(labels):
        hot[row, [place[label] for label in mine if label in place]] = 1
    return hot


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
