"""Both probes are what scikit-learn says, but where its rules leave something open."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from poolembed.evaluate import probes
from poolembed.evaluate.probes import linear_probe, nearest_neighbours

quick = settings(max_examples=25)


def clouds(seed: int, clips: int = 60, labels: int = 4, size: int = 6) -> tuple[NDArray[Any], NDArray[Any]]:
    random = np.random.default_rng(seed)
    true = np.concatenate([np.arange(labels), random.integers(0, labels, clips - labels)])
    return (random.standard_normal((labels, size))[true] + random.standard_normal((clips, size))) * 7 + 3, true


class TestNearestNeighbours:
    @quick
    @given(st.integers(0, 1000), st.sampled_from([1, 2, 5, 100]))
    def test_votes_are_those_of_scikit_learn(self, seed: int, k: int) -> None:
        vectors, true = clouds(seed)
        train, test, known = vectors[:40], vectors[40:], true[:40]
        scores = nearest_neighbours(train, known, test, 4, k=k)
        voters = min(k, 40)
        reference = KNeighborsClassifier(voters, metric="cosine", algorithm="brute").fit(train, known)
        votes = np.round(reference.predict_proba(test) * voters)
        np.testing.assert_array_equal(np.floor(scores * (voters + 1) + 1e-9), votes)
        assert ((scores >= 0) & (scores <= 1)).all()
        np.testing.assert_array_equal(scores >= 0.5, votes > voters / 2)

    def test_among_equal_votes_the_nearer_win(self) -> None:
        train = np.array([[1, 0.5], [1, -0.1], [1, 0.1], [1, -0.6]])
        scores = nearest_neighbours(train, np.array([0, 1, 1, 0]), np.array([[1.0, 0]]), 2, k=4)
        assert scores.argmax() == 1
        scores = nearest_neighbours(train, np.array([1, 0, 0, 1]), np.array([[1.0, 0]]), 2, k=4)
        assert scores.argmax() == 0

    def test_several_labels_are_each_voted_for(self) -> None:
        vectors, true = clouds(0)
        several = (np.arange(4) == true[:, None]) | (np.arange(4) == (true[:, None] + 1) % 4)
        scores = nearest_neighbours(vectors, several, vectors, 4)
        alone = [nearest_neighbours(vectors, several[:, k].astype(int), vectors, 2)[:, 1] for k in range(4)]
        np.testing.assert_allclose(scores, np.stack(alone, axis=1), rtol=1e-12)

    def test_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        vectors, true = clouds(0)
        whole = nearest_neighbours(vectors, true, vectors, 4)
        monkeypatch.setattr(probes, "_BLOCK", 180)
        np.testing.assert_allclose(nearest_neighbours(vectors, true, vectors, 4), whole, rtol=1e-12)


class TestLinearProbe:
    @quick
    @given(st.integers(0, 1000), st.integers(2, 4))
    def test_it_is_a_regression_on_standardised_vectors(self, seed: int, labels: int) -> None:
        vectors, true = clouds(seed, labels=labels)
        train, test, known = vectors[:40], vectors[40:], true[:40]
        probe = linear_probe(train, known, test, labels)
        reference = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000)).fit(train, known)
        np.testing.assert_allclose(probe.scores, reference.predict_proba(test), rtol=0, atol=1e-6)
        assert (probe.fits, probe.unfinished) == (1, 0)

    def test_what_is_tested_does_not_move_the_scale(self) -> None:
        vectors, true = clouds(1)
        train, test, known = vectors[:40], vectors[40:], true[:40]
        one = linear_probe(train, known, test[:1], 4).scores
        odd = linear_probe(train, known, np.concatenate([test[:1], 1e6 * test[1:]]), 4).scores
        np.testing.assert_allclose(one[0], odd[0], rtol=1e-9)  # blas rounds by the number of rows

    def test_shift_and_scale_do_not_matter(self) -> None:
        vectors, true = clouds(2)
        moved = vectors * np.linspace(0.01, 100, vectors.shape[1]) + 5
        found, expected = (linear_probe(each[:40], true[:40], each[40:], 4).scores for each in (moved, vectors))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)

    def test_labels_that_are_not_taught_have_no_probability(self) -> None:
        vectors, true = clouds(3)
        known = np.where(true[:40] == 1, 2, true[:40])
        scores = linear_probe(vectors[:40], known, vectors[40:], 6).scores
        assert scores.shape == (20, 6)
        assert not scores[:, [1, 4, 5]].any()
        np.testing.assert_allclose(scores.sum(1), 1)

    def test_several_labels_are_a_regression_each(self) -> None:
        vectors, true = clouds(4)
        several = np.stack([true == 0, true < 2, true >= 0, true > 9], axis=1)  # the last two: always, never
        train, test, known = vectors[:40], vectors[40:], several[:40]
        probe = linear_probe(train, known, test, 4)
        for label in (0, 1):
            alone = linear_probe(train, known[:, label].astype(np.int64), test, 2)
            np.testing.assert_allclose(probe.scores[:, label], alone.scores[:, 1], rtol=0, atol=1e-9)
        np.testing.assert_array_equal(probe.scores[:, 2:], np.tile([1.0, 0.0], (20, 1)))
        assert probe.fits == 2

    def test_what_did_not_converge_is_counted_and_not_warned_of(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(probes, "ITERATIONS", 2)
        vectors, true = clouds(5)
        assert linear_probe(vectors, true, vectors, 4).unfinished == 1
        assert linear_probe(vectors, np.arange(3) == true[:, None], vectors, 3).unfinished == 3

    def test_a_number_that_never_changes(self) -> None:
        vectors, true = clouds(6)
        still = np.concatenate([vectors, np.full((60, 1), 3.0)], axis=1)
        found, expected = (linear_probe(each, true, each, 4).scores for each in (still, vectors))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
