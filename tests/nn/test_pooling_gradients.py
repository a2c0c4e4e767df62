"""What training relies on: the right gradients, through masks and merging too."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.func import functional_call

from poolembed.nn.pooling import AutoPool, GeMPool
from poolembed.nn.statistics import AttentiveStatisticsPool
from tests.nn.poolings import CASES, Case, InPieces, Pool, Whole, assert_close, frames, noise, quick, thorough

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def distinct(*shape: int) -> Tensor:
    """Frames of both signs, no two alike and none at GeM's eps: where max and clamp have a derivative."""
    count = math.prod(shape)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    return (torch.linspace(-1.5, 2.5, count, dtype=torch.float64) + 0.01)[order].view(shape)


def finite_parameters(pool: Pool) -> dict[str, Tensor]:
    """The parameters that can be nudged: at alpha = inf or p = inf there is no difference quotient."""
    return {f"pool.{name}": p for name, p in pool.named_parameters() if bool(p.isfinite().all())}


@every_case
@pytest.mark.parametrize("through", [Whole, InPieces])
def test_gradcheck(case: Case, through: type[Whole] | type[InPieces]) -> None:
    pool = case.build(3).double()
    for parameter in pool.parameters():
        if case.name in ("auto-0", "auto-per-channel", "gem-1", "gem-per-channel") or "-zero" in case.name:
            parameter.data += 0.25  # off the end of its range, and off zero
    module = through(pool)
    parameters = finite_parameters(pool)

    def pooled(x: Tensor, *values: Tensor) -> Tensor:
        y: Tensor = functional_call(module, dict(zip(parameters, values, strict=True)), (x,))
        return y

    inputs = (distinct(2, 3, 5).requires_grad_(), *(p.detach().clone().requires_grad_() for p in parameters.values()))
    assert torch.autograd.gradcheck(pooled, inputs)


@every_case
@quick
@given(x=frames(low=-5, high=5))
def test_gradient_through_merging_is_the_gradient(case: Case, x: Tensor) -> None:
    # Ties included: but how a maximum shares its gradient among ties is its own affair.
    pool = case.build(x.shape[1]).double()
    if "max" in case.name or "inf" in case.name:
        x = x + 20 * torch.randperm(x.shape[-1], generator=torch.Generator().manual_seed(2))
    weights = noise(x.shape[0], pool.outputs * x.shape[1])
    got = []
    for module in (Whole(pool), InPieces(pool)):
        leaf = x.clone().requires_grad_()
        got.append(torch.autograd.grad((module(leaf) * weights).sum(), [leaf, *pool.parameters()]))
    for whole, pieces in zip(*got, strict=True):
        assert_close(pieces, whole, 1e-9 * (1 + float(whole.abs().max())))


@thorough
@given(frames(low=-5, high=5))
def test_gradient_of_alpha_is_the_weighted_variance(x: Tensor) -> None:
    # dy/d alpha = sum w x² - y², so alpha only ever learns from frames that differ, and never shrinks y.
    pool = AutoPool(alpha=0.7).double()
    y = pool(x)
    (got,) = torch.autograd.grad(y.sum(), pool.alpha)
    weights = (pool.alpha.detach() * x).softmax(-1)
    assert_close(got, (weights * (x - y.detach().unsqueeze(-1)).square()).sum(), 1e-9)


@every_case
@quick
@given(x=frames(low=-5, high=5))
def test_gradient_of_a_shift_or_a_scale(case: Case, x: Tensor) -> None:
    # Poolings commute with adding a constant, so each row's gradient sums to 1; GeM commutes with scaling instead,
    # so sum x·dy/dx = y (Euler). A standard deviation does not move with a constant: of two numbers, one or both do.
    pool = case.build(x.shape[1]).double()
    leaf = (x.abs() + 0.01 if isinstance(pool, GeMPool) else x.clone()).requires_grad_()
    y = pool(leaf)
    (grad,) = torch.autograd.grad(y.sum(), leaf)
    if isinstance(pool, GeMPool):
        assert_close((leaf * grad).sum(-1), y, 1e-9)
    else:
        moving = 1 if isinstance(pool, AttentiveStatisticsPool) else pool.outputs
        assert_close(grad.sum(-1), torch.full_like(grad[..., 0], moving), 1e-9)


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_in_lower_precision(case: Case, dtype: torch.dtype) -> None:
    # The gradient arrives in x's dtype after float32 arithmetic: off by its rounding, 2^-8 at worst, and float32's.
    x = noise(2, 3, 20, dtype=dtype, scale=2.0)
    pool = case.build(3)
    grads = []
    for leaf in (x.clone(), x.double()):
        leaf.requires_grad_()
        weights = torch.linspace(-1, 1, 6 * pool.outputs).view(2, -1)
        grads.append(torch.autograd.grad((pool(leaf) * weights).sum(), [leaf, *pool.parameters()]))
    assert grads[0][0].dtype == dtype
    assert_close(grads[0][0], grads[1][0], torch.finfo(dtype).eps * float(grads[1][0].abs().max()) + 1e-5)
    for low, high in zip(grads[0][1:], grads[1][1:], strict=True):
        assert low.dtype == torch.float32
        assert_close(low, high, 1e-5 * (1 + float(high.abs().max())))
