"""All objectives of a run, and which of their metrics chooses the best epoch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from poolembed.errors import UsageError
from poolembed.nn.config import ModelConfig
from poolembed.train.config import TrainConfig
from poolembed.train.dataset import Dataset
from poolembed.train.objectives.base import Objective, Outputs
from poolembed.train.objectives.classification import Classification
from poolembed.train.objectives.contrastive import Contrastive, SupervisedContrastive
from poolembed.train.objectives.distillation import Distillation

KINDS: dict[str, type[Objective]] = {
    "classification": Classification,
    "supcon": SupervisedContrastive,
    "contrastive": Contrastive,
    "distill": Distillation,
}


class Objectives:
    """All objectives of a run.

    Args:
        config: of the run.
        data: its clips.
        model: architecture.

    Raises:
        UsageError: objectives that do not go together, or with the data.
    """

    def __init__(self, config: TrainConfig, data: Dataset, model: ModelConfig) -> None:
        if config.nested and max(config.nested) >= model.embedding_size:
            raise UsageError(
                f"nested names the first {max(config.nested)} numbers of an embedding that has {model.embedding_size}",
                hint="name fewer",
            )
        self._pairs = [o for o in config.objectives if o.kind in ("supcon", "contrastive")]
        if self._pairs and config.augment.mixup:
            raise UsageError("mixup blurs which clips belong together", hint="leave it off with supcon and contrastive")

        self.all = [KINDS[objective.kind](objective, config, data, model) for objective in config.objectives]
        names = [objective.name for objective in self.all]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"the same objective twice: {', '.join(twice)}", hint="give it once, with a weight")
        self._measured = [objective for objective in self.all if objective.concerns(data.division.valid)]
        if self.all[0] not in self._measured:
            raise UsageError(
                f"nothing to choose the best epoch by: no clip held out has what {names[0]} is measured on",
                hint="hold out such clips in the column split, or put another objective first",
            )

    @property
    def parts(self) -> list[str]:
        """Names of all losses."""
        return [part for objective in self.all for part in objective.parts]

    @property
    def classified(self) -> list[Classification]:
        """The objectives that have a head."""
        return [objective for objective in self.all if isinstance(objective, Classification)]

    @property
    def partner_column(self) -> str | None:
        """The column of whose labels the second view shares one with the first; None: it is of the same clip."""
        kinds = {objective.kind for objective in self._pairs}
        return self._pairs[0].column if kinds == {"supcon"} else None

    @property
    def metric(self) -> str:
        """What chooses the best epoch: the first metric of the first objective."""
        return self.called(self.all[0], self.all[0].metrics[0])

    def validate(self, outputs: Outputs, halves: Callable[[], Tensor]) -> dict[str, float]:
        """Loss, where the clips by themselves have one, and the metrics of each objective that the clips concern.

        Args:
            outputs: of the whole clips of the validation split, on the CPU.
            halves: gives embeddings ``(2, N, D)`` of the two halves of each.
        """
        losses = [loss for each in self._measured if (loss := each.validation_loss(outputs)) is not None]
        scores = {"loss": sum(losses)} if losses else {}
        for each in self._measured:
            measured = zip(each.metrics, each.measure(outputs, halves), strict=True)
            scores |= {self.called(each, name): value for name, value in measured}
        return scores

    def called(self, objective: Objective, metric: str) -> str:
        """What the metric of an objective is called beside those of the others."""
        first = next(other for other in self.all if metric in other.metrics)
        return metric if objective is first else f"{metric} of {objective.name}"
