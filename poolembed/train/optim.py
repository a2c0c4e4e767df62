"""The optimizer: which parameter learns how fast, and when."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from poolembed.nn.config import PoolingConfig
from poolembed.nn.pooling import TemporalPool

SCALAR_FACTOR, CHANNEL_FACTOR, SCORER_FACTOR = 10.0, 100.0, 1.0
"""Multiples of the learning rate for pooling parameters. The first two are those of the official GeM; a scorer is a
weight matrix like any other."""


def pooling_factor(config: PoolingConfig, asked: float | None) -> float:
    """What a pooling's learning rate is, as a multiple of the others'."""
    if asked is not None:
        return asked
    if config.kind not in ("autopool", "gem"):
        return SCORER_FACTOR
    return CHANNEL_FACTOR if config.scope == "channel" else SCALAR_FACTOR


def pools_of(module: nn.Module) -> list[tuple[str, TemporalPool]]:  # type: ignore[type-arg]
    """The pooling layers with parameters, by name."""
    return [
        (name, pool)
        for name, pool in module.named_modules()
        if isinstance(pool, TemporalPool) and any(True for _ in pool.parameters())
    ]


def build_optimizer(module: nn.Module, *, lr: float, weight_decay: float, pooling_lr: float) -> torch.optim.AdamW:
    """AdamW over the parameters that are trained, in three groups.

    Matrices and kernels decay; biases and norms do not; pooling parameters do not either and learn at their own rate.

    Args:
        module: all of it: model, heads, terms.
        lr: of everything but the poolings.
        weight_decay: decoupled (Loshchilov & Hutter 2019).
        pooling_lr: of the poolings, as a multiple of `lr`.
    """
    pooling = {id(p) for _, pool in pools_of(module) for p in pool.parameters()}
    trained = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, object]] = [
        {"params": [p for p in trained if id(p) not in pooling and p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in pooling and p.dim() <= 1], "weight_decay": 0.0},
        {"params": [p for p in trained if id(p) in pooling], "weight_decay": 0.0, "factor": pooling_lr},
    ]
    return torch.optim.AdamW([{"factor": 1.0, **group} for group in groups if group["params"]], lr=lr)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its learning rate, a multiple of this one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def rate_at(step: int, steps: int, *, peak: float, warmup: float) -> float:
    """Learning rate of a step: a climb over the first share `warmup` of all steps, then half a cosine down to 0.

    A function of the step alone, so that a resumed run needs no scheduler's state.

    >>> [round(rate_at(step, 10, peak=1.0, warmup=0.2), 2) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    climb = round(warmup * steps)
    if step < climb:
        return peak * (step + 1) / climb
    return peak * 0.5 * (1 + math.cos(math.pi * (step - climb) / max(steps - climb, 1)))


@torch.no_grad()
def project_pools(pools: Iterable[TemporalPool]) -> None:  # type: ignore[type-arg]
    """Put pooling parameters back into their range."""
    for pool in pools:
        pool.project_()
