"""A folder for each label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from poolembed.labels import Clip, read_labels
from tests.labels.files import labels_by_key, refused


def test_a_folder_for_each_label(touch: Callable[..., Path]) -> None:
    top = touch("dog/a.wav", "dog/deep/er/b.ogg", "cat/a.wav", "cat/notes.txt", "top.wav", ".hidden/x.wav")
    labelled = read_labels(top)
    assert labelled.clips == [
        Clip(f"{top}/cat/a.wav", "cat/a.wav", {"label": ("cat",)}),
        Clip(f"{top}/dog/a.wav", "dog/a.wav", {"label": ("dog",)}),
        Clip(f"{top}/dog/deep/er/b.ogg", "dog/deep/er/b.ogg", {"label": ("dog",)}),
    ]
    assert labelled.dropped == {"top.wav": f"no label: it is in no folder below {top}"}
    assert (labelled.source, labelled.columns, labelled.multi_label) == (str(top), ("label",), {"label": False})
    assert labels_by_key(read_labels(top, need_labels=False))["top.wav"] == ()
    assert read_labels(top, columns=(), need_labels=False).clips[0].labels == {}


def test_folders_that_are_a_split(touch: Callable[..., Path]) -> None:
    top = touch("train/dog/a.wav", "train/cat/b.wav", "val/dog/c.wav", "test/cat/d.wav", "test/e.wav")
    labelled = read_labels(top)
    assert [(clip.key, clip.split, clip.labels["label"]) for clip in labelled.clips] == [
        ("test/cat/d.wav", "test", ("cat",)),
        ("train/cat/b.wav", "train", ("cat",)),
        ("train/dog/a.wav", "train", ("dog",)),
        ("val/dog/c.wav", "valid", ("dog",)),
    ]
    assert labelled.notes == ["the folders test, train, val are taken for the split, and those below them for labels"]
    assert list(labelled.dropped) == ["test/e.wav"]
    touch("bird/x.wav")
    assert {clip.labels["label"] for clip in read_labels(top).clips} == {("train",), ("val",), ("test",), ("bird",)}


def test_broken_links_are_dropped(touch: Callable[..., Path]) -> None:
    top = touch("dog/a.wav", "cat/a.wav")
    (top / "cat/b.wav").symlink_to("nowhere.wav")
    labelled = read_labels(top)
    assert labelled.dropped == {f"{top}/cat/b.wav": "broken symbolic link"}


def test_folders_that_are_refused(touch: Callable[..., Path]) -> None:
    top = touch("notes.txt")
    assert "no clip below" in refused(top).message
    touch("a.wav", "b.wav")
    assert "no clip below" in refused(top).message
    assert "a.wav: no label" in refused(top).message
    touch("dog/a.wav")
    assert "only the label 'dog'" in refused(top).message
    assert "folder of its own" in (refused(top).hint or "")
    touch("labels.csv")
    assert f"Give {top}/labels.csv" in (refused(top).hint or "")
    touch("cat/a.wav")
    assert "has no column 'genre'" in refused(top, columns=("genre",)).message
