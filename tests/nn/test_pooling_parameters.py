"""The trained parameters: their shapes, their range whatever the optimizer does, their penalty, and loading them."""

from __future__ import annotations

import io
import math

import pytest
import torch
from torch import nn

from poolembed.nn.pooling import AttentionPool, AutoPool, GeMPool, MaxPool, MeanPool, SoftmaxPool
from poolembed.nn.statistics import AttentiveStatisticsPool, MeanMaxPool
from tests.nn.poolings import CASES, SCORED, Case, InPieces, Whole, assert_close, noise

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_parameter_shapes() -> None:
    assert AutoPool().alpha.shape == GeMPool().p.shape == ()
    assert AutoPool(5).alpha.shape == GeMPool(5).p.shape == (5,)
    assert AttentionPool(5).scorer.weight.numel() == AttentiveStatisticsPool(5).scorer.weight.numel() == 5
    assert sum(parameter.numel() for parameter in AttentionPool(5).parameters()) in (5, 6), "one score a frame"
    for bare in (MeanPool(), MaxPool(), SoftmaxPool(), MeanMaxPool(), MeanPool(5), MaxPool(5), SoftmaxPool(5)):
        assert list(bare.parameters()) == []
    for pool in (AutoPool(5), GeMPool(5), AttentionPool(5), AttentiveStatisticsPool(5)):
        assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in pool.parameters())


def test_parameters_start_where_they_are_told() -> None:
    assert torch.equal(AutoPool(2).alpha.detach(), torch.ones(2))
    assert torch.equal(GeMPool(2).p.detach(), torch.full((2,), 3.0))
    assert torch.equal(AutoPool(2, alpha=math.inf).alpha.detach(), torch.full((2,), math.inf))
    assert float(AutoPool(alpha=2.5, alpha_max=2.5).alpha.detach()) == 2.5


@pytest.mark.parametrize("alpha", [-0.1, -math.inf, math.nan, 3.1, math.inf])
def test_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        AutoPool(alpha=alpha, alpha_max=3.0)


@pytest.mark.parametrize("options", [{"p": 0.9}, {"p": math.nan}, {"p": -math.inf}, {"eps": 0.0}, {"eps": -1.0}])
def test_p_and_eps_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        GeMPool(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("alpha_max", [None, 4.0])
@pytest.mark.parametrize("lr", [1e30, 1e6, 1e3, -1e3, -1e6, -1e30])
def test_alpha_stays_in_its_range_after_huge_steps(channels: int | None, alpha_max: float | None, lr: float) -> None:
    # The gradient of sum y is a variance, > 0: a positive rate drives alpha down, a negative one up.
    pool = AutoPool(channels, alpha=2.0, alpha_max=alpha_max)
    optimizer = torch.optim.SGD(pool.parameters(), lr=abs(lr), maximize=lr < 0)
    x = noise(4, 3, 20, dtype=torch.float32)
    most = math.inf if alpha_max is None else alpha_max
    for _ in range(3):
        optimizer.zero_grad()
        pool(x).sum().backward()
        optimizer.step()
        assert bool((pool(x) == pool(x)).all()), "usable before it is projected"
        pool.project_()
        alpha = pool.alpha.detach()
        assert bool(((alpha >= 0) & (alpha <= most)).all())
        assert_close(pool(x), AutoPool(alpha=0.0 if lr > 0 else most)(x), 1e-2)
    assert pool.alpha.requires_grad and pool.alpha.is_leaf


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("lr", [1e30, 1e6, 1e3, -1e3, -1e6, -1e30])
def test_p_stays_in_its_range_after_huge_steps(channels: int | None, lr: float) -> None:
    pool = GeMPool(channels)
    optimizer = torch.optim.SGD(pool.parameters(), lr=abs(lr), maximize=lr < 0)
    x = noise(4, 3, 20, dtype=torch.float32).abs()
    for _ in range(3):
        optimizer.zero_grad()
        pool(x).sum().backward()
        optimizer.step()
        assert bool((pool(x) == pool(x)).all()), "usable before it is projected"
        pool.project_()
        p = pool.p.detach()
        assert bool((p >= 1).all())
        assert_close(pool(x), GeMPool(p=1.0 if lr > 0 else math.inf)(x), 1e-1)
    assert pool.p.requires_grad and pool.p.is_leaf


@pytest.mark.parametrize(
    ("alpha", "counts_as"), [(-1e-3, 0.0), (-3e38, 0.0), (-math.inf, 0.0), (5.0, 4.0), (3e38, 4.0), (math.inf, 4.0)]
)
@pytest.mark.parametrize("channels", [None, 3])
def test_alpha_out_of_range_counts_as_its_bound_until_projected(
    alpha: float, counts_as: float, channels: int | None
) -> None:
    x = noise(2, 3, 10)
    pool, bounded = AutoPool(channels, alpha_max=4.0), AutoPool(channels, alpha=counts_as, alpha_max=4.0)
    pool.alpha.data.fill_(alpha)
    for module in (Whole(pool), InPieces(pool)):
        y = module(x)
        assert_close(y, bounded(x), 1e-12)
        (got,) = torch.autograd.grad(y.sum(), pool.alpha)
        (expected,) = torch.autograd.grad(bounded(x).sum(), bounded.alpha)
        if math.isfinite(alpha):  # a clamp that stops the gradient would keep alpha out there for good
            assert_close(got, expected, 1e-6)
            assert bool((expected != 0).all())
        assert not bool(got.isnan().any())
    pool.project_()
    assert bool((pool.alpha == counts_as).all())


@pytest.mark.parametrize("p", [0.999, 0.0, -3.0, -3e38, -math.inf])
@pytest.mark.parametrize("channels", [None, 3])
def test_p_out_of_range_counts_as_1_until_projected(p: float, channels: int | None) -> None:
    x = noise(2, 3, 10).abs() + 0.1
    pool, bounded = GeMPool(channels), GeMPool(channels, p=1.0)
    pool.p.data.fill_(p)
    for module in (Whole(pool), InPieces(pool)):
        y = module(x)
        assert_close(y, bounded(x), 1e-12)
        (got,) = torch.autograd.grad(y.sum(), pool.p)
        (expected,) = torch.autograd.grad(bounded(x).sum(), bounded.p)
        if math.isfinite(p):
            assert_close(got, expected, 1e-6)
            assert bool((expected != 0).all())
        assert not bool(got.isnan().any())
    pool.project_()
    assert bool((pool.p == 1).all())


@every_case
def test_project_leaves_values_in_range_alone(case: Case) -> None:
    pool = case.build(3)
    before = [parameter.detach().clone() for parameter in pool.parameters()]
    pool.project_()
    assert all(torch.equal(a, b) for a, b in zip(before, pool.parameters(), strict=True))


# --- penalty ------------------------------------------------------------------------------------------------------


@every_case
def test_penalty_is_a_scalar_and_zero_unless_asked_for(case: Case) -> None:
    penalty = case.build(3).penalty()
    assert penalty.shape == ()
    if case.name != "cap":
        assert float(penalty.detach()) == 0.0  # at alpha = inf too: 0 · inf would be NaN


@pytest.mark.parametrize("channels", [None, 3])
def test_penalty_is_lambda_times_the_squared_norm(channels: int | None) -> None:
    pool = AutoPool(channels, alpha_l2=0.25)
    values = torch.tensor([1.0, 2.0, 3.0]) if channels else torch.tensor(3.0)
    pool.alpha.data.copy_(values)
    penalty = pool.penalty()
    assert float(penalty.detach()) == 0.25 * float(values.square().sum())
    (grad,) = torch.autograd.grad(penalty, pool.alpha)
    assert torch.equal(grad, 0.5 * values)


# --- loading ------------------------------------------------------------------------------------------------------


@every_case
def test_state_dict_round_trip(case: Case) -> None:
    pool = case.build(3)
    if isinstance(pool, SCORED):
        nn.init.normal_(pool.scorer.weight, generator=torch.Generator().manual_seed(5))
    buffer = io.BytesIO()
    torch.save(pool.state_dict(), buffer)
    buffer.seek(0)
    other = type(pool)(3) if any(p.dim() for p in pool.parameters()) else type(pool)()
    other.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    x = noise(2, 3, 9)
    assert torch.equal(other(x), pool(x))
    assert set(pool.state_dict()) == {name for name, _ in pool.named_parameters()}


@every_case
def test_train_and_eval_are_the_same(case: Case) -> None:
    pool, x = case.build(3), noise(2, 3, 9)
    assert torch.equal(pool.train()(x), pool.eval()(x))
