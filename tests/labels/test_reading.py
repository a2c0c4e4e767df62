"""Tables of every kind give the clips that they describe."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolembed.errors import LabelsError
from poolembed.labels import Clip, Labelled, read_labels
from tests.labels.files import NAMES, ROWS, Write, labels_by_key, save


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".CSV"])
def test_every_kind_of_table_says_the_same(folder: Path, suffix: str) -> None:
    table = save(folder / f"labels{suffix}", ROWS)
    labelled = read_labels(table)
    assert labelled.clips == [
        Clip(f"{folder}/a.wav", "a.wav#t=0.5,2", {"label": ("dog", "cat")}, 0.5, 2.0, "train", "1", "g"),
        Clip(f"{folder}/b.wav", "b.wav", {"label": ("dog",)}, 0.0, None, "valid", "2", None),
        Clip(f"{folder}/c.wav", "c.wav#t=1", {"label": ("x, y",)}, 1.0, None, None, None, "h"),
    ]
    assert labelled == Labelled(labelled.clips, str(table), ("label",), {"label": True}, {}, [])
    assert read_labels(str(table)) == labelled


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_labels_in_lists(folder: Path, suffix: str) -> None:
    rows = [{"path": "a.wav", "label": ["x", "y;z"]}, {"path": "b.wav", "label": []}, {"path": "c.wav", "label": ["x"]}]
    labelled = read_labels(save(folder / f"labels{suffix}", rows))
    assert labels_by_key(labelled) == {"a.wav": ("x", "y;z"), "c.wav": ("x",)}
    assert labelled.dropped == {"b.wav": "no label"}
    assert labelled.multi_label == {"label": True}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_labels_and_folds_that_are_numbers(folder: Path, suffix: str) -> None:
    rows = [{"path": "a.wav", "label": 0, "fold": 1.0}, {"path": "b.wav", "label": 10, "fold": float("nan")}]
    clips = read_labels(save(folder / f"labels{suffix}", rows)).clips
    assert [(clip.labels["label"], clip.fold) for clip in clips] == [(("0",), "1"), (("10",), None)]


def test_labels_that_are_true_or_false(folder: Path) -> None:
    rows = [{"path": "a.wav", "label": True}, {"path": "b.wav", "label": False}]
    assert labels_by_key(read_labels(save(folder / "x.jsonl", rows))) == {"a.wav": ("true",), "b.wav": ("false",)}


def test_pandas_tables(folder: Path) -> None:
    """Whole numbers with gaps are floats there, and texts can be categories."""
    import pandas

    frame = pandas.DataFrame(
        {"path": NAMES, "label": pandas.Categorical(list("xyxy")), "end": [1, None, 2.5, None], "fold": [1, 2, None, 4]}
    )
    for name in ("t.csv", "t.parquet"):
        frame.to_csv(folder / name, index=False) if name.endswith("csv") else frame.to_parquet(folder / name)
    from_parquet, from_csv = (read_labels(folder / name).clips for name in ("t.parquet", "t.csv"))
    assert [clip.end for clip in from_parquet] == [1.0, None, 2.5, None]
    assert [clip.fold for clip in from_parquet] == ["1", "2", None, "4"]
    assert [clip.labels for clip in from_parquet] == [clip.labels for clip in from_csv]
    assert [clip.key for clip in from_parquet] == [clip.key for clip in from_csv]


texts = st.text(st.characters(exclude_characters="\r\n\0;", exclude_categories=["Cs"]), min_size=1).map(str.strip)


@given(st.lists(texts.filter(bool), min_size=2, max_size=4, unique=True), st.sampled_from([".csv", ".tsv", ".jsonl"]))
def test_any_text_is_a_label(tmp_path_factory: pytest.TempPathFactory, labels: list[str], suffix: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    rows = [{"path": name, "label": label} for name, label in zip(NAMES, labels, strict=False)]
    for row in rows:
        (folder / row["path"]).touch()
    clips = read_labels(save(folder / f"t{suffix}", rows)).clips
    assert [clip.labels["label"] for clip in clips] == [(label,) for label in labels]


@given(st.floats(0, 1e7), st.floats(0, 1e7, exclude_min=True))
def test_spans_survive_and_are_in_the_key(
    tmp_path_factory: pytest.TempPathFactory, start: float, length: float
) -> None:
    end = start + length
    if end <= start:
        return
    row = {"path": "a.wav", "label": "x", "start": repr(start), "end": repr(end)}
    table = save(tmp_path_factory.getbasetemp() / "spans.csv", [row])
    (clip,) = read_labels(table, need_labels=False, need_audio=False).clips
    assert (clip.start, clip.end) == (start, end)
    first, last = clip.key.removeprefix("a.wav#t=").split(",")
    assert (float(first), float(last)) == (start, end)
    assert set(clip.key.removeprefix("a.wav#t=")) <= set("0123456789.,")


def test_paths_are_below_the_folder_of_the_table(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "far.wav").touch()
    (folder / "t.csv").write_text(f"path,label\n./a.wav,x\n{elsewhere}/far.wav,y\n")
    monkeypatch.chdir(folder.parent)
    clips = read_labels(f"{folder.name}/t.csv").clips
    assert [(clip.path, clip.key) for clip in clips] == [
        (f"{folder.name}/./a.wav", "./a.wav"),
        (f"{elsewhere}/far.wav", f"{elsewhere}/far.wav"),
    ]
    monkeypatch.chdir(folder)
    assert [clip.path for clip in read_labels("t.csv").clips] == ["./a.wav", f"{elsewhere}/far.wav"]


def test_order_space_and_blank_lines(write: Write) -> None:
    table = write("\n\nfold,label,path\r\n\r\n 1 , dog ; ; cat;dog ,a.wav\r\n,cat,b.wav\r\n")
    clips = read_labels(table).clips
    assert [(clip.fold, clip.labels["label"]) for clip in clips] == [("1", ("dog", "cat")), (None, ("cat",))]


def test_byte_order_mark(folder: Path) -> None:
    for name, text in (("t.csv", "path,label\na.wav,x\nb.wav,é\n"), ("t.jsonl", '{"path": "a.wav", "label": "x"}')):
        (folder / name).write_text(text, encoding="utf-8-sig")
    assert labels_by_key(read_labels(folder / "t.csv")) == {"a.wav": ("x",), "b.wav": ("é",)}
    assert labels_by_key(read_labels(folder / "t.jsonl", need_labels=False)) == {"a.wav": ("x",)}


def test_several_columns_of_labels(write: Write) -> None:
    table = write("path,genre,mood\na.wav,rock,\nb.wav,jazz,calm;sad\nc.wav,,sad\nd.wav,,\n")
    labelled = read_labels(table, columns=("genre", "mood"))
    assert [clip.labels for clip in labelled.clips] == [
        {"genre": ("rock",), "mood": ()},
        {"genre": ("jazz",), "mood": ("calm", "sad")},
        {"genre": (), "mood": ("sad",)},
    ]
    assert labelled.multi_label == {"genre": False, "mood": True}
    assert labelled.dropped == {"d.wav": "no label"}
    assert labelled.notes == []


def test_without_need_of_labels(write: Write) -> None:
    table = write("path,group\na.wav,1\nb.wav,2\n")
    assert labels_by_key(read_labels(table, need_labels=False)) == {"a.wav": (), "b.wav": ()}
    table = write("path,label\na.wav,\nb.wav,x\n")
    assert labels_by_key(read_labels(table, need_labels=False)) == {"a.wav": (), "b.wav": ("x",)}
    assert [clip.labels for clip in read_labels(table, columns=(), need_labels=False).clips] == [{}, {}]


def test_missing_files_cost_themselves(write: Write) -> None:
    labelled = read_labels(write("path,label,start\na.wav,x,\nno.wav,y,\nb.wav,y,\nno.wav,y,3\n"))
    assert [clip.key for clip in labelled.clips] == ["a.wav", "b.wav"]
    assert labelled.dropped == {"no.wav": "no such file", "no.wav#t=3": "no such file"}


def test_rows_twice(write: Write) -> None:
    text = "path,label,start,fold\na.wav,x,,1\n./a.wav,x,0,1\nb.wav,y,,1\na.wav,y,,2\na.wav,x,1,1\na.wav,x,1.0,1\n"
    labelled = read_labels(write(text))
    assert [clip.key for clip in labelled.clips] == ["a.wav", "b.wav", "a.wav#t=1"]
    assert labelled.dropped == {
        "./a.wav (line 3)": "the same clip as line 2",
        "a.wav (line 5)": "the same clip as line 2, with another label and fold",
        "a.wav#t=1 (line 7)": "the same clip as line 6",
    }
    (note,) = labelled.notes
    assert note.startswith("1 row for a clip that an earlier row has otherwise")


def test_unknown_columns_are_told(write: Write) -> None:
    labelled = read_labels(write(",path,label,bpm,Split,folds\n0,a.wav,x,1,train,1\n1,b.wav,y,2,train,1\n"))
    assert labelled.notes == [
        "columns (without a name), bpm, Split, folds are not used",
        "column 'Split' may be meant for 'split': names are matched letter by letter",
        "column 'folds' may be meant for 'fold': names are matched letter by letter",
    ]
    assert all(clip.split is None and clip.fold is None for clip in labelled.clips)
    one = read_labels(write("path,label,artist\na.wav,x,1\nb.wav,y,2\n"))
    assert one.notes == ["column artist is not used"]


def test_clips_taken_away_are_dropped_with_their_reason(write: Write) -> None:
    labelled = read_labels(write("path,label\na.wav,x\nb.wav,y\nno.wav,y\n")).without({"a.wav": "damaged"})
    assert [clip.key for clip in labelled.clips] == ["b.wav"]
    assert labelled.dropped == {"no.wav": "no such file", "a.wav": "damaged"}


def test_reading_is_light() -> None:
    """The command line imports this for every verb."""
    code = "import sys, poolembed.labels; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    )
    assert "poolembed.labels.rows" in loaded
    assert not loaded & {"torch", "numpy", "av", "soundfile", "pyarrow", "sklearn", "typer", "rich"}


def test_names_that_no_file_can_have(folder: Path, write: Write) -> None:
    labelled = read_labels(write(f"path,label\na.wav,x\nb.wav,y\nn\0o.wav,x\n{'x' * 5000}.wav,y\n"))
    assert len(labelled.clips) == 2
    assert set(labelled.dropped.values()) == {"no such file"}
    with pytest.raises(LabelsError, match="no such file or folder"):
        read_labels("x" * 5000)


def test_without_need_of_audio(write: Write) -> None:
    """For vectors that somebody else computed."""
    labelled = read_labels(write("path,label\nno.wav,x\nnot.wav,y\nno.wav,x\nempty.wav,\n"), need_audio=False)
    assert [clip.key for clip in labelled.clips] == ["no.wav", "not.wav"]
    assert labelled.dropped == {"no.wav (line 4)": "the same clip as line 2", "empty.wav": "no label"}
