"""Bootstrap: whole groups are drawn, as many as there are, and the interval is as wide as theory says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from poolembed.evaluate import bootstrap as module
from poolembed.evaluate.bootstrap import bootstrap, resamples
from poolembed.evaluate.metrics import Floats


def mean_of(values: Floats) -> Any:
    return lambda weights: (weights @ values / weights.sum(1))[:, None]


@settings(max_examples=50)
@given(hnp.arrays(np.int64, st.integers(1, 20), elements=st.integers(-3, 5)), st.integers(0, 9))
def test_whole_groups_are_drawn(groups: Any, seed: int) -> None:
    (weights,) = resamples(groups, 7, seed)
    assert weights.shape == (7, len(groups))
    numbers, first = np.unique(groups, return_index=True)
    for number in numbers:
        assert (np.ptp(weights[:, groups == number], axis=1) == 0).all()
    np.testing.assert_array_equal(weights[:, first].sum(1), len(numbers))


def test_the_same_seed_draws_the_same_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.arange(30) // 2
    (whole,) = resamples(groups, 10, 3)
    monkeypatch.setattr(module, "_BLOCK", 100)
    blocks = list(resamples(groups, 10, 3))
    assert len(blocks) == 4
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    assert (np.concatenate(list(resamples(groups, 10, 4))) != whole).any()


def test_the_interval_of_a_mean_is_that_of_the_central_limit() -> None:
    values = np.random.default_rng(0).standard_normal(400)
    (low, high) = bootstrap(mean_of(values), np.arange(400))[0]
    error = values.std() / np.sqrt(400)
    # With 1000 samples the ends are off by about 0.08 standard errors (one standard deviation).
    assert (low - values.mean()) / error == pytest.approx(-1.96, abs=0.3)
    assert (high - values.mean()) / error == pytest.approx(1.96, abs=0.3)


def test_clips_of_a_group_are_one_piece_of_evidence() -> None:
    values = np.random.default_rng(0).standard_normal(50)
    alone = bootstrap(mean_of(values), np.arange(50))
    tenfold = bootstrap(mean_of(np.repeat(values, 10)), np.repeat(np.arange(50), 10))
    np.testing.assert_allclose(tenfold, alone, rtol=1e-12)
    taken_apart = bootstrap(mean_of(np.repeat(values, 10)), np.arange(500))[0]
    assert np.ptp(taken_apart) < np.ptp(alone[0]) / 2


def test_many_scores_at_once_and_samples_without_one() -> None:
    values = np.array([1.0, 2, 3, 4])

    def statistics(weights: Floats) -> Floats:
        mean = weights @ values / weights.sum(1)
        return np.stack([mean, np.where(weights[:, 0] > 0, mean, np.nan), np.full(len(mean), np.nan)], axis=1)

    intervals = bootstrap(statistics, np.arange(4))
    assert intervals.shape == (3, 2)
    assert intervals[0, 0] <= 2.5 <= intervals[0, 1]
    assert intervals[1, 1] < intervals[0, 1]  # the smallest value is in every sample that counts
    assert np.isnan(intervals[2]).all()


def test_one_group_has_no_interval() -> None:
    assert np.isnan(bootstrap(mean_of(np.arange(5.0)), np.zeros(5, np.int64))).all()
