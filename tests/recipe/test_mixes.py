"""The corpus' mixes: made of one side's sounds, always the same, as loud as they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from models.recipe import mixes, tables
from models.recipe.copies import RATE
from models.recipe.segments import SECONDS
from poolembed.labels import read_labels

LENGTH = round(SECONDS * RATE)
HZ = {"train": 1000.0, "valid": 3000.0}


def tone(hz: float, seconds: float) -> mixes.Samples:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tone to train on and one to validate with, a clip that is not there, and one of a kind that is not mixed."""
    monkeypatch.setattr(mixes, "_POOL", 4)
    monkeypatch.setattr(mixes, "PER_FILE", 6)
    rows: list[dict[str, object]] = []
    for split, hz in HZ.items():
        soundfile.write(tmp_path / f"{split}.wav", tone(hz, 2.0), RATE)
        rows.append({"path": f"{split}.wav", "start": 0.0, "end": 1.5, "split": split, "kind": "effects"})
        rows.append({"path": f"{split}.wav", "start": 0.0, "end": 1.5, "split": split, "kind": "soundfonts"})
    rows.append({"path": "missing.wav", "start": 0.0, "end": 1.0, "split": "train", "kind": "speech"})
    tables.write_table(tmp_path / "sounds.csv", rows)
    mixes.by_kind.cache_clear()
    return tmp_path


def test_a_table_that_poolembed_reads(corpus: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert mixes.main([str(corpus), "--files", "2", "--valid", "1", "--jobs", "1"]) == 0
    assert "mixes.csv: 18 clips" in capfd.readouterr().out
    tables.main([str(corpus)])
    clips = [
        clip
        for clip in read_labels(corpus / "corpus.csv", columns=("kind",), need_labels=False).clips
        if clip.labels["kind"] == ("mixes",)
    ]
    assert [clip.split for clip in clips] == ["train"] * 12 + ["valid"] * 6
    assert len({(clip.group, clip.split) for clip in clips}) == len({clip.group for clip in clips}) == 3
    for file in sorted((corpus / "mixes").iterdir()):
        samples, rate = soundfile.read(file, dtype="float32")
        assert rate == RATE
        each = samples.reshape(-1, LENGTH)
        assert len(each) == 6
        peaks = np.abs(each).max(axis=1)
        assert np.all((peaks > 0.2) & (peaks <= 1))
        assert len(np.unique(np.round(each.std(axis=1), 6))) == 6  # no two alike


def test_always_the_same_and_made_once(corpus: Path) -> None:
    mixes.main([str(corpus), "--smoke", "--jobs", "1"])
    (file,) = (corpus / "mixes").iterdir()
    made, at = file.read_bytes(), file.stat().st_mtime_ns
    mixes.main([str(corpus), "--smoke", "--jobs", "1"])
    assert file.stat().st_mtime_ns == at
    file.unlink()
    mixes.main([str(corpus), "--smoke", "--jobs", "1"])
    assert file.read_bytes() == made


def test_what_validates_is_not_trained_on(corpus: Path) -> None:
    for split in HZ:
        rows = mixes.by_kind(corpus, split)
        assert {row["split"] for each in rows.values() for row in each} == {split}
        assert "soundfonts" not in rows


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), seconds=st.floats(0.001, 2 * SECONDS))
def test_a_sound_is_placed_whole_and_at_one_level(seed: int, seconds: float) -> None:
    clip = mixes.place(tone(500, seconds)[: 2 * LENGTH] + np.float32(0.01), np.random.default_rng(seed))
    assert clip.shape == (LENGTH,)
    assert np.isfinite(clip).all()
    heard = np.flatnonzero(clip)
    once = clip[heard[0] : heard[-1] + 1]
    assert 0.02 < np.sqrt(np.mean(once**2)) < 0.35  # again and again, it may overlap itself or leave gaps


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_noise_has_one_level(seed: int) -> None:
    made = mixes.noise(np.random.default_rng(seed))
    assert made.shape == (LENGTH,)
    assert np.sqrt(np.mean(made**2)) == pytest.approx(0.1, rel=1e-3)


def test_without_clips_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        mixes.main([str(tmp_path), "--smoke"])
    assert "no clips for train" in capsys.readouterr().err


def test_without_sounds_it_says_so(corpus: Path) -> None:
    (corpus / "train.wav").unlink()
    with pytest.raises(SystemExit, match="none of its sounds can be decoded"):
        mixes.main([str(corpus), "--smoke", "--jobs", "1"])
    assert not (corpus / "mixes.csv").exists()
