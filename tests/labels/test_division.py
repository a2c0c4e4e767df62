"""Splits and folds: what goes together stays together, labels are in proportion, and nothing depends on the order."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from poolembed.errors import LabelsError, UsageError
from poolembed.labels import Clip, Division, divide, grouped_folds
from poolembed.labels.units import assign, units_of
from tests.labels.made import clip, inseparable, labels_of, many, tables


@given(tables(), st.floats(0.01, 0.99), st.integers(0, 5), st.sampled_from([None, "label"]))
def test_what_is_held_out(
    table: tuple[list[Clip], list[str | None]], valid: float, seed: int, column: str | None
) -> None:
    clips, content = table
    sets = inseparable(clips, content)
    homes = Counter(label for each in sets for label in labels_of(clips, sorted(each)))
    possible = len(sets) > 1 and (column is None or (len(homes) > 1 and min(homes.values()) > 1))
    if not possible:
        with pytest.raises(LabelsError):
            divide(clips, content, valid=valid, seed=seed, column=column)
        return
    division = divide(clips, content, valid=valid, seed=seed, column=column)
    assert division.train
    assert division.valid
    assert not division.test
    assert not division.left_out
    assert sorted(division.train + division.valid) == list(range(len(clips)))
    assert division.train == sorted(division.train)
    assert division.valid == sorted(division.valid)
    for each in sets:
        assert each <= set(division.train) or each <= set(division.valid)
    if column is not None:
        assert labels_of(clips, division.train) == set(homes)
        lacking = set(homes) - labels_of(clips, division.valid)
        assert bool(lacking) == any("without a validation clip" in note for note in division.notes)


@given(tables(), st.integers(2, 6), st.integers(0, 5), st.sampled_from([None, "label"]))
def test_folds(table: tuple[list[Clip], list[str | None]], folds: int, seed: int, column: str | None) -> None:
    clips, content = table
    sets = inseparable(clips, content)
    homes = Counter(label for each in sets for label in labels_of(clips, sorted(each)))
    possible = len(sets) >= folds and (column is None or (len(homes) > 1 and min(homes.values()) > 1))
    if not possible:
        with pytest.raises(LabelsError):
            grouped_folds(clips, content, folds=folds, seed=seed, column=column)
        return
    fold = grouped_folds(clips, content, folds=folds, seed=seed, column=column)
    assert set(fold) == set(range(folds))
    for each in sets:
        assert len({fold[index] for index in each}) == 1


@given(tables(), st.randoms(use_true_random=False), st.integers(0, 5))
def test_the_order_of_the_clips_does_not_matter(
    table: tuple[list[Clip], list[str | None]], order: random.Random, seed: int
) -> None:
    clips, content = table
    shuffled = list(range(len(clips)))
    order.shuffle(shuffled)
    turned, content_turned = [clips[i] for i in shuffled], [content[i] for i in shuffled]
    try:
        division = divide(clips, content, valid=0.3, seed=seed, column="label")
        fold = grouped_folds(clips, content, folds=3, seed=seed, column="label")
    except LabelsError:
        assume(False)
    again = divide(turned, content_turned, valid=0.3, seed=seed, column="label")
    assert {clips[i].key for i in division.valid} == {turned[i].key for i in again.valid}
    fold_again = grouped_folds(turned, content_turned, folds=3, seed=seed, column="label")
    assert dict(zip([each.key for each in clips], fold, strict=True)) == dict(
        zip([each.key for each in turned], fold_again, strict=True)
    )


@given(st.lists(st.integers(2, 60), min_size=2, max_size=8), st.floats(0.1, 0.5), st.integers(0, 3))
def test_each_label_has_its_share(sizes: list[int], valid: float, seed: int) -> None:
    """Single labels, no groups: every label within about a clip of its share, and all together within three."""
    clips = [each for number, size in enumerate(sizes) for each in many("abcdefgh"[number], size)]
    division = divide(clips, None, valid=valid, seed=seed, column="label")
    held = Counter(clips[index].labels["label"][0] for index in division.valid)
    for number, size in enumerate(sizes):
        assert abs(held["abcdefgh"[number]] - valid * size) <= 1.25
    at_least_one_each = sum(max(valid * size, 1) for size in sizes)
    assert valid * sum(sizes) - 3 <= len(division.valid) <= at_least_one_each + 3


def test_groups_of_every_size_are_held_out() -> None:
    """Not the small ones first: half the clips here are of groups of ten."""
    clips = [clip(f"{g}-{i}", "ab"[g % 2], group=f"g{g}") for g in range(80) for i in range(10 if g < 8 else 1)]
    clips += [clip(f"s{i}", "ab"[i % 2]) for i in range(8)]
    division = divide(clips, None, valid=0.25, seed=0, column="label")
    assert len(division.valid) == 40
    assert sum(int(clips[index].key.split("-")[0]) < 8 for index in division.valid if "-" in clips[index].key) == 20


def test_one_large_group_trains() -> None:
    clips = [clip(f"big{i}", "ab"[i % 2], group="big") for i in range(90)]
    clips += [clip(f"small{i}", "ab"[i % 2]) for i in range(10)]
    division = divide(clips, None, valid=0.15, seed=0, column="label")
    assert {clips[index].group for index in division.valid} == {None}
    assert len(division.valid) == 10


def test_three_pairs_of_labels_cannot_all_be_in_both_splits() -> None:
    clips = [clip("ab", "a", "b"), clip("bc", "b", "c"), clip("ca", "c", "a")]
    division = divide(clips, None, valid=0.5, seed=0, column="label")
    assert len(division.train) == 2
    (note,) = division.notes
    missing = ({"a", "b", "c"} - labels_of(clips, division.valid)).pop()
    assert note == f"1 label without a validation clip, as groups go together: {missing}"


def test_a_label_in_two_groups_is_in_two_folds() -> None:
    """Though the size of a third group would put both in one."""
    clips = [clip(f"m{i}", "m", group="big") for i in range(50)] + [clip(f"n{i}", "m") for i in range(50)]
    clips += [clip("x", "rare"), clip("y", "rare")]
    for seed in range(5):
        fold = grouped_folds(clips, None, folds=2, seed=seed, column="label")
        assert fold[-1] != fold[-2]
    units = units_of(clips[:50] + clips[-2:], None, range(52), "label", 0)
    assert sorted(assign(units[1:], [0.5, 0.5])) == [0, 1]


def test_seeds_differ_and_repeat() -> None:
    clips = many("a", 50) + many("b", 50)

    def held(seed: int) -> list[int]:
        return divide(clips, None, valid=0.2, seed=seed, column="label").valid

    assert held(1) == held(1)
    assert len({tuple(held(seed)) for seed in range(10)}) == 10
    assert grouped_folds(clips, None, folds=2, seed=0, column=None) != grouped_folds(
        clips, None, folds=2, seed=1, column=None
    )


def test_this_division_is_for_good() -> None:
    """A golden value: the same table must divide alike on every machine and in later versions."""
    clips = many("a", 8) + many("b", 8)
    assert divide(clips, None, valid=0.25, seed=0, column="label").valid == [2, 5, 9, 15]


# What the table says


def sided(*written: str, **more: str | None) -> list[Clip]:
    return [clip(f"{i}", "ab"[i % 2], split=split or None, **more) for i, split in enumerate(written)]


def test_a_written_split_is_kept() -> None:
    clips = sided("train", "valid", "test", "train", "valid")
    assert divide(clips, None, valid=0.5, seed=0, column="label") == Division([0, 3], [1, 4], [2])


def test_without_validation_clips_some_of_training_are_held_out() -> None:
    division = divide(sided(*["train"] * 20, "test", "test"), None, valid=0.2, seed=0, column="label")
    assert division.test == [20, 21]
    assert len(division.valid) == 4
    assert division.notes == ["no clip validates by the column split: 20% of the training clips are held out"]


def test_clips_without_a_split_train() -> None:
    division = divide(sided("", "", "valid", "valid", "test"), None, valid=0.2, seed=0, column="label")
    assert (division.train, division.valid, division.test) == ([0, 1], [2, 3], [4])
    assert division.notes == ["2 clips without a split: used for training"]


def test_nothing_to_train_on() -> None:
    with pytest.raises(LabelsError, match="none of 2 clips is left to train on"):
        divide(sided("valid", "test"), None, valid=0.2, seed=0, column="label")
    with pytest.raises(LabelsError, match="none of 0 clips"):
        divide([], None, valid=0.2, seed=0, column=None)


def test_a_label_that_is_not_trained_is_told() -> None:
    clips = [*sided("train", "train", "valid"), clip("x", "c", split="valid"), clip("y", "d", split="test")]
    assert divide(clips, None, valid=0.2, seed=0, column="label").notes == ["2 labels without a training clip: c, d"]


def folded(*folds: str, split: str | None = None) -> list[Clip]:
    return [clip(f"{i}", "ab"[i % 2], fold=fold or None, split=split) for i, fold in enumerate(folds)]


def test_a_fold_validates() -> None:
    division = divide(folded("1", "1", "2", "2", ""), None, valid=0.5, seed=0, column="label", valid_fold="2")
    assert (division.train, division.valid, division.test) == ([0, 1, 4], [2, 3], [])
    assert division.notes == ["1 clip without a fold: used for training"]


def test_a_fold_leaves_the_test_alone() -> None:
    clips = [*folded("1", "1", "2", "2"), *folded("1", "2", split="test")]
    division = divide(clips, None, valid=0.5, seed=0, column="label", valid_fold="2")
    assert (division.train, division.valid, division.test) == ([0, 1], [2, 3], [4, 5])


def test_a_fold_that_is_not_used_is_told() -> None:
    division = divide(folded(*"112211221122"), None, valid=0.5, seed=0, column="label")
    assert division.notes == ["the column fold is not used: no fold was named to validate on"]


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (folded("2", "10", "9", "1"), "no fold '5' to validate on: there are 1, 2, 9, 10"),
        (folded("", ""), "no fold '5' to validate on: no clip has a fold"),
        (folded("5", "1") + folded("5", split="valid"), "the column split names clips to validate on, and so does"),
        (folded("5", "5"), "none of 2 clips is left to train on"),
    ],
)
def test_folds_that_cannot_validate(clips: list[Clip], message: str) -> None:
    with pytest.raises(LabelsError, match=message):
        divide(clips, None, valid=0.5, seed=0, column="label", valid_fold="5")


def test_a_group_in_two_splits() -> None:
    clips = [clip("x", "a", split="train", group="g"), clip("y", "b", split="test", group="g")]
    with pytest.raises(LabelsError, match=r"1 group with clips in more than one split.*: g "):
        divide(clips, None, valid=0.5, seed=0, column="label")
    clips = [clip("x", "a", fold="1", group="g"), clip("y", "b", fold="2", group="g")]
    with pytest.raises(LabelsError, match="1 group with clips in more than one split"):
        divide(clips, None, valid=0.5, seed=0, column="label", valid_fold="1")


def test_copies_of_the_audio_of_another_split_are_left_out() -> None:
    clips = sided("train", "train", "valid", "valid", "test", "test", "train")
    content = ["x", "y", "x", "z", "z", "z", "v"]
    division = divide(clips, content, valid=0.5, seed=0, column="label")
    assert (division.train, division.valid, division.test) == ([1, 6], [2], [4, 5])
    assert division.left_out == {
        0: "the same audio as 2, which is for validation",
        3: "the same audio as 4, which is for the test",
    }
    assert "2 clips left out, with the same audio as clips in another split" in division.notes
    assert "1 clip with the same audio as another, kept in one split" in division.notes


def test_the_same_audio_with_different_labels_is_told() -> None:
    clips = [*many("a", 4), *many("b", 4)]
    content = ["x", "2", "y", "y", "x", "6", "7", "8"]
    notes = divide(clips, content, valid=0.5, seed=0, column="label").notes
    assert "the same audio has different labels in 1 place, such as a000 (a) and b000 (b)" in notes
    assert "2 clips with the same audio as another, kept in one split" in notes


def test_excerpts_of_one_file_stay_together_unless_groups_say_otherwise() -> None:
    clips = [clip(f"{i}", "ab"[i % 2], path=f"/clips/{'./' * (i % 5)}{i % 6 // 2}.wav") for i in range(60)]
    division = divide(clips, None, valid=0.3, seed=0, column="label")
    assert {clips[i].path[-5:] for i in division.train}.isdisjoint(clips[i].path[-5:] for i in division.valid)
    apart = [clip(each.key, *each.labels["label"], path=each.path, group=each.key) for each in clips]
    division = divide(apart, None, valid=0.3, seed=0, column="label")
    assert len(division.valid) == 18


def test_labels_that_cannot_be_in_both_splits() -> None:
    clips = [clip(f"{i}", f"label{i:02}") for i in range(12)] + many("x", 5)
    with pytest.raises(LabelsError) as error:
        divide(clips, None, valid=0.5, seed=0, column="label")
    assert error.value.message.startswith("12 labels with one clip, which cannot be in both splits: ")
    assert "label00 (1 clip), label01 (1 clip)" in error.value.message
    assert error.value.message.endswith("label09 (1 clip) and 2 more")
    assert error.value.hint
    with pytest.raises(LabelsError, match=r"12 labels with one clip, which cannot be in two folds"):
        grouped_folds(clips, None, folds=2, seed=0, column="label")


def test_a_label_of_one_group_cannot_be_in_both_splits() -> None:
    clips = many("a", 5, group="g") + many("b", 5)
    with pytest.raises(LabelsError, match=r"several that go together .* a \(5 clips\)"):
        divide(clips, None, valid=0.5, seed=0, column="label")


def test_one_label() -> None:
    for clips, message in ((many("a", 5), "only the label 'a'"), ([clip("x"), clip("y")], "no label")):
        with pytest.raises(LabelsError, match=f"{message} in column 'label'"):
            divide(clips, None, valid=0.5, seed=0, column="label")
        with pytest.raises(LabelsError, match=f"{message} in column 'label'"):
            grouped_folds(clips, None, folds=2, seed=0, column="label")
        assert divide(clips, None, valid=0.5, seed=0, column=None).valid


def test_one_label_to_train_on() -> None:
    clips = [*many("a", 5, split="train"), *many("b", 5, split="test"), clip("x", "b", split="valid")]
    with pytest.raises(LabelsError, match="only the label 'a' in column 'label' of 5 clips"):
        divide(clips, None, valid=0.5, seed=0, column="label")


def test_what_cannot_be_held_out() -> None:
    with pytest.raises(LabelsError, match="5 clips to train on, and none that can be held out"):
        divide(many("a", 5, group="g"), None, valid=0.5, seed=0, column=None)


def test_too_few_for_the_folds() -> None:
    with pytest.raises(LabelsError, match=r"10 clips cannot make 5 folds.*which leaves 2"):
        grouped_folds(many("a", 5, group="g") + many("b", 5, group="h"), None, folds=5, seed=0, column=None)
    with pytest.raises(UsageError, match="folds is 1"):
        grouped_folds(many("a", 5), None, folds=1, seed=0, column=None)


def test_unlabelled_clips_are_divided_too() -> None:
    clips = [clip(f"{i}") for i in range(100)]
    assert len(divide(clips, None, valid=0.15, seed=0, column=None).valid) == 15
    sizes = Counter(grouped_folds(clips, None, folds=7, seed=0, column=None))
    assert max(sizes.values()) - min(sizes.values()) <= 1


def test_many_labels_in_proportion() -> None:
    """Multi-label: a clip has on average two of twelve labels, as common as 1/rank."""
    draw = np.random.default_rng(0)
    clips = [clip(f"{i}", *(f"l{j}" for j in range(12) if draw.random() < 0.6 / (j + 1))) for i in range(1000)]
    division = divide(clips, None, valid=0.2, seed=0, column="label")
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for split, indices in (("train", division.train), ("valid", division.valid)):
        for index in indices:
            counts[split].update(clips[index].labels["label"])
    assert len(division.valid) == pytest.approx(200, abs=3)
    for label, number in (counts["train"] + counts["valid"]).items():
        assert counts["valid"][label] == pytest.approx(0.2 * number, abs=2)
