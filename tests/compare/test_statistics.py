"""Intervals and paired differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from poolembed.compare.statistics import estimate, paired

VALUES = st.lists(st.floats(-1, 1), min_size=2, max_size=12)


@given(VALUES)
def test_interval_is_scipys(values: list[float]) -> None:
    found = estimate(values)
    assert found.half is not None
    deviation = np.std(values, ddof=1) / math.sqrt(len(values))
    assert math.isclose(found.mean, float(np.mean(values)), abs_tol=1e-12)
    if deviation > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=deviation)
        np.testing.assert_allclose([found.mean - found.half, found.mean + found.half], [low, high], rtol=1e-9)


def test_interval_covers_the_truth_nineteen_times_in_twenty() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        found = estimate(list(random.normal(3.0, 2.0, 5)))
        assert found.half is not None
        inside += abs(found.mean - 3.0) <= found.half
    assert 0.935 < inside / 2000 < 0.965  # three standard errors are 0.015


def test_one_value_has_no_interval() -> None:
    assert estimate([0.5]).half is None
    assert not estimate([0.5]).clear
    with pytest.raises(ValueError, match="no values"):
        estimate([])


@given(VALUES, st.floats(-0.5, 0.5))
def test_pairs_cancel_what_seeds_have_in_common(values: list[float], gain: float) -> None:
    baseline = dict(enumerate(values))
    found = paired({seed: value + gain for seed, value in baseline.items()}, baseline)
    assert found is not None
    assert math.isclose(found.mean, gain, abs_tol=1e-12)
    assert found.half is not None
    assert found.half < 1e-12


def test_only_shared_seeds_are_paired() -> None:
    found = paired({1: 0.5, 2: 0.9, 4: 0.0}, {2: 0.4, 1: 0.4, 3: 7.0})
    assert found is not None
    np.testing.assert_allclose(found.values, [0.1, 0.5])
    assert paired({1: 0.5}, {2: 0.5}) is None


def test_clear_means_that_the_interval_leaves_out_0() -> None:
    assert estimate([0.10, 0.11, 0.12]).clear
    assert estimate([-0.10, -0.11, -0.12]).clear
    assert not estimate([-0.10, 0.11, 0.12]).clear
