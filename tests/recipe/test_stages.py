"""What the second stage of a model's training is told, against the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import recipe
from poolembed.train.config import TrainConfig
from poolembed.train.configfile import as_config, read_settings

RECIPE = Path(next(iter(recipe.__path__)))


def stage(name: str) -> TrainConfig:
    return as_config({**read_settings(RECIPE / f"{name}.toml"), "output": ""}, str)


@pytest.mark.parametrize(("name", "more"), [("base", []), ("tiny", ["targets/base-embedding.parquet"])])
def test_the_second_goes_on_from_the_first(name: str, more: list[str]) -> None:
    first, second = stage(name), stage(f"{name}-2")
    assert first.init == "scratch"
    assert second.init == f"runs/{name}-1"
    assert second.model is None  # it has the first one's, pooling too
    assert second.nested == first.nested
    assert second.lr < first.lr
    assert second.objectives[: len(first.objectives)] == first.objectives
    assert [objective.targets for objective in second.objectives[len(first.objectives) :]] == more


def test_the_third_of_base_learns_from_the_second_and_hears_it_changed() -> None:
    second, third = stage("base-2"), stage("base-3")
    assert third.init == "runs/base-start"
    assert third.model is None
    assert third.nested == second.nested
    assert third.objectives[0].targets == "targets/base-embedding.parquet"
    assert third.augment.shift > 0
    assert third.augment.noise > 0
    # Losses on labels are the second's.
    assert {o.column: o.weight for o in third.objectives if o.kind == "classification"} == {
        o.column: o.weight for o in second.objectives if o.kind == "classification"
    }
