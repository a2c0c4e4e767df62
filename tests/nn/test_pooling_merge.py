"""Masks and merging: whatever way the frames of a song are cut, padded and put together, the result is one."""

from __future__ import annotations

import math
from functools import reduce
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from poolembed.nn.pooling import GeMPool
from tests.nn.poolings import CASES, SCORED, Case, Pool, assert_close, bound, frames, noise, quick

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

# The promise of DESIGN section 2 and of the module: equal to 1e-6 relative in float32. Relative to the largest frame
# where frames have both signs; to the result itself for frames >= 0, which is what an encoder ending in a ReLU gives.
RELATIVE = 1e-6


def blur(pool: Pool, x: Tensor) -> float:
    """What attention may be off by besides: its scores are dot products, rounded in the order that the shape brings."""
    return bound(pool, x) if isinstance(pool, SCORED) else 0.0


def pieces(x: Tensor, cuts: list[int]) -> list[Tensor]:
    """`x` cut along time; equal neighbouring cuts make pieces of no frames."""
    edges = [0, *sorted(cuts), x.shape[-1]]
    return [x[..., start:end] for start, end in pairwise(edges)]


def merged(pool: Pool, parts: list[Tensor]) -> Any:
    return reduce(pool.merge, [pool.fold(part) for part in parts])


def cuts_of(data: st.DataObject, x: Tensor) -> list[int]:
    return data.draw(st.lists(st.integers(0, x.shape[-1]), max_size=5))


def row(state: Any, i: int) -> Any:
    return type(state)(*(tensor[i : i + 1] for tensor in state))


# --- masks --------------------------------------------------------------------------------------------------------


@every_case
@quick
@given(x=frames(), data=st.data())
def test_mask_is_a_slice_whatever_the_padding_holds(case: Case, x: Tensor, data: st.DataObject) -> None:
    pool = case.build(x.shape[1])
    lengths = [data.draw(st.integers(1, x.shape[-1])) for _ in x]
    mask = torch.arange(x.shape[-1]) < torch.tensor(lengths).unsqueeze(1)
    slices = [pool(x[i : i + 1, :, :n]) for i, n in enumerate(lengths)]
    for padding in (1e30, math.nan, math.inf, -math.inf):
        y = pool(torch.where(mask.unsqueeze(1), x, padding), mask)
        assert_close(y, torch.cat(slices), bound(pool, x))


@every_case
@quick
@given(x=frames(), data=st.data())
def test_mask_with_holes(case: Case, x: Tensor, data: st.DataObject) -> None:
    pool = case.build(x.shape[1])
    flags = data.draw(st.lists(st.booleans(), min_size=x.shape[0] * x.shape[2], max_size=x.shape[0] * x.shape[2]))
    mask = torch.tensor(flags).view(x.shape[0], x.shape[2])
    mask[:, data.draw(st.integers(0, x.shape[2] - 1))] = True
    expected = case.reference(pool, x, mask)
    for padding in (0.0, math.nan):
        assert_close(pool(torch.where(mask.unsqueeze(1), x, padding), mask), expected, bound(pool, x))


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_mask_in_lower_precision(case: Case, dtype: torch.dtype) -> None:
    x = noise(4, 3, 12, dtype=dtype, scale=3.0)
    mask = torch.arange(12) < torch.tensor([[12], [1], [5], [11]])
    pool = case.build(3)
    y = pool(x.masked_fill(~mask.unsqueeze(1), math.nan), mask)
    assert y.dtype == torch.float32
    assert_close(y, case.reference(pool, x, mask), bound(pool, x))


@every_case
@quick
@given(x=frames())
def test_full_mask_is_no_mask(case: Case, x: Tensor) -> None:
    pool = case.build(x.shape[1])
    full = torch.ones(x.shape[0], x.shape[2], dtype=torch.bool)
    assert_close(pool(x, full), pool(x), bound(pool, x))


@every_case
@pytest.mark.parametrize("padding", [1e30, math.nan, math.inf, -math.inf])
def test_padding_gets_no_gradient_and_spoils_none(case: Case, padding: float) -> None:
    # The classic trap: where(mask, f(x), 0) is right forward, and 0 · NaN = NaN backward.
    pool = case.build(3).double()
    x = noise(3, 3, 8).abs() + 0.1
    mask = torch.arange(8) < torch.tensor([[8], [1], [5]])
    padded = torch.where(mask.unsqueeze(1), x, padding).requires_grad_()
    parameters = list(pool.parameters())
    weights = noise(3, 3 * pool.outputs, seed=1)
    got = torch.autograd.grad((pool(padded, mask) * weights).sum(), [padded, *parameters])
    assert bool((got[0][~mask.unsqueeze(1).expand_as(x)] == 0).all())
    expected = [torch.zeros_like(tensor) for tensor in got]
    for i, n in enumerate((8, 1, 5)):
        short = x[i : i + 1, :, :n].clone().requires_grad_()
        grads = torch.autograd.grad((pool(short) * weights[i]).sum(), [short, *parameters])
        expected[0][i : i + 1, :, :n] = grads[0]
        expected[1:] = [total + grad for total, grad in zip(expected[1:], grads[1:], strict=True)]
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b, 1e-12)


@every_case
def test_row_without_frames_is_an_error_naming_it(case: Case) -> None:
    pool = case.build(3)
    x = noise(5, 3, 4)
    mask = torch.ones(5, 4, dtype=torch.bool)
    mask[[1, 3]] = False
    with pytest.raises(ValueError, match=r"\[1, 3\]"):
        pool(x, mask)
    state = pool.fold(x, mask)
    with pytest.raises(ValueError, match=r"\[1, 3\]"):
        pool.finalize(state)
    for i in (0, 2, 4):
        assert_close(pool.finalize(row(state, i)), pool(x[i : i + 1]), bound(pool, x))


@every_case
def test_no_frames_at_all_is_an_error(case: Case) -> None:
    pool = case.build(3)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        pool(torch.zeros(2, 3, 0))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        pool(torch.zeros(2, 3, 0), torch.zeros(2, 0, dtype=torch.bool))


@every_case
def test_wrong_shapes_are_errors(case: Case) -> None:
    pool = case.build(3)
    x = noise(2, 3, 4)
    for mask in (
        torch.ones(2, 5, dtype=torch.bool),
        torch.ones(1, 4, dtype=torch.bool),
        torch.ones(4, dtype=torch.bool),
        torch.ones(2, 3, 4, dtype=torch.bool),
        torch.ones(2, 4),
        torch.ones(2, 4, dtype=torch.long),
    ):
        with pytest.raises(ValueError, match="mask"):
            pool(x, mask)
    for wrong in (x[0], x.unsqueeze(0)):
        with pytest.raises(ValueError, match="frames"):
            pool(wrong)
    if any(parameter.numel() > 1 for parameter in pool.parameters()):
        for channels in (1, 2, 4):
            with pytest.raises(ValueError, match="channels"):
                pool(noise(2, channels, 4))


# --- merging ------------------------------------------------------------------------------------------------------


@every_case
@quick
@given(x=frames(low=0.0, dtype=torch.float32), data=st.data())
def test_any_partition_gives_the_whole_to_1e_6_of_the_result(case: Case, x: Tensor, data: st.DataObject) -> None:
    pool = case.build(x.shape[1])
    whole = pool(x).double()
    y = pool.finalize(merged(pool, pieces(x, cuts_of(data, x)))).double()
    assert bool(((y - whole).abs() <= RELATIVE * whole + blur(pool, x)).all()), f"{(y - whole).abs() / whole}"


@every_case
@quick
@given(x=frames(dtype=torch.float32), data=st.data())
def test_any_partition_gives_the_whole_with_both_signs(case: Case, x: Tensor, data: st.DataObject) -> None:
    pool = case.build(x.shape[1])
    y = pool.finalize(merged(pool, pieces(x, cuts_of(data, x))))
    assert_close(y, pool(x), RELATIVE * float(x.abs().max()) + blur(pool, x))


@every_case
@pytest.mark.parametrize(
    ("time", "window", "scale"), [(64, 1, 1e4), (3000, 64, 1e-4), (3000, 64, 1e4), (3000, 2999, 1.0)]
)
def test_a_song_in_windows_is_the_song(case: Case, time: int, window: int, scale: float) -> None:
    # At most 64 states: k merges round k times, about sqrt(k)·u = 5e-7 where the roundings are independent. (Merging
    # thousands of single frames, many of them equal, rounds the same way each time: 1e-5 was seen. No song does that.)
    x = (noise(1, 3, time) * scale).clamp_min(0).float()
    pool = case.build(3)
    if isinstance(pool, SCORED):
        x /= scale  # keeps the scores, and with them the rounding of the scores, near 1
    windows = list(torch.split(x, window, dim=-1))
    short = windows[-1].shape[-1]
    windows[-1] = torch.nn.functional.pad(windows[-1], (0, window - short), value=math.nan)
    masks = [torch.ones(1, window, dtype=torch.bool) for _ in windows]
    masks[-1][:, short:] = False
    y = pool.finalize(reduce(pool.merge, map(pool.fold, windows, masks)))
    whole = case.reference(pool, x)
    assert ((y.double() - whole).abs() / whole).max().item() <= RELATIVE


@every_case
@quick
@given(x=frames(dtype=torch.float32), data=st.data())
def test_merge_is_associative_and_commutative(case: Case, x: Tensor, data: st.DataObject) -> None:
    pool = case.build(x.shape[1])
    cuts = sorted(data.draw(st.lists(st.integers(0, x.shape[-1]), min_size=2, max_size=2)))
    a, b, c = (pool.fold(part) for part in pieces(x, cuts))
    atol = RELATIVE * float(x.abs().max()) + blur(pool, x)
    left = pool.finalize(pool.merge(pool.merge(a, b), c))
    assert_close(pool.finalize(pool.merge(a, pool.merge(b, c))), left, atol)
    assert_close(pool.finalize(pool.merge(pool.merge(c, a), b)), left, atol)
    for one, other in zip(pool.merge(a, b), pool.merge(b, a), strict=True):
        assert torch.equal(one, other), "commutative to the bit: a + b is"


@every_case
@quick
@given(x=frames(dtype=torch.float32))
def test_no_frames_is_the_neutral_element_exactly(case: Case, x: Tensor) -> None:
    pool = case.build(x.shape[1])
    state = pool.fold(x)
    nothing = pool.fold(x, torch.zeros(x.shape[0], x.shape[2], dtype=torch.bool))
    for neutral in (nothing, pool.fold(x[..., :0]), pool.merge(nothing, nothing)):
        assert not any(bool(tensor.isnan().any()) for tensor in neutral)
        assert torch.equal(pool.finalize(pool.merge(state, neutral)), pool.finalize(state))
        assert torch.equal(pool.finalize(pool.merge(neutral, state)), pool.finalize(state))
        with pytest.raises(ValueError, match=r"0"):
            pool.finalize(neutral)


@every_case
def test_rows_of_states_can_be_taken_apart_and_stacked(case: Case) -> None:
    # Windows of different songs share a batch: each song's states are rows of different batches.
    pool = case.build(3)
    songs = noise(3, 3, 8, scale=3.0)
    first = pool.fold(torch.cat([songs[:2, :, :4], songs[1:2, :, 4:]]))  # song 0 start, song 1 start, song 1 end
    second = pool.fold(torch.cat([songs[2:, :, :4], songs[:1, :, 4:], songs[2:, :, 4:]]))
    state = type(first)(*(torch.cat(rows) for rows in zip(row(first, 0), row(first, 1), row(second, 0), strict=True)))
    rest = type(first)(*(torch.cat(rows) for rows in zip(row(second, 1), row(first, 2), row(second, 2), strict=True)))
    assert_close(pool.finalize(pool.merge(state, rest)), pool(songs), bound(pool, songs))


@every_case
def test_fold_then_finalize_is_the_call(case: Case) -> None:
    pool = case.build(3)
    x, mask = noise(2, 3, 9, dtype=torch.float32), torch.arange(9) < torch.tensor([[4], [9]])
    assert torch.equal(pool(x), pool.finalize(pool.fold(x)))
    assert torch.equal(pool(x, mask), pool.finalize(pool.fold(x, mask)))


@every_case
def test_float32_states_can_be_merged_in_float64(case: Case) -> None:
    # What the embedding engine does: parameters stay float32, and merging adds no rounding worth naming.
    pool = case.build(3)
    x = noise(1, 3, 64, dtype=torch.float32).abs()
    states = [pool.fold(frame) for frame in torch.split(x, 1, dim=-1)]
    states = [type(state)(*(tensor.double() for tensor in state)) for state in states]
    y = pool.finalize(reduce(pool.merge, states))
    assert y.dtype == torch.float64
    whole = case.reference(pool, x)
    assert ((y - whole).abs() / whole).max().item() <= RELATIVE * (0.5 if isinstance(pool, SCORED) else 1e-6)


@every_case
@pytest.mark.parametrize("low", [1e-6, 1e3])
def test_windows_far_apart_in_level(case: Case, low: float) -> None:
    # A silent window and a loud one: the silent one's weights vanish beside the loud one's without a NaN.
    pool = case.build(2)
    if isinstance(pool, SCORED):
        pool = pool.double()  # scores of 1e4 are rounded to 1e-3 in float32: not what this test is about
    x = torch.cat([torch.full((1, 2, 5), low), torch.full((1, 2, 3), 1e4)], dim=-1)
    x = x.double() if isinstance(pool, SCORED) else x
    for cuts in ([5], [3], [0, 5, 8]):
        y = pool.finalize(merged(pool, pieces(x, cuts)))
        assert_close(y, case.reference(pool, x), 1e-6 * 1e4)


def test_gem_clamps_before_it_merges() -> None:
    pool = GeMPool(p=2.0, eps=1.0)
    x = torch.tensor([[[-5.0, 0.0, 0.5, 2.0]]])
    y = pool.finalize(merged(pool, pieces(x, [3])))
    assert y.item() == pytest.approx(math.sqrt((1 + 1 + 1 + 4) / 4), rel=1e-6)
