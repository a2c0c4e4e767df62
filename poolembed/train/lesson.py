"""What a run teaches: all its aims, what they make of a batch, and which of their metrics chooses."""

from __future__ import annotations

from poolembed.errors import UsageError
from poolembed.labels import Division, Labelled
from poolembed.nn.config import ModelConfig
from poolembed.train.aims import Aim, Classify, Column, Gather, Imitate, Recognise
from poolembed.train.config import TrainConfig
from poolembed.train.feeds import Reader
from poolembed.train.learner import Student
from poolembed.train.objectives import Term

LABELLED = ("classification", "supcon")
"""Kinds of objectives that read a label column."""


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
        if config.nested and max(config.nested) >= model.embedding_size:
            raise UsageError(
                f"nested names the first {max(config.nested)} numbers of an embedding that has {model.embedding_size}",
                hint="name fewer",
            )
        self._pairs = [o for o in config.objectives if o.kind in ("supcon", "contrastive")]
        if self._pairs and config.augment.mixup:
            raise UsageError("mixup blurs which clips belong together", hint="leave it off with supcon and contrastive")
        classified = dict.fromkeys(o.column for o in config.objectives if o.kind == "classification")
        self.columns = {name: Column.of(labelled, division.train, name) for name in classified}
        self.aims: list[Aim] = []
        for objective in config.objectives:
            match objective.kind:
                case "classification":
                    self.aims.append(Classify(objective, config, self.columns[objective.column], division.train, model))
                case "supcon":
                    self.aims.append(Gather(objective, config, labelled))
                case "contrastive":
                    self.aims.append(Recognise(objective, config))
                case "distill":
                    aim = Imitate(objective, config, labelled, division.train, model.embedding_size)
                    self.aims.append(aim)
        names = [aim.name for aim in self.aims]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"the same objective twice: {', '.join(twice)}", hint="give it once, with a weight")
        self._measured = [aim for aim in self.aims if aim.concerns(division.valid)]
        if self.aims[0] not in self._measured:
            raise UsageError(
                f"nothing to choose the best epoch by: no clip held out has what {self.aims[0].name} is measured on",
                hint="hold out such clips in the column split, or put another objective first",
            )

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
        """Loss, where the clips by themselves have one, and metrics of the clips held out, if they concern any."""
        rows = reader.rows(student, self._valid)
        losses = [loss for aim in self._measured if (loss := aim.loss(rows)) is not None]
        scores = {"loss": sum(losses)} if losses else {}
        for aim in self._measured:
            measured = aim.measure(student, self._valid, rows, reader)
            scores |= {self._called(aim, name): value for name, value in zip(aim.metrics, measured, strict=True)}
        return scores

    def _called(self, aim: Aim, metric: str) -> str:
        alike = [other for other in self.aims if metric in other.metrics]
        return metric if aim is alike[0] else f"{metric} of {aim.name}"


def columns_of(config: TrainConfig) -> list[str]:
    """The label columns that the objectives read."""
    named = [o.column for o in config.objectives if o.kind in LABELLED]
    return list(dict.fromkeys(named))
