"""The poolings that are compared, and the small search that each is given."""
# ruff: noqa: RUF001 - a Greek letter is meant

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from poolembed.nn.config import PoolingConfig, PoolingKind
from poolembed.train.config import TrainConfig

Trial = dict[str, float]
"""Options of `TrainConfig` that the search tries: ``pooling_lr``, and where alpha or p starts."""

RATES = (1.0, 10.0, 100.0)
"""Learning rates of alpha and p, as multiples of the network's; the official GeM has 10, or 100 per channel."""

SCORER_RATES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Those of a scorer, which has no start to choose: it starts at 0, the mean."""

ALPHAS, EXPONENTS = (0.0, 1.0), (1.0, 3.0)
"""Starts. Alpha 0 and p 1 are the mean; alpha 1 is softmax pooling and p 3 where the official GeM starts."""

TRIALS = len(SCORER_RATES)
"""Runs that the search spends on each pooling that has something to learn."""

CAP_MAX, RAP_L2 = 2.0, 1e-4
"""Bound of alpha in CAP, and weight of the penalty on alpha in RAP."""


@dataclass(frozen=True)
class Contender:
    """One of the poolings.

    Attributes:
        name: on the command line, in file names and tables.
        title: what it is called in the figure.
        kind: as in `PoolingConfig`, and so on.
        scope: None where there is no parameter to have one.
        options: of `TrainConfig`, that are not searched.
        trials: what the search tries; a single one without options where there is nothing to choose.
    """

    name: str
    title: str
    kind: PoolingKind
    scope: Literal["scalar", "channel"] | None = None
    options: Trial = field(default_factory=dict)
    trials: tuple[Trial, ...] = ({},)

    @property
    def searched(self) -> bool:
        """Whether there is anything to search."""
        return len(self.trials) > 1

    @property
    def outputs(self) -> int:
        """Numbers per channel; those with two pool features only."""
        from poolembed.nn.model import build_pool  # which needs torch, and --help does not

        return build_pool(PoolingConfig(kind=self.kind), 1).outputs

    def settings(self, trial: Trial) -> dict[str, object]:
        """The keys of `TrainConfig` that make this pooling, in one trial."""
        assert all(name in TrainConfig.__struct_fields__ for name in trial)
        return {"pooling": self.kind, "pooling_scope": self.scope, **self.options, **trial}


def _starts(name: str, values: tuple[float, ...]) -> tuple[Trial, ...]:
    return tuple({"pooling_lr": rate, name: start} for rate, start in product(RATES, values))


_AUTO, _GEM = _starts("alpha", ALPHAS), _starts("p", EXPONENTS)
_SCORER: tuple[Trial, ...] = tuple({"pooling_lr": rate} for rate in SCORER_RATES)

CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("mean", "mean", "mean"),
        Contender("max", "max", "max"),
        Contender("mean+max", "mean + max", "mean+max"),
        Contender("softmax", "softmax", "softmax"),
        Contender("autopool-scalar", "AutoPool, one α", "autopool", "scalar", trials=_AUTO),
        Contender("autopool-channel", "AutoPool, α per channel", "autopool", "channel", trials=_AUTO),
        Contender("cap", f"CAP, α ≤ {CAP_MAX:g} per channel", "autopool", "channel", {"alpha_max": CAP_MAX}, _AUTO),
        Contender("rap", "RAP, α per channel", "autopool", "channel", {"alpha_l2": RAP_L2}, _AUTO),
        Contender("gem-scalar", "GeM, one p", "gem", "scalar", trials=_GEM),
        Contender("gem-channel", "GeM, p per channel", "gem", "channel", trials=_GEM),
        Contender("attention", "attention", "attention", trials=_SCORER),
        Contender("attentive-statistics", "attentive statistics", "attentive-statistics", trials=_SCORER),
    )
}
"""By name, in the order of the tables."""

BASELINE = "mean"
"""What the others are compared with, pair by pair."""
