"""What a run teaches: each objective as an aim, with its terms of the loss and the metrics that tell how near it is."""

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
from poolembed.labels import Division, Labelled
from poolembed.nn.config import ModelConfig, PoolingConfig
from poolembed.nn.head import EmbeddingHead, HeadConfig, build_head
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
    multi_hot,
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
        self.terms = {self.name: self._term}
        if pooled:  # beside a head on frames the embedding would learn nothing
            own = EmbeddingHead(head, model.embedding_size)
            self.terms[f"{self.name}, embedding"] = Classification(head, hot, labelled, weights, own)
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

    def __init__(self, objective: ObjectiveConfig, column: Column) -> None:
        self.weight, self._column = objective.weight, column
        self.name = "supcon" if objective.column == "label" else f"supcon of {objective.column}"
        self.terms = {self.name: SameLabel(torch.from_numpy(column.hot), objective.temperature)}
        self.metrics = ("recall_at_1",)

    def measure(self, student: Student, valid: Sequence[int], rows: Rows, reader: Reader) -> tuple[float, ...]:
        """How often the nearest clip shares a label."""
        where = [place for place, clip in enumerate(valid) if self._column.labelled[clip]]
        true = self._column.true([valid[place] for place in where])
        found = retrieve(rows.embeddings.numpy()[where], true).first if where else np.zeros(0)
        return (float(np.nanmean(found)) if np.isfinite(found).any() else 0.0,)


class Recognise(Aim):
    """Bring stretches of one clip together; measured by how often the nearest to one half is the other."""

    def __init__(self, objective: ObjectiveConfig) -> None:
        self.weight, self.name = objective.weight, "contrastive"
        self.terms = {self.name: SameLabel(None, objective.temperature)}
        self.metrics = ("recall_at_1",)

    def measure(self, student: Student, valid: Sequence[int], rows: Rows, reader: Reader) -> tuple[float, ...]:
        """How often the nearest to one half is the other."""
        halves = torch.stack([reader.halves(student, clip) for clip in valid], 1).flatten(0, 1)
        return (float(retrieve(halves.numpy(), np.tile(np.arange(len(valid)), 2)).first.mean()),)


class Imitate(Aim):
    """Predict a teacher's vectors."""

    def __init__(
        self, objective: ObjectiveConfig, labelled: Labelled, train: Sequence[int], embedding_size: int
    ) -> None:
        assert objective.targets is not None
        self.weight = objective.weight
        vectors = read_vectors(objective.targets)
        rows = match(vectors, [clip.key for clip in labelled.clips])
        known = np.array([row is not None for row in rows])
        fit = known & np.isin(np.arange(len(rows)), train)
        if not fit.any():
            raise UsageError(
                f"no training clip has a target vector in {objective.targets}",
                hint=f"it has paths like {vectors.keys[0]!r}, and the clips {labelled.clips[0].key!r}",
            )
        targets = standardised(vectors.matrix[[row or 0 for row in rows]], fit)
        self._term = Distill(embedding_size, torch.from_numpy(targets), torch.from_numpy(known).float())
        self.name = f"distill of {Path(objective.targets).name}"
        self.terms = {self.name: self._term}
        self.metrics = ("cosine",)

    def measure(self, student: Student, valid: Sequence[int], rows: Rows, reader: Reader) -> tuple[float, ...]:
        """Mean cosine with the targets."""
        return (1 - self._loss(rows),)

    def loss(self, rows: Rows) -> float | None:
        """1 - cosine."""
        return self.weight * self._loss(rows)

    @torch.no_grad()
    def _loss(self, rows: Rows) -> float:
        there = next(self._term.parameters()).device
        rows = Rows(rows.clips, rows.embeddings.to(there), {})
        return float(self._term(rows))


class Lesson:
    """All aims of a run.

    Args:
        config: of the run.
        model: of the student.
        labelled: the table.
        division: of its clips.

    Raises:
        UsageError: objectives that do not go together, or with the data.
    """

    def __init__(self, config: TrainConfig, model: ModelConfig, labelled: Labelled, division: Division) -> None:
        self._valid = division.valid
        self._pairs = [o for o in config.objectives if o.kind in ("supcon", "contrastive")]
        if self._pairs and config.augment.mixup:
            raise UsageError("mixup blurs which clips belong together", hint="leave it off with supcon and contrastive")
        self.columns = {name: Column.of(labelled, division.train, name) for name in labelled.columns}
        self.aims: list[Aim] = []
        for objective in config.objectives:
            match objective.kind:
                case "classification":
                    self.aims.append(Classify(objective, config, self.columns[objective.column], division.train, model))
                case "supcon":
                    # Labels of clips held out need not be among those trained on: tracks that were never heard.
                    everyone = Column.of(labelled, range(len(labelled.clips)), objective.column)
                    self.aims.append(Gather(objective, everyone))
                case "contrastive":
                    self.aims.append(Recognise(objective))
                case "distill":
                    self.aims.append(Imitate(objective, labelled, division.train, model.embedding_size))
        names = [aim.name for aim in self.aims]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"the same objective twice: {', '.join(twice)}", hint="give it once, with a weight")

    @property
    def terms(self) -> dict[str, tuple[Term, float]]:
        """Terms of the loss and their weights."""
        return {name: (term, aim.weight) for aim in self.aims for name, term in aim.terms.items()}

    @property
    def classified(self) -> list[Classify]:
        """The aims that have a head."""
        return [aim for aim in self.aims if isinstance(aim, Classify)]

    @property
    def views(self) -> int:
        """Crops of each clip of a batch, or of it and its partners."""
        return 2 if self._pairs else 1

    @property
    def partner_column(self) -> str | None:
        """The column of whose labels the second view shares one with the first; None: it is of the same clip."""
        kinds = {objective.kind for objective in self._pairs}
        return self._pairs[0].column if kinds == {"supcon"} else None

    @property
    def metric(self) -> str:
        """What chooses the best epoch: the first metric of the first objective."""
        return self._called(self.aims[0], self.aims[0].metrics[0])

    def validate(self, student: Student, reader: Reader) -> dict[str, float]:
        """Loss, where the clips by themselves have one, and metrics of the clips held out."""
        rows = reader.rows(student, self._valid)
        losses = [loss for aim in self.aims if (loss := aim.loss(rows)) is not None]
        scores = {"loss": sum(losses)} if losses else {}
        for aim in self.aims:
            measured = aim.measure(student, self._valid, rows, reader)
            scores |= {self._called(aim, name): value for name, value in zip(aim.metrics, measured, strict=True)}
        return scores

    def _called(self, aim: Aim, metric: str) -> str:
        alike = [other for other in self.aims if metric in other.metrics]
        return metric if aim is alike[0] else f"{metric} of {aim.name}"


def columns_of(config: TrainConfig) -> list[str]:
    """The label columns that the objectives read."""
    named = [o.column for o in config.objectives if o.kind in ("classification", "supcon")]
    return list(dict.fromkeys(named))
