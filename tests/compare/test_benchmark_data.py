"""The makers of the pooling study's data, in ``tests/benchmarks/study``."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.study import extras, making, notes, segments, soundscapes
from tests.benchmarks.study.making import RATE, Samples, loudness
from tests.benchmarks.study.soundscapes import Event


def tone(seconds: float, pitch: float = 440.0, level: float = 0.3) -> Samples:
    t = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * pitch * t)).astype(np.float32)


@given(st.floats(0.5, 3.0), st.floats(0.1, 2.0), st.integers(0, 3 * RATE))
def test_an_event_is_cut_from_where_there_is_sound(seconds: float, length: float, start: int) -> None:
    clip = np.zeros(6 * RATE, np.float32)
    sound = tone(length)
    clip[start : start + len(sound)] = sound[: len(clip) - start]
    event = soundscapes.cut_event(clip, seconds)
    expected = min(seconds, length)
    assert abs(len(event) / RATE - expected) <= 0.05
    assert loudness(event) > 0.1
    assert event[0] == event[-1] == 0


def test_the_loudest_part_is_taken() -> None:
    clip = np.concatenate([tone(2, level=0.02), tone(1), tone(2, level=0.02)])
    event = soundscapes.cut_event(clip, 1.0)
    assert loudness(event) > 0.19


@given(st.sampled_from(soundscapes.RATIOS), st.floats(0, 1))
def test_events_are_so_much_louder_than_the_music_they_cover(ratio: float, place: float) -> None:
    music = tone(10, 100.0, 0.05)
    event = Event("beep", tone(1, 2000.0), place)
    scene, ((onset, offset, label),) = soundscapes.mix(music, [event], ratio)
    assert label == "beep"
    assert abs(offset - onset - 1) < 2e-3  # both are rounded
    where = slice(round(onset * RATE), round(offset * RATE))
    added = scene[where] - music[where]
    assert abs(20 * np.log10(loudness(added) / loudness(music[where])) - ratio) < 0.1
    outside = np.ones(len(scene), bool)
    outside[max(where.start - 16, 0) : where.stop + 16] = False
    np.testing.assert_array_equal(scene[outside], music[outside])


def test_frames_that_sound() -> None:
    scene = extras.Scene("a", 4.0, 0.0, [(1.0, 2.0, "x"), (1.5, 3.0, "y")])
    there = extras.sounding(scene, 4, 1.0, ("w", "x", "y"))
    np.testing.assert_array_equal(there.T, [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0]])


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("music")
    for number in range(10):
        random = np.random.default_rng(number)
        soundfile.write(root / f"piece{number}.wav", 0.1 * random.standard_normal(61 * 8000), 8000)
    soundfile.write(root / "piece3_enhanced.wav", 0.1 * np.random.default_rng(3).standard_normal(61 * 8000), 8000)
    soundfile.write(root / "jingle.wav", 0.1 * np.random.default_rng(4).standard_normal(30 * 8000), 8000)
    return root


def test_versions_of_a_piece_are_one_piece(music: Path) -> None:
    found = making.tracks(music)
    assert [track.piece for track in found] == [f"piece{number}" for number in range(10)]


def test_segments_of_a_track_stay_in_its_fold(music: Path, tmp_path: Path) -> None:
    segments.make(tmp_path, music, segments=3)
    with (tmp_path / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert len({(row["label"], row["fold"]) for row in rows}) == 10
    for row in rows:
        assert float(row["end"]) - float(row["start"]) == pytest.approx(segments.SECONDS, abs=0.011)
        assert segments.EDGE <= float(row["start"]) <= 61 - segments.EDGE - segments.SECONDS + 0.01


def test_soundscapes_are_divided_by_event_and_by_bed(music: Path, tmp_path: Path) -> None:
    esc = tmp_path / "esc10"
    esc.mkdir()
    lines = ["path,label,fold,group"]
    for fold in range(1, 6):
        for number, label in enumerate(("dog", "rain", "clock", "rooster")):
            soundfile.write(esc / f"{fold}-{label}.wav", tone(1.0, 300 * fold + 50 * number), RATE)
            lines.append(f"{fold}-{label}.wav,{label},{fold},{fold}")
    (esc / "labels.csv").write_text("\n".join(lines) + "\n")
    counts = {"train": 3, "valid": 1, "test": 2}
    for name in ("a", "b"):
        soundscapes.make(tmp_path / name, esc, music, counts=counts, long=1)
    for file in sorted((tmp_path / "a").rglob("*.*")):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()
    short = extras.scenes(tmp_path / "a", "labels.csv")
    assert {scene.path.split("/")[0] for scene in short.values()} == set(counts)
    with (tmp_path / "a" / "labels.csv").open() as table:
        for row in csv.DictReader(table):
            assert row["label"].split(";") == sorted({label for *_, label in short[row["path"]].events})
            duration = soundfile.info(tmp_path / "a" / row["path"]).duration
            assert 10 <= duration <= 60
            assert abs(duration - float(row["seconds"])) < 0.01
    (long,) = extras.scenes(tmp_path / "a", "long.csv").values()
    again = short["test/000.flac"]
    assert long.seconds == pytest.approx(10 * again.seconds)
    assert sorted(label for *_, label in long.events) == sorted(label for *_, label in again.events)
    sides = soundscapes.sides(making.tracks(music), np.random.default_rng(0))
    assert sum(map(len, sides.values())) == 10
    assert len({track.piece for side in sides.values() for track in side}) == 10


def test_folds_of_notes_are_bands_of_pitch() -> None:
    for name, (_, lowest) in notes.PROGRAMS.items():
        played = [note for font in notes.FONTS for note in notes.notes(name, font, 0)]
        bands = {(int(note["pitch"]) - lowest) // notes.BAND: note["fold"] for note in played}
        assert len(set(bands.values())) == notes.FOLDS
        assert all(bands[(int(note["pitch"]) - lowest) // notes.BAND] == note["fold"] for note in played)
        assert notes.notes(name, "tim", 0) == notes.notes(name, "tim", 0)


def test_midi_is_what_another_reader_reads() -> None:
    """By the standard's own rules: events with variable-length times; a tick is a millisecond."""
    played = notes.notes("flute", "tim", 0)[:4]
    data = notes.midi(73, played)
    assert data[:4] == b"MThd"
    assert int.from_bytes(data[12:14], "big") == 500
    track = data[22:]
    assert len(track) == int.from_bytes(data[18:22], "big")
    place, now, found = 0, 0, []
    while place < len(track):
        delta = 0
        while True:
            byte = track[place]
            place += 1
            delta = delta << 7 | byte & 0x7F
            if byte < 0x80:
                break
        now += delta
        kind = track[place]
        if kind == 0xFF:
            place += 3 + track[place + 2]
        else:
            found.append((now, kind, *track[place + 1 : place + (2 if kind == 0xC0 else 3)]))
            place += 2 if kind == 0xC0 else 3
    assert found[0] == (0, 0xC0, 73)
    starts = [(now, pitch, velocity) for now, kind, pitch, velocity in found[1:] if kind == 0x90]
    assert starts == [
        (round(1000 * (1 + n * notes.SPACING)), note["pitch"], note["velocity"]) for n, note in enumerate(played)
    ]
    ends = [now for now, kind, *_ in found[1:] if kind == 0x80]
    for (start, *_), end, note in zip(starts, ends, played, strict=True):
        assert end - start == round(1000 * note["seconds"])
