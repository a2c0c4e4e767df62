"""One objective of a run as an aim: its term of the loss, and the metrics that tell how near it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from poolembed.errors import TrainingError, UsageError
from poolembed.evaluate import metrics
from poolembed.evaluate.retrieval import retrieve
from poolembed.labels import Labelled
from poolembed.nn.config import HeadConfig, ModelConfig, PoolingConfig
from poolembed.nn.head import EmbeddingHead, build_head
from poolembed.train.config import ObjectiveConfig, TrainConfig
from poolembed.train.feeds import Reader
from poolembed.train.learner import Student
from poolembed.train.objectives import (
    Classification,
    Distill,
    Rows,
    SameLabel,
    Term,
    class_weights,
    label_numbers,
    multi_hot,
    nested,
    standardised,
)
from poolembed.train.start import pooling_asked
from poolembed.vectors import match, read_vectors


@dataclass(frozen=True)
class Column:
    """A label column as a run sees it.

    Attributes:
        names: the K labels of the training clips, sorted.
        multi_label: whether clips may have several.
        hot: ``(N, K)`` of 0 and 1, every clip of the run.
        labelled: ``(N,)`` whether a clip has labels, all of them known from training clips.
    """

    names: list[str]
    multi_label: bool
    hot: NDArray[np.float32]
    labelled: NDArray[np.bool_]

    @classmethod
    def of(cls, labelled: Labelled, train: Sequence[int], name: str) -> Column:
        """The column of a table."""
        labels = [clip.labels[name] for clip in labelled.clips]
        names = sorted({label for index in train for label in labels[index]})
        known = set(names)
        usable = np.array([bool(mine) and known.issuperset(mine) for mine in labels])
        return cls(names, labelled.multi_label[name], multi_hot(labels, names), usable)

    def true(self, clips: Sequence[int]) -> metrics.Labels:
        """Labels of clips as `poolembed.evaluate.metrics` wants them."""
        return self.hot[clips] > 0 if self.multi_label else self.hot[clips].argmax(1).astype(np.int64)


class Aim(ABC):
    """One objective.

    Attributes:
        name: unlike any other's of the run.
        terms: of the loss, by name.
        weight: of each.
        metrics: names of what it is measured by; higher is better, and the first one leads.
    """

    name: str
    terms: dict[str, Term]
    weight: float
    metrics: tuple[str, ...]

    @abstractmethod
    def measure(self, student: Student, valid: Sequence[int], rows: Rows, reader: Reader) -> tuple[float, ...]:
        """The metrics of the clips held out, whose rows these are."""

    def concerns(self, clips: Sequence[int]) -> bool:
        """Whether there is anything to measure in these clips."""
        return True

    def loss(self, rows: Rows) -> float | None:
        """The loss of rows; None where that says nothing without a batch that is made for it."""
        return None


class Classify(Aim):
    """Tell the label."""

    def __init__(
        self, objective: ObjectiveConfig, config: TrainConfig, column: Column, train: Sequence[int], model: ModelConfig
    ) -> None:
        self.weight, self.column = objective.weight, column
        pooled = config.pool == "predictions"
        try:
            head = HeadConfig(
                column=objective.column,
                labels=tuple(column.names),
                multi_label=column.multi_label,
                pool=config.pool,
                pooling=pooling_asked(config, PoolingConfig()) if pooled else None,
            )
        except ValueError as error:  # a pooling that is none of probabilities
            raise UsageError(str(error)) from error
        self.head = build_head(head, model)
        self.name = "classification" if objective.column == "label" else f"classification of {objective.column}"
        hot, labelled = torch.from_numpy(column.hot), torch.from_numpy(column.labelled).float()
        seen = column.hot[[index for index in train if column.labelled[index]]]
        weights = torch.from_numpy(class_weights(seen, multi_label=column.multi_label, balance=config.balance))
        self._term = Classification(head, hot, labelled, weights)

        def alone(size: int) -> Classification:
            """The term of the embedding's first numbers, with a classifier of its own."""
            return Classification(head, hot, labelled, weights, EmbeddingHead(head, size))

        if pooled:  # beside a head on frames the embedding would learn nothing
            own = nested(alone(model.embedding_size), config.nested, alone)
            self.terms = {self.name: self._term, f"{self.name}, embedding": own}
        else:
            self.terms = {self.name: nested(self._term, config.nested, alone)}
        self.metrics = ("map", "macro_f1") if column.multi_label else ("macro_f1", "accuracy")

    def measure(self, student: Student, valid: Sequence[int], rows: Rows, reader: Reader) -> tuple[float, ...]:
        """Macro-F1, and accuracy or mean average precision."""
        where = self.labelled(valid)
        true, scores = self.column.true([valid[place] for place in where]), self.probabilities(rows)[where]
        if not np.isfinite(scores).all():
            raise TrainingError("the model's scores are no numbers any more", hint="lower --lr, or --precision fp32")
        f1 = metrics.macro_f1(true, scores)
        if self.column.multi_label:
            return metrics.mean_average_precision(true, scores), f1
        return f1, metrics.accuracy(true, scores)

    def concerns(self, clips: Sequence[int]) -> bool:
        """Whether any has a label."""
        return bool(self.labelled(clips))

    def labelled(self, clips: Sequence[int]) -> list[int]:
        """Places, among the clips, of those with a label."""
        return [place for place, clip in enumerate(clips) if self.column.labelled[clip]]

    def probabilities(self, rows: Rows) -> NDArray[np.float64]:
        """Of each label, ``(N, K)``."""
        scores = rows.scores[self.head.config.column].double()
        if self.head.config.pool == "features":
            scores = scores.sigmoid() if self.column.multi_label else scores.softmax(1)
        return scores.numpy()

    @torch.no_grad()
    def loss(self, rows: Rows) -> float | None:
        """Cross-entropy."""
        return self.weight * float(self._term(rows))


class Gather(Aim):
    """Bring clips of one label together."""

    def __init__(self, objective: ObjectiveConfig, config: TrainConfig, labelled: Labelled) -> None:
        self.weight = objective.weight
        self._labels = [clip.labels[objective.column] for clip in labelled.clips]
        self.name = "supcon" if objective.column == "label" else f"supcon of {objective.column}"
        term = SameLabel(torch.from_numpy(label_numbers(self._labels)), objective.temperature)
        self.terms = {self.name: nested(term, config.nested, lambda _: term)}
        self.metrics = ("recall_at_1",)

    def measure(self, student: Student, valid: Sequence[int], rows: Rows, reader: Reader) -> tuple[float, ...]:
        """How often the nearest clip shares a label."""
        where = [place for place, clip in enumerate(valid) if self._labels[clip]]
        mine = [self._labels[valid[place]] for place in where]
        true: metrics.Labels = label_numbers(mine)[:, 0]
        if any(len(labels) > 1 for labels in mine):
            true = multi_hot(mine, sorted({label for labels in mine for label in labels})) > 0
        found = retrieve(rows.embeddings.numpy()[where], true).first if where else np.zeros(0)
        return (float(np.nanmean(found)) if np.isfinite(found).any() else 0.0,)


class Recognise(Aim):
    """Bring stretches of one clip together; measured by how often the nearest to one half is the other."""

    def __init__(self, objective: ObjectiveConfig, config: TrainConfig) -> None:
        self.weight, self.name = objective.weight, "contrastive"
        term = SameLabel(None, objective.temperature)
        self.terms = {self.name: nested(term, config.nested, lambda _: term)}
        self.metrics = ("recall_at_1",)

    def measure(self, student: Student, valid: Sequence[int], rows: Rows, reader: Reader) -> tuple[float, ...]:
        """How often the nearest to one half is the other."""
        halves = torch.stack([reader.halves(student, clip) for clip in valid], 1).flatten(0, 1)
        return (float(retrieve(halves.numpy(), np.tile(np.arange(len(valid)), 2)).first.mean()),)


class Imitate(Aim):
    """Predict a teacher's vectors."""

    def __init__(
        self,
        objective: ObjectiveConfig,
        config: TrainConfig,
        labelled: Labelled,
        train: Sequence[int],
        embedding_size: int,
    ) -> None:
        assert objective.targets is not None
        self.weight = objective.weight
        vectors = read_vectors(objective.targets)
        rows = match(vectors, [clip.key for clip in labelled.clips])
        self._known = known = np.array([row is not None for row in rows])
        fit = known & np.isin(np.arange(len(rows)), train)
        if not fit.any():
            raise UsageError(
                f"no training clip has a target vector in {objective.targets}",
                hint=f"it has paths like {vectors.keys[0]!r}, and the clips {labelled.clips[0].key!r}",
            )
        targets = torch.from_numpy(standardised(vectors.matrix[[row or 0 for row in rows]], fit))
        there = torch.from_numpy(known).float()
        self._term = Distill(embedding_size, targets, there)
        self.name = f"distill of {Path(objective.targets).name}"
        self.terms = {self.name: nested(self._term, config.nested, lambda size: Distill(size, targets, there))}
        self.metrics = ("cosine",)

    def measure(self, student: Student, valid: Sequence[int], rows: Rows, reader: Reader) -> tuple[float, ...]:
        """Mean cosine with the targets."""
        return (1 - self._loss(rows),)

    def concerns(self, clips: Sequence[int]) -> bool:
        """Whether any has a target."""
        return bool(self._known[list(clips)].any())

    def loss(self, rows: Rows) -> float | None:
        """1 - cosine."""
        return self.weight * self._loss(rows)

    @torch.no_grad()
    def _loss(self, rows: Rows) -> float:
        there = next(self._term.parameters()).device
        rows = Rows(rows.clips, rows.embeddings.to(there), {})
        return float(self._term(rows))
