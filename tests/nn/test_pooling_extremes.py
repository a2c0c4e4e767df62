"""Frames and parameters at their limits: values and gradients stay finite, and right where it can be said."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from poolembed.nn.pooling import AttentionPool, AutoPool, GeMPool, MaxPool, MeanPool, SoftmaxPool
from poolembed.nn.statistics import AttentiveStatisticsPool, MeanMaxPool
from tests.nn.poolings import SCORED, Pool, assert_close, attention, levels, noise, statistics


def auto(alpha: float) -> Callable[[], Pool]:
    return lambda: AutoPool(2, alpha=alpha)


def gem(p: float) -> Callable[[], Pool]:
    return lambda: GeMPool(2, p=p)


POOLS: dict[str, Callable[[], Pool]] = {
    "mean": MeanPool,
    "max": MaxPool,
    "softmax": SoftmaxPool,
    **{f"auto-{alpha:g}": auto(alpha) for alpha in (0.0, 1.0, 50.0, 1e6, math.inf)},
    "auto-scalar": lambda: AutoPool(alpha=1e6),
    "cap": lambda: AutoPool(2, alpha=1e6, alpha_max=1e6),
    **{f"gem-{p:g}": gem(p) for p in (1.0, 3.0, 1e3, 1e6, math.inf)},
    "gem-scalar": lambda: GeMPool(p=1e6),
    "attention": lambda: attention(2),
    "attention-zero": lambda: AttentionPool(2),
    "mean+max": MeanMaxPool,
    "attentive-statistics": lambda: statistics(2),
    "attentive-statistics-zero": lambda: AttentiveStatisticsPool(2),
}

every_pool = pytest.mark.parametrize("name", POOLS)


def rows(*values: float) -> Tensor:
    """The same frames in two channels, the second one reversed."""
    x = torch.tensor(values, dtype=torch.float64)
    return torch.stack([x, x.flip(0)]).unsqueeze(0)


FRAMES: dict[str, Tensor] = {
    "zeros": rows(0, 0, 0),
    "negative zero": rows(-0.0, 0.0, -0.0),
    "equal": rows(0.7, 0.7, 0.7, 0.7),
    "equal 1e4": rows(1e4, 1e4, 1e4),
    "equal -1e4": rows(-1e4, -1e4, -1e4),
    "±1e4": rows(1e4, -1e4, 1e4, -1e4),
    "one 1e4": rows(1e4, 0, 0, 0),
    "one -1e4": rows(-1e4, 0, 0, 0),
    "1e4 and next to it": rows(1e4, 1e4 - 1e-3, 1e4 - 8, 1e4),
    "float32 denormals": rows(1e-40, 2e-45, -1e-40, 0),
    "float64 denormals": rows(5e-324, 1e-310, 0),
    "1e-30": rows(1e-30, 1e-30, -1e-30),
    "near GeM's eps": rows(1e-6, 2e-6, 1e-7, 1e-6),
    "float16 max": rows(65504, 65504, 65504),
    "±float16 max": rows(65504, -65504, 1, 0),
    "one frame": rows(1e4),
    "one zero": rows(0),
    "one denormal": rows(1e-40),
    "wide": rows(1e4, 1, 1e-4, 1e-8, 1e-30, 0, -1e-30, -1, -1e4),
}


def gradients(pool: Pool, y: Tensor, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(y.sum(), [x, *pool.parameters()]))


def assert_finite(tensors: list[Tensor], what: str) -> None:
    for tensor in tensors:
        assert bool(tensor.isfinite().all()), f"{what}: {tensor}"


@every_pool
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_values_and_gradients_are_finite(name: str, dtype: torch.dtype) -> None:
    pool = POOLS[name]()
    for kind, values in FRAMES.items():
        x = values.to(dtype).requires_grad_()
        y = pool(x)
        assert_finite([y.detach(), *gradients(pool, y, x)], f"{kind}, whole")
        wide = x.detach().to(y.dtype)
        low, high = wide.amin(-1, keepdim=True).transpose(1, 2), wide.amax(-1, keepdim=True).transpose(1, 2)
        if isinstance(pool, GeMPool):
            low, high = low.clamp_min(pool.eps), high.clamp_min(pool.eps)
        slack = 1e-5 * torch.maximum(low.abs(), high.abs())
        among = levels(pool, y)
        assert bool(((among >= low - slack) & (among <= high + slack)).all()), f"{kind}: {y} outside [{low}, {high}]"
        if isinstance(pool, AttentiveStatisticsPool):
            widest = ((high - low) / 2).clamp_min(pool.eps**0.5)
            assert bool((y.chunk(2, dim=1)[1].unsqueeze(1) <= widest + slack).all()), f"{kind}: {y}"


@every_pool
def test_values_and_gradients_are_finite_through_merging(name: str) -> None:
    pool = POOLS[name]()
    for kind, values in FRAMES.items():
        x = values.float().requires_grad_()
        nothing = torch.zeros(1, x.shape[-1], dtype=torch.bool)
        state = pool.fold(x, nothing)
        for part in (x, x[..., :1], x[..., 1:], x[..., -1:]):
            state = pool.merge(pool.merge(state, pool.fold(part)), pool.fold(x, nothing))
        y = pool.finalize(state)
        assert_finite([y.detach(), *gradients(pool, y, x)], f"{kind}, merged")


@every_pool
def test_values_and_gradients_are_finite_beside_a_masked_row(name: str) -> None:
    # A batch of windows with one that is all padding, which a merge makes whole: its NaN must reach no gradient.
    pool = POOLS[name]()
    x = torch.stack([noise(2, 4), torch.full((2, 4), math.nan, dtype=torch.float64)]).requires_grad_()
    mask = torch.tensor([[True] * 4, [False] * 4])
    other = noise(2, 2, 3, seed=1).requires_grad_()
    y = pool.finalize(pool.merge(pool.fold(x, mask), pool.fold(other)))
    assert_finite([y.detach(), *gradients(pool, y, x), *gradients(pool, pool(other), other)], name)


@every_pool
@pytest.mark.parametrize(
    ("dtype", "scale"), [(torch.float32, 1e-4), (torch.float16, 1.0), (torch.float32, 1e4), (torch.float16, 1e4)]
)
def test_a_very_long_song(name: str, dtype: torch.dtype, scale: float) -> None:
    pool = POOLS[name]()
    x = noise(1, 2, 100_000, scale=scale).clamp(-6e4, 6e4).to(dtype).requires_grad_()
    y = pool(x)
    assert_finite([y.detach(), *gradients(pool, y, x)], name)
    high = x.detach().float().amax(-1).unsqueeze(1)
    among = levels(pool, y)
    assert bool((among <= high * (1 + 1e-5)).all())
    if not isinstance(pool, SCORED) or "zero" in name:
        assert bool((among >= x.detach().double().mean(-1).unsqueeze(1) - 1e-5 * high).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_mean_of_many_large_frames_does_not_overflow_or_stall(dtype: torch.dtype) -> None:
    x = torch.full((1, 1, 100_000), 65280.0, dtype=dtype)  # exact in all three; the sum is 6.5e9
    for pool in (MeanPool(), SoftmaxPool(), AutoPool(alpha=0.0), GeMPool(p=1.0), GeMPool(), AttentionPool(1)):
        assert float(pool(x).detach()) == pytest.approx(65280.0, rel=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 1e3, 1e6, math.inf])
@pytest.mark.parametrize("value", [1e-30, 0.7, -3.0, 1e4, -1e4])
def test_equal_frames_leave_alpha_alone(alpha: float, value: float) -> None:
    # dy/d alpha is the frames' variance: none. The frames share the gradient equally, w_t (1 + alpha (x_t - y)), as
    # far as x_t - y = 0 can be told: to a few u·|x|, times alpha.
    pool = AutoPool(alpha=alpha)
    x = torch.full((1, 1, 7), value).requires_grad_()
    on_frames, on_alpha = gradients(pool, pool(x), x)
    assert float(on_alpha) == 0.0
    steepness = alpha * abs(value) if math.isfinite(alpha) else 0.0
    assert_close(on_frames, torch.full_like(on_frames, 1 / 7), (1 + steepness) * 4 * 2.0**-24)
