"""Who trains, who validates, who tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolembed.compare.splits import StudySplit, divide_for_study, identity, write_tables
from poolembed.errors import LabelsError
from poolembed.labels import Clip, Labelled, read_labels
from tests.compare.studies import write_table


def table(clips: list[Clip]) -> Labelled:
    return Labelled(clips, "labels.csv", ("label",), {"label": False}, {}, [])


def clip(number: int, label: str, **options: str) -> Clip:
    return Clip(path=f"/{number}.wav", key=f"{number}.wav", labels={"label": (label,)}, **options)  # type: ignore[arg-type]


def content(labelled: Labelled) -> list[str]:
    return [each.key for each in labelled.clips]


def sets(splits: StudySplit) -> tuple[set[int], set[int], set[int]]:
    return set(splits.division.train), set(splits.division.valid), set(splits.division.test)


@given(st.integers(3, 7), st.integers(0, 3))
@settings(max_examples=20)
def test_folds_test_in_turn_and_the_last_validates_always(folds: int, offset: int) -> None:
    labelled = table([clip(n, f"label{n % 2}", fold=str(1 + (n // 2 + offset) % folds)) for n in range(4 * folds)])
    found = divide_for_study(labelled, content(labelled), "label")
    assert [splits.test for splits in found] == [f"fold {fold}" for fold in range(1, folds)]
    tested: list[int] = []
    for splits in found:
        train, valid, test = sets(splits)
        assert {labelled.clips[index].fold for index in valid} == {str(folds)}
        assert len(train) + len(valid) + len(test) == len(labelled.clips)
        assert not train & valid
        assert not train & test
        tested += test
    assert len(tested) == len(set(tested))
    assert not set(tested) & set(found[0].division.valid)


def test_tenth_fold_comes_after_the_ninth() -> None:
    labelled = table([clip(n, f"label{n % 2}", fold=str(1 + n // 2)) for n in range(20)])
    found = divide_for_study(labelled, content(labelled), "label")
    assert found[-1].test == "fold 9"


def test_split_of_the_table_counts() -> None:
    split = ["train"] * 6 + ["valid"] * 2 + ["test"] * 4
    labelled = table([clip(n, f"label{n % 2}", split=split[n], fold="1") for n in range(12)])
    (splits,) = divide_for_study(labelled, content(labelled), "label")
    assert sets(splits) == ({0, 1, 2, 3, 4, 5}, {6, 7}, {8, 9, 10, 11})


@given(st.integers(0, 5))
@settings(max_examples=10)
def test_groups_are_never_taken_apart(seed: int) -> None:
    labelled = table([clip(n, f"label{n % 2}", group=f"song{(n + seed) // 2 % 12}") for n in range(48)])
    for splits in divide_for_study(labelled, content(labelled), "label"):
        groups = [{labelled.clips[index].group for index in split} for split in sets(splits)]
        assert all(groups)
        assert not groups[0] & groups[1]
        assert not groups[0] & groups[2]
        assert not groups[1] & groups[2]


def test_same_audio_is_not_in_two_splits() -> None:
    labelled = table([clip(n, f"label{n % 2}", fold=str(1 + n % 3)) for n in range(12)])
    same = content(labelled)
    same[0] = same[4]  # of folds 1 and 2
    first = divide_for_study(labelled, same, "label")[0]
    assert 0 in first.division.test
    assert 4 not in first.division.train


def test_too_few_folds_and_folds_here_and_there() -> None:
    two = table([clip(n, f"label{n % 2}", fold=str(n % 2)) for n in range(8)])
    with pytest.raises(LabelsError, match="2 folds"):
        divide_for_study(two, content(two), "label")
    some = table([clip(0, "a"), *(clip(n, "ab"[n % 2], fold=str(n)) for n in range(1, 8))])
    with pytest.raises(LabelsError, match=r"1 clips .* have no fold"):
        divide_for_study(some, content(some), "label")


def test_tables_hold_each_split_and_nothing_of_the_test(tmp_path: Path) -> None:
    labelled = read_labels(write_table(tmp_path, several=True))
    splits = divide_for_study(labelled, content(labelled), "label")[0]
    learn, test = write_tables(tmp_path / "tables", splits, labelled, "label")
    of_learn, of_test = read_labels(learn), read_labels(test)
    assert {each.split for each in of_learn.clips} == {"train", "valid"}
    assert {each.path for each in of_test.clips} == {labelled.clips[index].path for index in splits.division.test}
    assert not {each.path for each in of_learn.clips} & {each.path for each in of_test.clips}
    labels = {each.path: each.labels["label"] for each in labelled.clips}
    assert all(labels[each.path] == each.labels["label"] for each in (*of_learn.clips, *of_test.clips))
    assert any(len(each.labels["label"]) == 2 for each in of_learn.clips)


def test_tables_keep_excerpts(tmp_path: Path) -> None:
    clips = [
        Clip(path=f"/{n}.wav", key=f"{n}.wav#t={n},{n + 1}", labels={"label": ("ab"[n % 2],)}, start=n, end=n + 1.5,
             fold=str(n % 3))
        for n in range(12)
    ]  # fmt: skip
    splits = divide_for_study(table(clips), [each.key for each in clips], "label")[0]
    learn, _ = write_tables(tmp_path, splits, table(clips), "label")
    lines = [json.loads(line) for line in Path(learn).read_text().splitlines()]
    assert all(line["end"] - line["start"] == 1.5 for line in lines if "start" in line)
    assert sum("start" in line for line in lines) == len(lines)


def test_identity_is_of_content_labels_and_splits() -> None:
    labelled = table([clip(n, f"label{n % 2}", fold=str(1 + n % 3)) for n in range(12)])
    found = divide_for_study(labelled, content(labelled), "label")
    one = identity(found[0], labelled, content(labelled), "label")
    assert one == identity(found[0], labelled, content(labelled), "label")
    assert one != identity(found[1], labelled, content(labelled), "label")
    assert one != identity(found[0], labelled, [*content(labelled)[:-1], "other"], "label")
    moved = table([Clip(path=f"/elsewhere{each.path}", key=each.key, labels=each.labels) for each in labelled.clips])
    assert one == identity(found[0], moved, content(labelled), "label")
