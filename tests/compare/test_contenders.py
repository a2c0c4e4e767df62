"""The poolings and their search."""

from __future__ import annotations

import pytest
import torch

from poolembed.compare.contenders import BASELINE, CONTENDERS, TRIALS
from poolembed.nn.config import PoolingKind
from poolembed.nn.pooling import AutoPool, GeMPool
from poolembed.train.config import TrainConfig
from poolembed.train.start import start_model
from tests.compare.studies import TINY

NAMES = list(CONTENDERS)


def model(name: str, seed: int = 3) -> dict[str, torch.Tensor]:
    contender = CONTENDERS[name]
    config = TrainConfig(
        data="",
        output="",
        init="scratch",
        model=TINY,
        seed=seed,
        **contender.settings(contender.trials[-1]),  # type: ignore[arg-type]
    )
    return start_model(config).state_dict()


def test_all_that_the_issue_names() -> None:
    assert len(CONTENDERS) == 12
    assert BASELINE in CONTENDERS
    assert {contender.kind for contender in CONTENDERS.values()} == set(PoolingKind.__args__)  # type: ignore[attr-defined]
    assert all(name == contender.name for name, contender in CONTENDERS.items())


def test_every_search_has_one_size_or_none() -> None:
    for contender in CONTENDERS.values():
        learns = contender.kind in ("autopool", "gem", "attention", "attentive-statistics")
        assert len(contender.trials) == (TRIALS if learns else 1), contender.name
        assert len({tuple(sorted(trial.items())) for trial in contender.trials}) == len(contender.trials)
        assert contender.searched == learns


def test_names_mean_what_they_say() -> None:
    def pool(name: str) -> torch.nn.Module:
        contender = CONTENDERS[name]
        trial = contender.trials[-1]
        config = TrainConfig(data="", output="", init="scratch", model=TINY, **contender.settings(trial))  # type: ignore[arg-type]
        return start_model(config).pools[0]

    cap, rap, auto = pool("cap"), pool("rap"), pool("autopool-scalar")
    assert isinstance(cap, AutoPool)
    assert isinstance(rap, AutoPool)
    assert isinstance(auto, AutoPool)
    assert (cap.alpha_max, rap.alpha_l2, auto.alpha_l2) == (2.0, 1e-4, 0.0)
    assert cap.alpha.shape == rap.alpha.shape == (TINY.encoder.frame_features,)
    assert auto.alpha.shape == ()
    gem = pool("gem-channel")
    assert isinstance(gem, GeMPool)
    assert gem.p.shape == (TINY.encoder.frame_features,)
    assert gem.p.tolist() == [3.0] * TINY.encoder.frame_features


@pytest.mark.parametrize("name", [name for name in NAMES if name != BASELINE])
def test_all_start_from_the_same_weights(name: str) -> None:
    """Of the same shape: two poolings give the projection twice as many inputs."""
    mean, other = model(BASELINE), model(name)
    same = [key for key in mean if other[key].shape == mean[key].shape]
    assert all(torch.equal(mean[key], other[key]) for key in same if not key.startswith("project"))
    assert any(key.startswith("encoder") for key in same)
    if CONTENDERS[name].outputs == 1:
        assert torch.equal(mean["project.weight"], other["project.weight"])


def test_seeds_start_from_different_weights() -> None:
    one, other = model(BASELINE), model(BASELINE, seed=4)
    assert not torch.equal(one["project.weight"], other["project.weight"])
