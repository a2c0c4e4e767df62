"""Every pooling is its equation: identities first, then the written equation, then what holds for all of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from poolembed.nn.pooling import AttentionPool, AutoPool, GeMPool, MaxPool, MeanPool, SoftmaxPool
from poolembed.nn.statistics import AttentiveStatisticsPool, MeanMaxPool
from tests.nn import reference
from tests.nn.poolings import (
    CASES,
    SCORED,
    Case,
    alphas,
    assert_close,
    attention,
    bound,
    double,
    frames,
    levels,
    noise,
    of_equal_frames,
    powers,
    quick,
    statistics,
    thorough,
)

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

# --- identities ---------------------------------------------------------------------------------------------------


@thorough
@given(frames(), st.booleans())
def test_alpha_0_is_the_mean_exactly(x: Tensor, per_channel: bool) -> None:
    pool = AutoPool(x.shape[1] if per_channel else None, alpha=0.0)
    assert torch.equal(pool(x), MeanPool()(x))
    assert torch.equal(pool(x.float()), MeanPool()(x.float()))


@thorough
@given(frames(), st.booleans())
def test_alpha_1_is_softmax_pooling(x: Tensor, per_channel: bool) -> None:
    pool = AutoPool(x.shape[1] if per_channel else None, alpha=1.0)
    assert_close(pool(x), SoftmaxPool()(x), bound(pool, x))
    assert_close(pool(x), (x * x.softmax(-1)).sum(-1), bound(pool, x))


@thorough
@given(frames(), st.booleans())
def test_alpha_inf_is_the_max_exactly(x: Tensor, per_channel: bool) -> None:
    pool = AutoPool(x.shape[1] if per_channel else None, alpha=math.inf)
    assert torch.equal(pool(x), x.amax(-1))
    assert torch.equal(MaxPool()(x), x.amax(-1))


@thorough
@given(frames(), st.floats(1, 1e6, width=32))
def test_large_alpha_nears_the_max(x: Tensor, alpha: float) -> None:
    # The entropy of the weights is at most log T, so max - y <= log(T) / alpha.
    pool = AutoPool(alpha=alpha)
    gap = MaxPool()(x) - pool(x).detach()
    assert float(gap.min()) >= -bound(pool, x)
    assert float(gap.max()) <= math.log(x.shape[-1]) / alpha + bound(pool, x)


@thorough
@given(frames(low=2.0**-16), st.booleans())
def test_p_1_is_the_mean(x: Tensor, per_channel: bool) -> None:
    pool = GeMPool(x.shape[1] if per_channel else None, p=1.0)
    assert_close(pool(x), MeanPool()(x), bound(pool, x))


@thorough
@given(frames(), st.booleans(), st.sampled_from([1e-6, 0.5]))
def test_p_inf_is_the_max_of_the_clamped_frames_exactly(x: Tensor, per_channel: bool, eps: float) -> None:
    pool = GeMPool(x.shape[1] if per_channel else None, p=math.inf, eps=eps)
    assert torch.equal(pool(x), x.clamp_min(eps).amax(-1))


@thorough
@given(frames(low=0.0), st.floats(1, 1e6, width=32))
def test_large_p_nears_the_max(x: Tensor, p: float) -> None:
    # The largest of n terms is at least their sum over n: y >= max / n^(1/p).
    pool = GeMPool(p=p)
    most = x.clamp_min(pool.eps).amax(-1)
    least = most * x.shape[-1] ** (-1 / p)
    assert bool((pool(x) <= most + bound(pool, x)).all())
    assert bool((pool(x) >= least - bound(pool, x)).all())


@thorough
@given(frames())
def test_zero_scorer_is_the_mean(x: Tensor) -> None:
    pool = attention(x.shape[1])
    for parameter in pool.parameters():
        parameter.data.zero_()
    assert torch.equal(pool(x), MeanPool()(x))
    assert torch.equal(AttentionPool(x.shape[1])(x), MeanPool()(x)), "training starts at the mean"


@thorough
@given(frames())
def test_mean_max_is_both(x: Tensor) -> None:
    assert torch.equal(MeanMaxPool()(x), torch.cat([MeanPool()(x), MaxPool()(x)], dim=1))


@thorough
@given(frames())
def test_zero_scorer_is_mean_and_standard_deviation(x: Tensor) -> None:
    pool = AttentiveStatisticsPool(x.shape[1])
    average, deviation = pool(x).chunk(2, dim=1)
    assert torch.equal(average, MeanPool()(x))
    expected = x.var(-1, correction=0).clamp_min(pool.eps).sqrt()
    assert_close(deviation, expected, bound(pool, x))


@thorough
@given(frames())
def test_the_mean_of_attentive_statistics_is_attention(x: Tensor) -> None:
    pool, alone = statistics(x.shape[1]), attention(x.shape[1])
    assert torch.equal(pool(x).chunk(2, dim=1)[0], alone(x))


@thorough
@given(frames(), st.floats(-50, 50, width=32), st.floats(0.125, 8, width=32))
def test_deviation_is_blind_to_a_shift_and_grows_with_a_scale(x: Tensor, shift: float, scale: float) -> None:
    pool = AttentiveStatisticsPool(x.shape[1], eps=1e-30)
    deviation, moved = pool(x).chunk(2, dim=1)[1], pool(x * scale + shift).chunk(2, dim=1)[1]
    # Errors of both sides, and at most 3 roundings in scaling and shifting. The least deviation stays where it is while
    # what it stands for is scaled: |max(scale d, least) - scale max(d, least)| <= |scale - 1| least.
    allowed = 3 * bound(pool, x.abs() * scale + abs(shift)) + abs(scale - 1) * pool.eps**0.5
    assert_close(moved, deviation * scale, allowed)


@pytest.mark.parametrize("eps", [0.0, -1.0, math.inf, math.nan])
def test_least_variance_out_of_range_is_refused(eps: float) -> None:
    with pytest.raises(ValueError, match="eps"):
        AttentiveStatisticsPool(3, eps=eps)


@every_case
@quick
@given(x=frames(low=2.0**-16, max_time=1))
def test_one_frame_is_itself_exactly(case: Case, x: Tensor) -> None:
    pool = case.build(x.shape[1])
    assert torch.equal(pool(x), of_equal_frames(pool, x.squeeze(-1)))


@every_case
@quick
@given(x=frames(low=2.0**-16, max_time=1), times=st.integers(2, 50))
def test_constant_is_itself(case: Case, x: Tensor, times: int) -> None:
    repeated = x.expand(-1, -1, times)
    pool = case.build(x.shape[1])
    assert_close(pool(repeated), of_equal_frames(pool, x.squeeze(-1)), bound(pool, repeated))


# --- the written equation -----------------------------------------------------------------------------------------


@every_case
@quick
@given(x=frames())
def test_equation(case: Case, x: Tensor) -> None:
    pool = case.build(x.shape[1])
    assert_close(pool(x), case.reference(pool, x), bound(pool, x))


@thorough
@given(frames(), st.lists(alphas, min_size=3, max_size=3))
def test_autopool_equation_at_any_alpha(x: Tensor, alpha: list[float]) -> None:
    pool = AutoPool(x.shape[1])
    pool.alpha.data = torch.tensor(alpha[: x.shape[1]])
    expected = np.stack([reference.autopool(song, double(pool.alpha)) for song in x.numpy()])
    assert_close(pool(x), torch.from_numpy(expected), bound(pool, x))


@thorough
@given(frames(), st.lists(powers, min_size=3, max_size=3), st.sampled_from([1e-6, 1e-3, 1.0]))
def test_gem_equation_at_any_p(x: Tensor, p: list[float], eps: float) -> None:
    pool = GeMPool(x.shape[1], eps=eps)
    pool.p.data = torch.tensor(p[: x.shape[1]])
    expected = np.stack([reference.gem(song, double(pool.p), eps) for song in x.numpy()])
    assert_close(pool(x), torch.from_numpy(expected), bound(pool, x))


@thorough
@given(frames(), st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4))
def test_attention_equation_at_any_scorer(x: Tensor, values: list[float]) -> None:
    pool = AttentionPool(x.shape[1])
    pool.scorer.weight.data = torch.tensor(values[: x.shape[1]]).view(pool.scorer.weight.shape)
    for bias in (parameter for parameter in pool.parameters() if parameter is not pool.scorer.weight):
        bias.data.fill_(values[-1])
    weight = double(pool.scorer.weight).reshape(-1)
    expected = np.stack([reference.attention(song, weight, values[-1]) for song in x.numpy()])
    assert_close(pool(x), torch.from_numpy(expected), bound(pool, x))


# Half precision frames are raised to float32 without loss, so they owe the equation over *these* frames the accuracy
# of float32: a reduction in half precision would be off by 2^-11 (float16) or 2^-8 (bfloat16).
@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@quick
@given(x=frames())
def test_equation_in_lower_precision(case: Case, dtype: torch.dtype, x: Tensor) -> None:
    x = x.to(dtype)
    pool = case.build(x.shape[1])
    y = pool(x)
    assert y.dtype == torch.float32
    assert_close(y, case.reference(pool, x), bound(pool, x))


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_equation_over_a_long_song(case: Case, dtype: torch.dtype) -> None:
    # 20 000 frames: a float16 count overflows, a bfloat16 sum stops growing. The bound for a sum of T terms is the
    # worst case of adding one by one; torch adds in a tree, so T is replaced by 2 log2 T.
    x = noise(2, 3, 20_000, scale=2.0).abs().to(dtype)
    pool = case.build(3)
    short = noise(1, 3, round(2 * math.log2(x.shape[-1])), scale=0.0)
    short[0, 0, 0] = x.max()
    assert_close(pool(x), case.reference(pool, x), bound(pool, short.to(dtype)) + bound(pool, short[..., :1].float()))


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_state_and_output_dtype(case: Case, dtype: torch.dtype) -> None:
    x = noise(2, 3, 7, dtype=dtype)
    mask = torch.ones(2, 7, dtype=torch.bool)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    pool = case.build(3)
    for given_mask in (None, mask):
        state = pool.fold(x, given_mask)
        assert pool(x, given_mask).dtype == wide
        assert pool(x, given_mask).shape == (2, 3 * pool.outputs)
        assert {(tensor.dtype, tensor.shape) for tensor in state} == {(wide, (2, 3))}
        assert {(tensor.dtype, tensor.shape) for tensor in pool.merge(state, state)} == {(wide, (2, 3))}


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("amp", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(case: Case, dtype: torch.dtype, amp: torch.dtype) -> None:
    x = noise(2, 3, 50, dtype=dtype, scale=5.0)
    pool = case.build(3)
    plain = pool(x)
    with torch.autocast("cpu", dtype=amp):
        cast = pool(x)
        merged = pool.finalize(pool.merge(pool.fold(x[..., :20]), pool.fold(x[..., 20:])))
    assert cast.dtype == merged.dtype == torch.float32
    assert torch.equal(cast, plain)
    assert_close(merged, plain, bound(pool, x))


# --- what holds for all of them -----------------------------------------------------------------------------------


@every_case
@quick
@given(x=frames(), data=st.data())
def test_permutation_of_the_frames_changes_nothing(case: Case, x: Tensor, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(x.shape[-1])))
    pool = case.build(x.shape[1])
    assert_close(pool(x[..., order]), pool(x), bound(pool, x))


@every_case
@quick
@given(x=frames(low=2.0**-16))
def test_between_the_smallest_and_the_largest_frame(case: Case, x: Tensor) -> None:
    pool = case.build(x.shape[1])
    y, slack = levels(pool, pool(x)), bound(pool, x)
    low, middle, high = (each.unsqueeze(1) for each in (x.amin(-1), x.mean(-1), x.amax(-1)))
    assert bool((y <= high + slack).all())
    assert bool((y >= low - slack).all())
    if not isinstance(pool, SCORED):  # weights that grow with the frames: never below the mean
        assert bool((y >= middle - slack).all())


@thorough
@given(frames(), alphas, alphas)
def test_autopool_grows_with_alpha(x: Tensor, one: float, other: float) -> None:
    low, high = AutoPool(alpha=min(one, other)), AutoPool(alpha=max(one, other))
    assert bool((high(x) >= low(x) - bound(low, x)).all())


@thorough
@given(frames(), powers, powers)
def test_gem_grows_with_p(x: Tensor, one: float, other: float) -> None:
    low, high = GeMPool(p=min(one, other)), GeMPool(p=max(one, other))
    assert bool((high(x) >= low(x) - bound(low, x)).all())


@every_case
@quick
@given(x=frames(), data=st.data())
def test_other_rows_of_the_batch_do_not_matter(case: Case, x: Tensor, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, x.shape[0] - 1))
    pool = case.build(x.shape[1])
    assert_close(pool(x)[row : row + 1], pool(x[row : row + 1]), bound(pool, x))


@every_case
def test_memory_layout_does_not_matter(case: Case) -> None:
    x = noise(3, 4, 33)
    pool = case.build(4)
    turned = x.transpose(1, 2).contiguous().transpose(1, 2)
    strided = x.repeat_interleave(2, dim=-1)[..., ::2]
    for other in (turned, strided):
        assert not other.is_contiguous()
        assert_close(pool(other), pool(x), bound(pool, x))


@every_case
def test_input_is_left_alone(case: Case) -> None:
    x, mask = noise(2, 3, 9), torch.arange(9).expand(2, 9) < 5
    before = x.clone()
    pool = case.build(3)
    pool(x, mask)
    pool(x)
    assert torch.equal(x, before)
    assert torch.equal(mask, torch.arange(9).expand(2, 9) < 5)
