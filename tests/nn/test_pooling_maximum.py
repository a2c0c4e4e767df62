"""AutoPool at alpha = inf and GeM at p = inf are the maximum to the last bit, however the frames are grouped."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor

from poolembed.nn.pooling import AutoPool, GeMPool, MaxPool
from tests.nn.poolings import Pool, assert_close

LEAST = 1e-44
"""GeM's eps here: a denormal number in float32."""

MAXIMA: dict[str, Callable[[], Pool]] = {
    "max": MaxPool,
    "auto": lambda: AutoPool(alpha=math.inf),
    "auto-per-channel": lambda: AutoPool(2, alpha=math.inf),
    "gem": lambda: GeMPool(p=math.inf, eps=LEAST),
    "gem-per-channel": lambda: GeMPool(2, p=math.inf, eps=LEAST),
}


def grouped(pool: Pool, x: Tensor, random: Random) -> Tensor:
    """The pooling of frames that were cut at random, folded with some masked ones, and merged in any order."""
    cuts = sorted(random.sample(range(1, x.shape[-1]), random.randint(0, x.shape[-1] - 1)))
    states = []
    for start, stop in zip([0, *cuts], [*cuts, x.shape[-1]], strict=True):
        part = torch.cat([x[..., start:stop], torch.full_like(x[..., :1], math.inf)], -1)
        real = torch.arange(part.shape[-1]) < stop - start
        states.append(pool.fold(part, real.expand(len(x), -1)))
    while len(states) > 1:
        random.shuffle(states)
        states.append(pool.merge(states.pop(), states.pop()))
    return pool.finalize(states[0])


def near(value: float, dtype: Any) -> NDArray[Any]:
    """One row of two channels that hold neighbours of a value, several of them at the peak."""
    below = np.nextafter(dtype(value), dtype(0))
    return np.array([[[below, value, below, value, value], [value, below, 0, below, -value]]], dtype)


@pytest.mark.parametrize("name", MAXIMA)
@pytest.mark.parametrize("width", [32, 64])
def test_is_the_maximum_in_every_grouping(name: str, width: int) -> None:
    dtype = np.float32 if width == 32 else np.float64
    shapes = st.tuples(st.integers(1, 2), st.just(2), st.integers(1, 12))
    largest = float(np.finfo(dtype).max)
    values = st.one_of(
        st.floats(-largest, largest, width=width),  # type: ignore[arg-type]
        st.floats(0, float(np.finfo(dtype).tiny) * 2, width=width),  # type: ignore[arg-type]
        st.sampled_from([1.6235e-38, 1.6170e-38, 1.0, 0.0]).map(lambda value: float(dtype(value))),
    )

    @settings(deadline=None, max_examples=30)
    @example(near(1.6235e-38, dtype), Random(0))
    @example(near(float(np.finfo(dtype).tiny), dtype), Random(1))
    @example(near(float(np.finfo(dtype).smallest_subnormal) * 2, dtype), Random(2))
    @example(near(largest, dtype), Random(3))
    @example(near(1.97, dtype), Random(4))
    @given(hnp.arrays(dtype, shapes, elements=values), st.randoms(use_true_random=False))
    def check(frames: NDArray[Any], random: Random) -> None:
        x, pool = torch.from_numpy(frames), MAXIMA[name]()
        peak = x.amax(-1)
        expected = peak.clamp_min(LEAST) if isinstance(pool, GeMPool) else peak
        assert torch.equal(pool(x), expected)
        assert torch.equal(grouped(pool, x, random), expected)

    check()


def test_channels_with_an_infinite_alpha_leave_the_others_alone() -> None:
    x = torch.tensor([[[1.6170e-38, 1.6235e-38, 0.0], [1.0, 2.0, 6.0]]])
    pool = AutoPool(2)
    pool.alpha.data = torch.tensor([math.inf, 0.0])
    assert pool(x).tolist() == [[x[0, 0, 1].item(), 3.0]]


@pytest.mark.parametrize("pool", [AutoPool(alpha=math.inf), GeMPool(p=math.inf)])
def test_the_gradient_is_shared_by_the_peaks(pool: Pool) -> None:
    x = torch.tensor([[[1.6170, 1.6235, 0.0, 1.6235]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(pool(x).sum(), x)
    assert_close(gradient, torch.tensor([[[0.0, 0.5, 0.0, 0.5]]]), 1e-6)


def test_the_gradient_of_denormal_frames_too() -> None:
    x = torch.tensor([[[1.6170e-38, 1.6235e-38, 0.0, 1.6235e-38]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(AutoPool(alpha=math.inf)(x).sum(), x)
    assert gradient.tolist() == [[[0.0, 0.5, 0.0, 0.5]]]
