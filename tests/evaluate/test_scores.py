"""From labelled clips to a task, and from vectors to all scores: scikit-learn's own cross-validation says the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from poolembed.errors import LabelsError
from poolembed.evaluate.scores import Score, score
from poolembed.evaluate.task import Task, label_columns, make_task
from poolembed.labels import Clip


def clips_of(labels: Sequence[str], **more: Sequence[str | None]) -> list[Clip]:
    """A clip per label, several split by ``;``; `more` are fold, group and split, or another column."""
    clips = []
    for number, label in enumerate(labels):
        own: dict[str, Any] = {name: values[number] for name, values in more.items() if name in Clip.__slots__}
        other = {name: (values[number],) for name, values in more.items() if name not in Clip.__slots__}
        columns = {"label": tuple(part for part in label.split(";") if part), **other}
        clips.append(Clip(f"{number}.wav", f"{number}.wav", columns, **own))  # type: ignore[arg-type]
    return clips


def task_of(clips: Sequence[Clip], content: Sequence[str] | None = None, **more: Any) -> Task:
    options = {"column": "label", "multi_label": False, "folds": None, "seed": 0, **more}
    return make_task(clips, content, **options)


def problem(seed: int = 0, clips: int = 90) -> tuple[list[str], list[str], NDArray[np.float32]]:
    """Labels, folds and vectors that tell some of the labels."""
    random = np.random.default_rng(seed)
    true, folds = random.integers(0, 3, clips), random.integers(1, 4, clips)
    vectors = random.standard_normal((3, 8))[true] + 1.2 * random.standard_normal((clips, 8))
    return [("dog", "rain", "bee")[k] for k in true], [str(fold) for fold in folds], vectors.astype(np.float32)


class TestTask:
    def test_arrays(self) -> None:
        clips = clips_of(["b", "a", "b", "a"], fold=["10", "9", "9", "10"], group=["x", None, "x", None])
        task = task_of(clips, folds="fold")
        assert task.labels == ["a", "b"]
        np.testing.assert_array_equal(task.true, [1, 0, 1, 0])
        assert task.fold_names == ["9", "10"]
        np.testing.assert_array_equal(task.folds, [1, 0, 0, 1])
        assert task.given == "fold"
        assert task.group_count == 3
        assert task.groups[0] == task.groups[2]
        named, same = task.apart
        assert named[0] == named[2]
        assert len(set(named.tolist())) == 3
        assert len(set(same.tolist())) == 4

    def test_several_labels(self) -> None:
        task = task_of(clips_of(["a;b", "b", "a;c", "c;b"], fold=list("1212")), folds="fold", multi_label=True)
        np.testing.assert_array_equal(task.true, [[1, 1, 0], [0, 1, 0], [1, 0, 1], [0, 1, 1]])
        assert task.multi_label

    def test_folds_are_made_and_keep_groups_and_copies_together(self) -> None:
        labels, _, _ = problem()
        groups = [str(number // 3) for number in range(90)]
        content = [f"{number % 80}" for number in range(90)]  # the last ten are copies of the first
        task = task_of(clips_of(labels, group=groups), content)
        assert task.fold_names == ["1", "2", "3", "4", "5"]
        assert task.given is None
        for numbers in (task.apart[0], task.apart[1], task.groups):
            assert all(len(set(task.folds[numbers == number])) == 1 for number in numbers)
        np.testing.assert_array_equal(np.equal.outer(task.apart[1], task.apart[1]), np.equal.outer(content, content))
        assert (task.folds == task_of(clips_of(labels, group=groups), content).folds).all()

    def test_few_groups_make_fewer_folds(self) -> None:
        task = task_of(clips_of(["a", "b", "a", "b", "a", "b"], group=["1", "1", "2", "2", "3", "3"]))
        assert len(task.fold_names) == 3
        assert any("only 3 groups" in note for note in task.notes)

    def test_any_column_can_hold_the_folds(self) -> None:
        values = ["x", "y", "x", "y"]
        for name in ("fold", "split", "group", "year"):
            task = task_of(clips_of(["a", "b", "b", "a"], **{name: values}), folds=name)
            np.testing.assert_array_equal(task.folds, [0, 1, 0, 1])
        assert label_columns("label", None) == label_columns("label", "fold") == ["label"]
        assert label_columns("label", "year") == ["label", "year"]

    def test_what_is_not_used_is_said(self) -> None:
        labels = ["a", "b"] * 20
        task = task_of(clips_of(labels, fold=["1", "2"] * 20, split=["train", "test"] * 20))
        assert sum(f"--fold-column {name} would" in note for note in task.notes for name in ("fold", "split")) == 2
        assert task_of(clips_of(labels)).notes == []

    def test_labels_of_one_fold_and_copies_in_two_are_said(self) -> None:
        clips = clips_of(["a", "b", "a", "b", "c", "a"] * 5, fold=["1", "1", "2", "2", "2", "1"] * 5)
        content = ["same", "other", "same", *map(str, range(27))]
        task = task_of(clips, content, folds="fold")
        assert any("c (fold 2)" in note for note in task.notes)
        assert any("2 clips have a copy" in note for note in task.notes)

    @pytest.mark.parametrize(
        ("labels", "more", "folds", "words"),
        [
            ("aaaa", {}, None, ["only the label 'a'", "4 clips"]),
            ("abab", {"fold": [*"12", None, "1"]}, "fold", ["1 of 4 clips", "no fold", "2.wav"]),
            ("abab", {"fold": "1111"}, "fold", ["only the fold '1'"]),
            ("aabb", {"fold": "1122"}, "fold", ["outside fold '1'", "only the label 'b'"]),
            ("abab", {"group": "1111"}, None, ["all of one group"]),
            ("abcb", {}, None, ["a"]),
        ],
    )
    def test_what_cannot_be_scored(self, labels: str, more: Any, folds: Any, words: list[str]) -> None:
        with pytest.raises(LabelsError) as caught:
            task_of(clips_of(list(labels), **more), folds=folds)
        assert all(word in str(caught.value) for word in words), str(caught.value)
        assert caught.value.hint


class TestScores:
    def test_one_label_a_clip(self) -> None:
        labels, folds, vectors = problem()
        found = score(vectors, task_of(clips_of(labels, fold=folds), folds="fold"))
        split = PredefinedSplit([int(fold) for fold in folds])
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
        expected = cross_val_predict(probe, vectors.astype(float), labels, cv=split)
        assert close(found.linear["accuracy"], sk.accuracy_score(labels, expected))
        assert close(found.linear["macro_f1"], sk.f1_score(labels, expected, average="macro"))
        # Three votes of five, or no tie, decide for all clips here; ties are ours to break.
        neighbours = KNeighborsClassifier(5, metric="cosine", algorithm="brute")
        votes = cross_val_predict(neighbours, vectors.astype(float), labels, cv=split, method="predict_proba")
        clear = np.sort(votes, axis=1)[:, -1] > np.sort(votes, axis=1)[:, -2]
        right = np.sort(np.unique(labels))[votes.argmax(1)] == labels
        assert found.knn["accuracy"].value is not None
        assert right[clear].sum() <= round(found.knn["accuracy"].value * 90) <= right[clear].sum() + (~clear).sum()
        cosines = unit(vectors) @ unit(vectors).T
        same, others = np.equal.outer(labels, labels), ~np.eye(90, dtype=bool)
        each = [sk.average_precision_score(same[q, others[q]], cosines[q, others[q]]) for q in range(90)]
        assert close(found.retrieval["map"], float(np.mean(each)))
        assert found.queries == 90
        assert found.knn.keys() == found.linear.keys() == {"accuracy", "macro_f1"}
        assert [each.label for each in found.per_class["linear"]] == ["bee", "dog", "rain"]
        assert found.notes == []

    def test_several_labels_a_clip(self) -> None:
        labels, folds, vectors = problem()
        both = [f"{label};{'even' if number % 2 else 'odd'}" for number, label in enumerate(labels)]
        task = task_of(clips_of(both, fold=folds), folds="fold", multi_label=True)
        found = score(vectors, task)
        split = PredefinedSplit([int(fold) for fold in folds])
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
        each = []
        for label in range(len(task.labels)):
            true = task.true[:, label]
            p = cross_val_predict(probe, vectors.astype(float), true, cv=split, method="predict_proba")[:, 1]
            each.append(sk.average_precision_score(true, p))
        assert found.linear.keys() == found.knn.keys() == {"map"}
        assert close(found.linear["map"], float(np.mean(each)))

    def test_intervals_are_around_the_values_and_wider_over_groups(self) -> None:
        labels, folds, vectors = problem()
        alone = score(vectors, task_of(clips_of(labels, fold=folds), folds="fold"))
        for scores in (alone.knn, alone.linear, alone.retrieval):
            for each in scores.values():
                assert each.value is not None
                assert each.low is not None
                assert each.high is not None
                assert each.low <= each.value <= each.high
                assert each.low < each.high
        # Every clip nine more times: no new evidence, if they are of one group.
        tenfold = {"fold": folds * 10, "group": [str(number) for number in range(90)] * 10}
        grouped = task_of(clips_of(labels * 10, **tenfold), folds="fold")
        drawn_alone = dataclasses.replace(grouped, groups=np.arange(900))
        wide, narrow = (score(np.tile(vectors, (10, 1)), task).linear["accuracy"] for task in (grouped, drawn_alone))
        assert width(wide) > 2 * width(narrow)

    def test_the_same_to_the_last_digit(self) -> None:
        labels, folds, vectors = problem()
        task = task_of(clips_of(labels, fold=folds), folds="fold")
        assert score(vectors, task) == score(vectors.copy(), task)

    def test_vectors_that_know_the_label_are_perfect_and_those_that_do_not_are_not(self) -> None:
        labels, folds, vectors = problem()
        task = task_of(clips_of(labels, fold=folds), folds="fold")
        perfect = score(np.eye(3, 8, dtype=np.float32)[task.true] + 0.01 * vectors, task)
        for scores in (perfect.knn, perfect.linear, perfect.retrieval):
            assert all(each == Score(1.0, 1.0, 1.0) for each in scores.values())
        noise = score(np.random.default_rng(1).standard_normal((90, 8)).astype(np.float32), task)
        assert noise.linear["accuracy"].high is not None
        assert noise.linear["accuracy"].high < 0.7

    def test_where_the_group_is_the_label_there_is_nothing_to_find(self) -> None:
        labels, folds, vectors = problem()
        found = score(vectors, task_of(clips_of(labels, fold=folds, group=labels), folds="fold"))
        assert found.retrieval["recall_at_1"] == Score(None, None, None)
        assert found.queries == 0
        assert any("90 clips" in note for note in found.notes)


def unit(vectors: NDArray[Any]) -> NDArray[Any]:
    scaled: NDArray[Any] = vectors / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    return scaled


def close(found: Score, expected: float) -> bool:
    return found.value == pytest.approx(expected, abs=1e-9)


def width(found: Score) -> float:
    assert found.low is not None
    assert found.high is not None
    return found.high - found.low
