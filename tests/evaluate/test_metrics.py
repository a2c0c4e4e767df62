"""Metrics: identities first, then scikit-learn, then what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn import metrics as sk

from poolembed.evaluate import metrics

# Few distinct scores, so that ties are common; multiples of 1/8, so that sums of them are exact.
values = st.integers(-8, 8).map(lambda eighths: eighths / 8)

quick = settings(max_examples=40)


@st.composite
def single(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    clips, labels = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    true = draw(hnp.arrays(np.int64, clips, elements=st.integers(0, labels - 1)))
    return true, draw(hnp.arrays(np.float64, (clips, labels), elements=values))


@st.composite
def several(draw: st.DrawFn) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    shape = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    return draw(hnp.arrays(np.bool_, shape)), draw(hnp.arrays(np.float64, shape, elements=values))


def weights_for(clips: int, seed: int = 0, rows: int = 4) -> NDArray[np.float64]:
    """Whole numbers, some of them 0, with at least one clip left in every row."""
    weights = np.random.default_rng(seed).integers(0, 3, (rows, clips)).astype(np.float64)
    weights[:, 0] += 1
    return weights


def one_hot(true: NDArray[Any], labels: int) -> NDArray[np.bool_]:
    hot: NDArray[np.bool_] = np.arange(labels) == true[:, None]
    return hot


class TestIdentities:
    @quick
    @given(single())
    def test_scores_that_are_the_labels_are_perfect(self, clips: Any) -> None:
        true, scores = clips
        perfect = one_hot(true, scores.shape[1]).astype(float)
        assert metrics.accuracy(true, perfect) == 1
        assert metrics.macro_f1(true, perfect) == 1
        assert metrics.mean_average_precision(true, perfect) == 1

    @quick
    @given(single())
    def test_accuracy_is_the_diagonal(self, clips: Any) -> None:
        table = metrics.confusion(*clips)
        assert table.dtype == np.int64
        assert table.sum() == len(clips[0])
        assert metrics.accuracy(*clips) == pytest.approx(np.trace(table) / table.sum())

    @quick
    @given(single())
    def test_per_class_is_what_the_confusion_matrix_says(self, clips: Any) -> None:
        true, scores = clips
        table = metrics.confusion(true, scores)
        names = [f"label {k}" for k in range(scores.shape[1])]
        found = metrics.per_class(true, scores, names)
        assert [each.label for each in found] == names
        for k, each in enumerate(found):
            hits, row, column = table[k, k], table[k].sum(), table[:, k].sum()
            assert each.clips == row
            assert each.precision == (pytest.approx(hits / column) if column else 0)
            assert each.recall == (pytest.approx(hits / row) if row else None)
            assert each.f1 == (pytest.approx(2 * hits / (row + column)) if row else None)
            assert (each.average_precision is None) == (row == 0)
        f1 = [each.f1 for each in found if each.f1 is not None]
        assert metrics.macro_f1(true, scores) == pytest.approx(np.mean(f1))

    @quick
    @given(single() | several())
    def test_the_means_are_those_of_per_class(self, clips: Any) -> None:
        true, scores = clips
        found = metrics.per_class(true, scores, [str(k) for k in range(scores.shape[1])])
        for mean, name in ((metrics.macro_f1, "f1"), (metrics.mean_average_precision, "average_precision")):
            each = [getattr(label, name) for label in found if label.clips]
            assert mean(true, scores) == pytest.approx(np.mean(each) if each else np.nan, nan_ok=True)

    @quick
    @given(single())
    def test_one_label_a_clip_is_several_labels_of_which_there_is_one(self, clips: Any) -> None:
        true, scores = clips
        both = one_hot(true, scores.shape[1])
        assert metrics.mean_average_precision(true, scores) == metrics.mean_average_precision(both, scores)
        picked = one_hot(scores.argmax(1), scores.shape[1]).astype(float)
        assert metrics.macro_f1(true, scores) == pytest.approx(metrics.macro_f1(both, picked))

    @quick
    @given(single() | several(), st.integers(0, 100))
    def test_a_weight_of_two_is_a_clip_twice(self, clips: Any, seed: int) -> None:
        true, scores = clips
        weights = weights_for(len(true), seed)
        pairs = [
            (metrics.weighted_macro_f1, metrics.macro_f1),
            (metrics.weighted_mean_average_precision, metrics.mean_average_precision),
        ]
        if true.ndim == 1:
            pairs.append((metrics.weighted_accuracy, metrics.accuracy))
        for weighted, plain in pairs:
            repeated = [np.repeat(np.arange(len(true)), row.astype(int)) for row in weights]
            expected = [plain(true[rows], scores[rows]) for rows in repeated]
            np.testing.assert_allclose(weighted(true, scores, weights), expected, rtol=1e-12)

    def test_blocks_are_put_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        random = np.random.default_rng(0)
        true, scores, weights = random.random((9, 3)) < 0.4, random.random((9, 3)), weights_for(9, rows=7)
        whole = metrics.weighted_mean_average_precision(true, scores, weights)
        monkeypatch.setattr(metrics, "_BLOCK", 18)
        np.testing.assert_array_equal(metrics.weighted_mean_average_precision(true, scores, weights), whole)

    @quick
    @given(several())
    def test_average_precision_is_about_ranks_alone(self, clips: Any) -> None:
        true, scores = clips
        assert metrics.mean_average_precision(true, scores) == pytest.approx(
            metrics.mean_average_precision(true, np.exp(3 * scores)), nan_ok=True
        )

    @quick
    @given(several(), st.randoms(use_true_random=False))
    def test_the_order_of_the_clips_does_not_matter(self, clips: Any, random: Any) -> None:
        true, scores = clips
        order = list(range(len(true)))
        random.shuffle(order)
        for metric in (metrics.macro_f1, metrics.mean_average_precision):
            assert metric(true[order], scores[order]) == pytest.approx(metric(true, scores), nan_ok=True)

    def test_by_hand(self) -> None:
        true = np.array([0, 0, 1, 1])
        scores = np.array([[0.9, 0.1, 0], [0.2, 0.3, 0.5], [0.4, 0.6, 0], [0.5, 0.5, 0]])
        assert metrics.accuracy(true, scores) == 0.5  # the last is a tie, which the first label wins
        np.testing.assert_array_equal(metrics.confusion(true, scores), [[1, 0, 1], [1, 1, 0], [0, 0, 0]])
        # F1 is 2/4 and 2/3; the third label is no clip's
        assert metrics.macro_f1(true, scores) == pytest.approx((1 / 2 + 2 / 3) / 2)
        # ranks of label 0: hit, miss, miss, hit; of label 1: hit, hit, miss, miss
        assert metrics.mean_average_precision(true, scores) == pytest.approx(((1 + 2 / 4) / 2 + 1) / 2)


class TestScikitLearn:
    @pytest.mark.filterwarnings("ignore:A single label was found")
    @quick
    @given(single(), st.integers(0, 100))
    def test_one_label_a_clip(self, clips: Any, seed: int) -> None:
        true, scores = clips
        predicted, labels = scores.argmax(1), np.arange(scores.shape[1])
        assert metrics.accuracy(true, scores) == pytest.approx(sk.accuracy_score(true, predicted))
        np.testing.assert_array_equal(
            metrics.confusion(true, scores), sk.confusion_matrix(true, predicted, labels=labels)
        )
        for row in weights_for(len(true), seed):
            there = np.unique(true[row > 0])
            expected = sk.f1_score(true, predicted, labels=there, average="macro", sample_weight=row, zero_division=0)
            assert metrics.weighted_macro_f1(true, scores, row[None])[0] == pytest.approx(expected)
            expected = sk.accuracy_score(true, predicted, sample_weight=row)
            assert metrics.weighted_accuracy(true, scores, row[None])[0] == pytest.approx(expected)

    @quick
    @given(several(), st.integers(0, 100))
    def test_several_labels_a_clip(self, clips: Any, seed: int) -> None:
        true, scores = clips
        for row in [np.ones(len(true)), *weights_for(len(true), seed)]:
            there = np.flatnonzero(row @ true)
            each = [sk.average_precision_score(true[:, k], scores[:, k], sample_weight=row) for k in there]
            found = metrics.weighted_mean_average_precision(true, scores, row[None])[0]
            assert found == pytest.approx(np.mean(each) if each else np.nan, nan_ok=True)
            each = [sk.f1_score(true[:, k], scores[:, k] >= 0.5, sample_weight=row, zero_division=0) for k in there]
            found = metrics.weighted_macro_f1(true, scores, row[None])[0]
            assert found == pytest.approx(np.mean(each) if each else np.nan, nan_ok=True)


@pytest.mark.parametrize(
    ("true", "scores", "word"),
    [
        (np.array([0, 1]), np.array([[0.0, np.nan], [0, 0]]), "finite"),
        (np.array([0, 1]), np.array([[0.0, np.inf], [0, 0]]), "finite"),
        (np.array([0, 2]), np.zeros((2, 2)), "in \\[0, 2\\)"),
        (np.array([-1, 0]), np.zeros((2, 2)), "in \\[0, 2\\)"),
        (np.array([0, 1, 1]), np.zeros((2, 2)), "3 true labels"),
        (np.array([0.0, 1.0]), np.zeros((2, 2)), "integers"),
        (np.array([True, False]), np.zeros((2, 2)), "booleans"),
        (np.ones((2, 2), int), np.zeros((2, 2)), "booleans"),
        (np.ones((2, 3), bool), np.zeros((2, 2)), "do not go with"),
        (np.array([0, 1]), np.zeros(2), "\\(N, K\\)"),
        (np.array([0, 1]), np.zeros((2, 2), int), "floats"),
        (np.zeros(0, int), np.zeros((0, 2)), "at least 1"),
        (np.zeros(2, int), np.zeros((2, 0)), "at least 1"),
    ],
)
@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "mean_average_precision", "confusion"])
def test_what_makes_no_sense_is_refused(name: str, true: Any, scores: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        getattr(metrics, name)(true, scores)


def test_several_labels_have_no_accuracy() -> None:
    true, scores = np.ones((2, 2), bool), np.zeros((2, 2))
    for metric in (metrics.accuracy, metrics.confusion):
        with pytest.raises(ValueError, match="several labels"):
            metric(true, scores)
    with pytest.raises(ValueError, match="1 names for 2 labels"):
        metrics.per_class(true, scores, ["one"])
