"""What the pooling tests share: every pooling beside its equation, frames to pool, and how exact to be.

Tolerances. Rounding errors are counted in ``u``, the unit roundoff (2^-24 in float32, 2^-53 in float64), and are
relative to the largest frame, because a weighted average of frames of both signs may cancel to nothing:

- a sum of T terms: at most T·u, and a handful of u for products, quotients and exponentials;
- the softmax of scores with error d: y moves by sum w_t d_t (x_t - y). For AutoPool d is at most 2u·alpha·max|x|,
  while sum w_t |x_t - y| <= 2 (max x - y) <= 2 log(T) / alpha, so alpha cancels: 4 log(T)·u, for any alpha;
  for attention d is at most (C + 2)·u·sum|w|·max|x|, and |x_t - y| <= 2 max|x|;
- GeM: (x / peak)^p has a relative error of p·u·|log(x / peak)| plus p·u from the quotient, and the p-th root divides
  both by p. What is left of the former is weighted by (x / peak)^p: less than u. The result is positive, so this is
  relative to y itself;
- standard deviation: distances from a mean that is off by d are as the mean's own error, and d itself adds d^2 to the
  variance, at most d to its root; an error of the weights, relative, is halved by the root. Twice the mean's bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor, nn

from poolembed.nn.pooling import AttentionPool, AutoPool, GeMPool, MaxPool, MeanPool, SoftmaxPool, TemporalPool
from poolembed.nn.statistics import AttentiveStatisticsPool, MeanMaxPool
from tests.nn import reference
from tests.nn.reference import Array

Pool = TemporalPool[Any]
P = TypeVar("P", AttentionPool, AttentiveStatisticsPool)

quick = settings(max_examples=8)
"""For a property that is checked for each pooling in turn."""

thorough = settings(max_examples=50)
"""For a property of one pooling."""


@dataclass(frozen=True)
class Case:
    """A pooling at one setting: how to build it for C channels, and its equation for one song ``(C, T)``."""

    name: str
    build: Callable[[int], Pool]
    equation: Callable[[Pool, Array], Array]

    def reference(self, pool: Pool, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The equation, song by song, over the real frames of ``x (B, C, T)``; ``(B, C)`` float64."""
        songs = [row if mask is None else row[:, mask[i]] for i, row in enumerate(x.detach().double())]
        return torch.from_numpy(np.stack([self.equation(pool, cast(Array, song.numpy())) for song in songs]))


def _auto(per_channel: bool, alpha: float, **options: float) -> Callable[[int], Pool]:
    def build(channels: int) -> Pool:
        pool = AutoPool(channels if per_channel else None, alpha=alpha, **options)
        if per_channel:
            pool.alpha.data += torch.linspace(0, 3, channels)
        return pool

    return build


def _gem(per_channel: bool, p: float) -> Callable[[int], Pool]:
    def build(channels: int) -> Pool:
        pool = GeMPool(channels if per_channel else None, p=p)
        if per_channel:
            pool.p.data += torch.linspace(0, 3, channels)
        return pool

    return build


SCORED = (AttentionPool, AttentiveStatisticsPool)
"""Poolings whose weights come of a scorer: they may favour small frames, and round as dot products do."""


def _scored(pool: P) -> P:
    """The pool with a scorer that is not the zero it starts with."""
    for i, parameter in enumerate(pool.parameters()):
        parameter.data = torch.linspace(-0.1, 0.2, parameter.numel()).view(parameter.shape) + 0.03 * (i + 1)
    return pool


def attention(channels: int) -> AttentionPool:
    """Attention with a scorer that is not the zero it starts with."""
    return _scored(AttentionPool(channels))


def statistics(channels: int) -> AttentiveStatisticsPool:
    """Attentive statistics with a scorer that is not the zero it starts with."""
    return _scored(AttentiveStatisticsPool(channels))


def double(parameter: Tensor) -> Array:
    """A parameter's value in float64."""
    return cast(Array, parameter.detach().double().numpy())


def _attention_equation(pool: Pool, x: Array) -> Array:
    assert isinstance(pool, AttentionPool)
    bias = 0.0 if pool.scorer.bias is None else pool.scorer.bias.item()
    return reference.attention(x, double(pool.scorer.weight).reshape(-1), bias)


def _statistics_equation(pool: Pool, x: Array) -> Array:
    assert isinstance(pool, AttentiveStatisticsPool)
    return reference.attentive_statistics(x, double(pool.scorer.weight).reshape(-1), pool.eps)


def _auto_equation(pool: Pool, x: Array) -> Array:
    return reference.autopool(x, double(pool.alpha))  # type: ignore[arg-type]


def _gem_equation(pool: Pool, x: Array) -> Array:
    assert isinstance(pool, GeMPool)
    return reference.gem(x, double(pool.p), pool.eps)


CASES = [
    Case("mean", MeanPool, lambda _, x: reference.mean(x)),
    Case("max", MaxPool, lambda _, x: reference.maximum(x)),
    Case("softmax", SoftmaxPool, lambda _, x: reference.autopool(x, 1.0)),
    Case("auto-0", _auto(False, 0.0), _auto_equation),
    Case("auto-0.3", _auto(False, 0.3), _auto_equation),
    Case("auto-20", _auto(False, 20.0), _auto_equation),
    Case("auto-inf", _auto(False, math.inf), _auto_equation),
    Case("auto-per-channel", _auto(True, 0.0), _auto_equation),
    Case("cap", _auto(True, 0.5, alpha_max=4.0, alpha_l2=0.1), _auto_equation),
    Case("gem-1", _gem(False, 1.0), _gem_equation),
    Case("gem-3", _gem(False, 3.0), _gem_equation),
    Case("gem-80", _gem(False, 80.0), _gem_equation),
    Case("gem-inf", _gem(False, math.inf), _gem_equation),
    Case("gem-per-channel", _gem(True, 1.0), _gem_equation),
    Case("attention", attention, _attention_equation),
    Case("attention-zero", AttentionPool, lambda _, x: reference.mean(x)),
    Case("mean+max", MeanMaxPool, lambda _, x: reference.mean_and_max(x)),
    Case("attentive-statistics", statistics, _statistics_equation),
    Case("attentive-statistics-zero", AttentiveStatisticsPool, _statistics_equation),
]


def of_equal_frames(pool: Pool, x: Tensor) -> Tensor:
    """What pooling must give, ``(B, outputs * C)``, where all frames of a channel are ``x (B, C)``."""
    if isinstance(pool, AttentiveStatisticsPool):
        return torch.cat([x, torch.full_like(x, pool.eps).sqrt()], dim=1)
    return x.repeat(1, pool.outputs)


def levels(pool: Pool, y: Tensor) -> Tensor:
    """The numbers ``(B, C)``, or ``(B, outputs, C)``, of what was pooled that lie among the frames, as a mean does."""
    channels = y.unflatten(1, (pool.outputs, -1))  # type: ignore[no-untyped-call]
    return cast(Tensor, channels[:, :1] if isinstance(pool, AttentiveStatisticsPool) else channels)


class InPieces(nn.Module):
    """A pooling that goes through masks, merges and a piece of no frames, in either order, to the same result."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        pool = self.pool
        real = torch.ones(x.shape[0], x.shape[2], dtype=torch.bool)
        late, early = pool.fold(x[..., 2:], real[:, 2:]), pool.fold(x[..., :2])
        left, right = pool.fold(x, ~real), pool.fold(x[..., :0])
        return pool.finalize(pool.merge(pool.merge(left, pool.merge(late, right)), pool.merge(right, early)))


class Whole(nn.Module):
    """The pooling under the parameter names of `InPieces`."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(x)
        return y


UNIT = {torch.float64: 2.0**-53}


def bound(pool: Pool, x: Tensor) -> float:
    """How far apart two float32 (for float64 `x`: float64) evaluations may lie; see the module's docstring."""
    unit, frames, largest = UNIT.get(x.dtype, 2.0**-24), x.shape[-1], float(x.abs().max())
    roundings = 10.0 + frames + 4 * math.log(frames)
    if isinstance(pool, SCORED):
        steepness = float(pool.scorer.weight.detach().abs().sum()) * largest
        roundings += 2 * (x.shape[1] + 2) * steepness
    if isinstance(pool, AttentiveStatisticsPool):
        roundings *= 2
        largest = max(largest, pool.eps**0.5)
    if isinstance(pool, GeMPool):
        largest = max(largest, pool.eps)
    return unit * roundings * largest


def assert_close(actual: Tensor, expected: Tensor, atol: float) -> None:
    """Equal shapes, and no element further apart than `atol`; NaN is never close."""
    assert actual.shape == expected.shape
    gap = (actual.detach().double() - expected.detach().double()).abs()
    assert bool((gap <= atol).all()), f"off by {gap.max():.3g}, allowed {atol:.3g}:\n{actual}\n{expected}"


def frames(
    *, low: float = -100.0, high: float = 100.0, max_time: int = 16, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[Tensor]:
    """``(B, C, T)`` frames that every dtype of at least `dtype`'s width holds exactly."""

    def to_tensor(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(dtype)

    return hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, max_time)),
        elements=st.floats(low, high, width=32, allow_subnormal=False),
    ).map(to_tensor)


def noise(*shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal noise, the same on every call."""
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


alphas = st.one_of(st.floats(0, 100, width=32), st.sampled_from([0.0, 1.0, 1e3, 1e6, math.inf]))
powers = st.one_of(st.floats(1, 100, width=32), st.sampled_from([1.0, 3.0, 1e3, 1e6, math.inf]))
