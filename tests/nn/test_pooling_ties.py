"""Gradients where a clamp, a maximum or the peak itself sits on a tie: there versions of torch have come to differ."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from poolembed.nn.pooling import GeMPool
from poolembed.nn.reduction import at_least
from tests.nn.poolings import CASES, Case, InPieces, Pool, Whole, assert_close

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


class Masked(nn.Module):
    """The pooling among masked frames, above, at and below the peak, and none of them a number that matters."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        peak = x.detach().amax(-1, keepdim=True)
        parts = [peak + 3, x[..., :2], peak, torch.full_like(peak, math.nan), x[..., 2:], peak - 300]
        real = torch.cat([torch.full((part.shape[-1],), i in (1, 4)) for i, part in enumerate(parts)])
        y: Tensor = self.pool(torch.cat(parts, -1), real.expand(x.shape[0], -1))
        return y


class MaskedInPieces(nn.Module):
    """`Masked` on both sides of a merge, which have the same peak."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        pool, junk = self.pool, torch.full_like(x[..., :1], 50.0)
        real = torch.tensor([True] * x.shape[-1] + [False]).expand(x.shape[0], -1)
        states = [pool.fold(torch.cat([part, junk], -1), real) for part in (x, x.flip(-1))]
        return pool.finalize(pool.merge(pool.fold(x[..., :0]), pool.merge(states[0], states[1])))


TIES = {
    "peak": [0.3, 2.5, 1.1, 0.7],
    "two peaks": [0.3, 2.5, 1.1, 2.5],
    "equal frames": [0.7, 0.7, 0.7, 0.7],
    "one frame": [1.3],
}


def is_maximum(case: Case) -> bool:
    return "max" in case.name or "inf" in case.name


@every_case
@pytest.mark.parametrize("tie", TIES)
def test_gradients_at_ties(case: Case, tie: str) -> None:
    frames = torch.tensor(TIES[tie], dtype=torch.float64)
    x = torch.stack([frames, frames + 0.5]).unsqueeze(0)
    pool = case.build(2).double()
    module = Whole(pool)
    # A parameter at the end of its range goes on inwards only: it is held there, and `test_gradcheck` moves it.
    parameters = {f"pool.{name}": p for name, p in pool.named_parameters() if bool(p.isfinite().all())}
    inner = case.name not in ("auto-0", "auto-per-channel", "gem-1", "gem-per-channel")

    def pooled(x: Tensor, *values: Tensor) -> Tensor:
        y: Tensor = functional_call(module, dict(zip(parameters, values, strict=True)), (x,))
        return y

    values = [p.detach().clone().requires_grad_(inner) for p in parameters.values()]
    if not is_maximum(case):
        assert torch.autograd.gradcheck(pooled, (x.clone().requires_grad_(), *values))
    # What a maximum gives each of several peaks is its own affair, but moved together they have a derivative.
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda shift: pooled(x + shift, *values), (shift,))


@every_case
@pytest.mark.parametrize("tie", TIES)
@pytest.mark.parametrize("through", [InPieces, Masked, MaskedInPieces])
def test_masks_and_merges_do_not_move_a_gradient(case: Case, through: type[nn.Module], tie: str) -> None:
    frames = torch.tensor(TIES[tie], dtype=torch.float64)
    pool = case.build(2).double()
    gradients = []
    for module in (Whole(pool), through(pool)):
        x = torch.stack([frames, frames + 0.5]).unsqueeze(0).requires_grad_()
        on_frames, *on_parameters = torch.autograd.grad(module(x).sum(), [x, *pool.parameters()])
        if is_maximum(case):
            on_frames = on_frames.sum(-1)  # of several peaks each may have what it likes
        gradients.append([on_frames, *on_parameters])
    for got, expected in zip(*gradients, strict=True):
        assert_close(got, expected, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_the_least_frame_the_gradient_is_the_frames(dtype: torch.dtype) -> None:
    # GeM has a kink at eps, and no derivative: of the two slopes it is the one that lets a frame grow.
    pool = GeMPool(p=2.0, eps=0.25)
    x = torch.tensor([[[0.25, 0.125, 0.75]]], dtype=dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(pool(x).sum(), x)
    y = math.sqrt((2 * 0.25**2 + 0.75**2) / 3)
    assert_close(gradient, torch.tensor([[[0.25 / 3 / y, 0.0, 0.75 / 3 / y]]]), 1e-6)


def test_at_least_is_a_clamp_with_a_gradient_at_its_bound() -> None:
    x = torch.tensor([-1.0, 0.5, 0.5000001, 3.0, math.inf, math.nan], requires_grad=True)
    y = at_least(x, 0.5)
    assert torch.equal(y.nan_to_num(nan=-7.0), x.detach().clamp_min(0.5).nan_to_num(nan=-7.0))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
