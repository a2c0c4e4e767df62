from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from poolembed.nn.config import PoolingConfig
from poolembed.nn.pooling import AutoPool, GeMPool
from poolembed.train.optim import build_optimizer, pooling_factor, pools_of, project_pools, rate_at, set_rate
from tests.conftest import tiny_config, tiny_network


@pytest.mark.parametrize(
    ("config", "factor"),
    [
        (PoolingConfig(kind="gem", scope="scalar"), 10),
        (PoolingConfig(kind="gem", scope="channel"), 100),
        (PoolingConfig(kind="autopool", scope="channel"), 100),
        (PoolingConfig(kind="attention"), 1),
    ],
)
def test_pooling_learns_as_much_faster_as_the_official_gem(config: PoolingConfig, factor: float) -> None:
    assert pooling_factor(config, None) == factor
    assert pooling_factor(config, 3.0) == 3.0


@pytest.mark.parametrize("kind", ["autopool", "gem", "attention"])
def test_every_trained_parameter_is_in_one_group(kind: str) -> None:
    network = tiny_network(tiny_config(PoolingConfig(kind=kind)))  # type: ignore[arg-type]
    network.project.bias.requires_grad_(False)
    optimizer = build_optimizer(network, lr=0.1, weight_decay=0.5, pooling_lr=7.0)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters() if p.requires_grad)
    pooling = {id(p) for _, pool in pools_of(network) for p in pool.parameters()}
    assert pooling
    for group in optimizer.param_groups:
        inside = {id(p) in pooling for p in group["params"]}
        assert len(inside) == 1, "a pooling's parameters share a group with others"
        if inside == {True}:
            assert (group["weight_decay"], group["factor"]) == (0.0, 7.0)
        elif group["weight_decay"]:
            assert all(p.dim() > 1 for p in group["params"])
    set_rate(optimizer, 0.01)
    assert {group["lr"] for group in optimizer.param_groups} == {0.01, 0.07}


@given(st.integers(1, 300), st.floats(0, 0.9), st.floats(1e-5, 1.0))
def test_the_rate_climbs_then_falls_and_stays_positive(steps: int, warmup: float, peak: float) -> None:
    rates = [rate_at(step, steps, peak=peak, warmup=warmup) for step in range(steps)]
    climb = round(warmup * steps)
    assert all(0 < rate <= peak * (1 + 1e-9) for rate in rates)
    assert all(a < b for a, b in itertools.pairwise(rates[:climb]))
    assert all(a > b for a, b in itertools.pairwise(rates[climb:]))
    assert math.isclose(max(rates), peak)


def test_projecting_puts_parameters_back_into_their_range() -> None:
    pools = nn.ModuleList([AutoPool(2, alpha_max=2.0), GeMPool(2)])
    with torch.no_grad():
        pools[0].alpha.copy_(torch.tensor([-1.0, 5.0]))  # type: ignore[operator]
        pools[1].p.copy_(torch.tensor([0.5, 4.0]))  # type: ignore[operator]
    project_pools(pool for _, pool in pools_of(pools))
    assert [p.tolist() for p in pools.parameters()] == [[0.0, 2.0], [1.0, 4.0]]
