"""Tables of what is held out: nothing that is trained on, labels as the corpus has them, folds that hold all labels."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from models.recipe import heldout, tables
from models.recipe.segments import SECONDS
from poolembed.labels import Clip, read_labels


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Twice the same clips, one side to train on; notes, chords, drum hits, and tracks of 3, 20 and 30 clips."""
    rows: list[dict[str, object]] = []
    for split in ("train", "valid"):
        for place in range(60):
            at = {"start": place * SECONDS, "end": (place + 1) * SECONDS, "split": split}
            rows.append({"path": f"{split}.flac", **at, "kind": "notes", "program": f"p{place % 6}", "pitch": place})
            rows.append({"path": f"{split}-chords.flac", **at, "kind": "chords", "program": "p0", "chord": "major"})
            rows.append({"path": f"{split}-drums.flac", **at, "kind": "drum notes", "drum": f"d{place % 3}"})
            for track, clips in (("short", 3), ("long", 20), ("longer", 30)):
                if place < clips:
                    rows.append({"path": f"{split}-{track}.ogg", **at, "kind": "music", "track": track})
    for name in {str(row["path"]) for row in rows}:
        (tmp_path / name).touch()
    tables.write_table(tmp_path / "corpus.csv", rows)
    return tmp_path


def read(corpus: Path, label: str) -> list[Clip]:
    return read_labels(corpus / f"heldout-{label}.csv", columns=("label", "fold")).clips


def test_held_out_clips_with_their_labels(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert heldout.main([str(corpus)]) == 0
    keys = {clip.key for clip in read_labels(corpus / "corpus.csv", columns=(), need_labels=False).clips}
    for label, file, labels in (("program", "valid.flac", 6), ("drum", "valid-drums.flac", 3)):
        clips = read(corpus, label)
        assert [Path(clip.path) for clip in clips] == [corpus / file] * 60
        for clip in clips:
            assert clip.key in keys
            assert clip.labels["label"] == (f"{label[0]}{round(clip.start / SECONDS) % labels}",)
    assert len((corpus / "heldout-pitch.csv").read_text().splitlines()) == 1  # a note of each, fewer than folds
    assert "drum        60 clips,   3 labels" in capsys.readouterr().out


def test_tracks_without_neighbours(corpus: Path) -> None:
    heldout.main([str(corpus)])
    places: dict[str, list[int]] = defaultdict(list)
    for clip in read(corpus, "track"):
        places[clip.labels["label"][0]].append(round(clip.start / SECONDS))
    assert places == {"long": list(range(0, 20, 2)), "longer": list(range(0, 30, 2))}


def test_every_label_is_in_every_fold(corpus: Path) -> None:
    heldout.main([str(corpus)])
    for label in ("program", "drum", "track"):
        folds = defaultdict(set)
        for clip in read(corpus, label):
            folds[clip.labels["label"]].add(clip.labels["fold"])
        assert all(len(of_label) == heldout.FOLDS for of_label in folds.values())


def test_a_share_is_always_the_same(corpus: Path) -> None:
    drawn = []
    for _ in range(2):
        heldout.main([str(corpus), "--clips", "40"])
        drawn.append([(clip.start, clip.labels["label"]) for clip in read(corpus, "drum")])
    assert drawn[0] == drawn[1]
    assert len({start for start, _ in drawn[0]}) == 40


def test_no_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        heldout.main([str(tmp_path)])
    assert "models.recipe.tables writes it" in capsys.readouterr().err
