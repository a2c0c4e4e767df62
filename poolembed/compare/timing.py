"""What pooling itself costs in a training step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch

from poolembed.nn.config import PoolingConfig
from poolembed.nn.model import build_pool
from poolembed.nn.pooling import TemporalPool

_ROUNDS, _WARM_UP = 15, 3


def pooling_steps(configs: Sequence[PoolingConfig], shape: tuple[int, int, int]) -> list[float]:
    """Seconds, on one thread of the CPU, that pooling takes forwards and backwards.

    The poolings take turns, so that a machine that slows down slows down all of them; the median counts.

    Args:
        configs: of the poolings.
        shape: of the frame features, ``(B, C, T)``.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator).requires_grad_()
    mask = torch.ones(shape[0], shape[2], dtype=torch.bool)
    pools = [build_pool(config, shape[1]) for config in configs]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = [[_step(pool, x, mask) for pool in pools] for _ in range(_WARM_UP + _ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    return [median(times[_WARM_UP:]) for times in zip(*rounds, strict=True)]


def _step(pool: TemporalPool[Any], x: torch.Tensor, mask: torch.Tensor) -> float:
    began = time.perf_counter()
    pool(x, mask).sum().backward()
    seconds = time.perf_counter() - began
    x.grad = None
    pool.zero_grad()
    return seconds
