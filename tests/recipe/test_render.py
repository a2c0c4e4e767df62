"""Rendering: scores say what their tables say, and so do the sounds."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from models.recipe import render, scores, synth, tables
from models.recipe.drums import GM_KEYS
from models.recipe.gm import FAMILIES, PITCHED, PLAYED, PROGRAMS, family, pitch_range
from models.recipe.midi import DRUM_CHANNEL, Control, Note, program, read_midi, write_midi
from models.recipe.pieces import midi_takes, phrase_takes, score_takes
from models.recipe.takes import CHORDS, Font, Take, chord_takes, drum_takes, note_takes
from tests.recipe.soundfont import write_soundfont

PRESETS = [(0, 0), (0, 40), (0, 97), (0, 114), (128, 0)]


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Font:
    file = tmp_path_factory.mktemp("fonts") / "sines.sf2"
    write_soundfont(file, PRESETS)
    return Font("sines", file, "train", [0, 40, 97, 114], [0])


class TestGeneralMidi:
    def test_names(self) -> None:
        assert len(PROGRAMS) == len(set(PROGRAMS)) == 128
        assert len(FAMILIES) == 16
        for number, name, of in (
            (0, "acoustic grand piano", "piano"),
            (40, "violin", "strings"),
            (73, "flute", "pipe"),
        ):
            assert (PROGRAMS[number], family(number)) == (name, of)
        assert not any(";" in name or name != " ".join(name.split()) for name in PROGRAMS)  # of labels

    def test_ranges(self) -> None:
        for number in range(128):
            low, high = pitch_range(number)
            assert low >= 12
            assert low + 12 <= high <= 108
        assert set(PITCHED) < set(PLAYED)


notes = st.builds(
    lambda start, length, pitch, velocity, channel: Note(
        start / 1000, (start + length) / 1000, pitch, velocity, channel
    ),
    st.integers(0, 100_000),
    st.integers(1, 5000),
    st.integers(0, 127),
    st.integers(1, 127),
    st.integers(0, 15),
)


class TestMidi:
    @given(st.lists(notes, max_size=30, unique_by=lambda note: (note.channel, note.pitch)))
    def test_there_and_back(self, written: list[Note]) -> None:
        found = read_midi(write_midi(written))
        assert len(found) == len(written)
        key = lambda note: (note.channel, note.pitch)  # noqa: E731
        for one, other in zip(sorted(written, key=key), sorted(found, key=key), strict=True):
            assert (one.pitch, one.velocity, one.channel) == (other.pitch, other.velocity, other.channel)
            assert one.start == pytest.approx(other.start, abs=2.6e-4)
            assert one.end == pytest.approx(other.end, abs=2.6e-4)

    def test_programs(self) -> None:
        controls = [*program(0, 1, 40), *program(2, 1, 73)]
        first, second = read_midi(write_midi([Note(0, 1, 60, channel=1), Note(2, 3, 60, channel=1)], controls))
        assert (first.program, second.program) == (40, 73)

    def test_a_note_again_at_once(self) -> None:
        assert [(note.start, note.end) for note in read_midi(write_midi([Note(0, 1, 60), Note(1, 2, 60)]))] == [
            (0, 1),
            (1, 2),
        ]

    def test_tempo_running_status_and_two_tracks(self) -> None:
        """A file of format 1 as sequencers write it: quarter notes of half a second, then of a second."""
        tempo = b"\x00\xff\x51\x03\x07\xa1\x20" + b"\x60\xff\x51\x03\x0f\x42\x40" + b"\x00\xff\x2f\x00"
        tune = b"\x00\xc0\x28\x00\x90\x3c\x40\x60\x3c\x00\x00\x3e\x40\x60\x3e\x00\x00\xff\x2f\x00"
        chunks = b"".join(b"MTrk" + len(track).to_bytes(4, "big") + track for track in (tempo, tune))
        found = read_midi(b"MThd\x00\x00\x00\x06\x00\x01\x00\x02\x00\x60" + chunks)
        assert [(note.start, note.end, note.pitch, note.program) for note in found] == [
            (0, 0.5, 60, 40),
            (0.5, 1.5, 62, 40),
        ]

    @pytest.mark.parametrize("data", [b"", b"RIFF", b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\xe7\x28"])
    def test_no_such_file(self, data: bytes) -> None:
        with pytest.raises(ValueError, match=r"MIDI|SMPTE"):
            read_midi(data)

    def test_controls(self) -> None:
        assert b"\xb0\x07\x64" in write_midi([], [Control(0, 0xB0, (7, 100))])


def starting(take: Take, second: float, within: float = 1e-3) -> list[Note]:
    """The notes of a take's score that begin there."""
    return [note for note in read_midi(take.midi) if -1e-3 < note.start - second < within]


class TestTakes:
    def test_a_note_for_each_row(self, font: Font) -> None:
        takes = list(note_takes(font, 20))
        assert [take.path for take in takes] == [f"rendered/notes/sines/{n:03}.flac" for n in (0, 40, 97, 114)]
        for take, number in zip(takes, (0, 40, 97, 114), strict=True):
            assert len(take.rows) == len(read_midi(take.midi)) == 20
            for row in take.rows:
                (note,) = starting(take, float(str(row["start"])))
                assert row["program"] == PROGRAMS[note.program] == PROGRAMS[number]
                assert row["family"] == family(number)
                assert row.get("pitch") == (note.pitch if number in PITCHED else None)
                assert pitch_range(number)[0] <= note.pitch <= pitch_range(number)[1]
                assert note.end < float(str(row["end"])) < note.end + 1
                assert (row["split"], row["package"], row["group"]) == ("train", "sines", "sines")

    def test_clips_do_not_overlap(self, font: Font) -> None:
        for take in [*note_takes(font, 20), *chord_takes(font, 9), *drum_takes(font, 1)]:
            for one, next_one in pairwise(take.rows):
                assert float(str(one["end"])) < float(str(next_one["start"]))

    def test_always_the_same(self, font: Font) -> None:
        for make in (note_takes, chord_takes, drum_takes):
            assert [take.midi for take in make(font, 5)] == [take.midi for take in make(font, 5)]

    def test_more_notes_begin_with_the_same(self, font: Font) -> None:
        for few, many in zip(note_takes(font, 5), note_takes(font, 9), strict=True):
            assert many.rows[:5] == few.rows

    def test_chords(self, font: Font) -> None:
        for take in chord_takes(font, 12):
            for row in take.rows:
                pitches = sorted({note.pitch for note in starting(take, float(str(row["start"])), 0.2)})
                wanted = {step % 12 for step in CHORDS[str(row["chord"])]}
                assert any({(pitch - root) % 12 for pitch in pitches} == wanted for root in pitches)

    def test_drums(self, font: Font) -> None:
        (take,) = drum_takes(font, 2)
        assert len(take.rows) == 2 * len(GM_KEYS)
        for row in take.rows:
            (note,) = starting(take, float(str(row["start"])))
            assert note.channel == DRUM_CHANNEL
            assert row["drum"] == GM_KEYS[note.pitch]


class TestPieces:
    def test_phrases_name_who_plays(self, font: Font) -> None:
        takes = list(phrase_takes([font], 12))
        assert [len({row["track"] for row in take.rows}) for take in takes] == [10, 2]
        for take in takes:
            played = read_midi(take.midi)
            for row in take.rows:
                start, end = float(str(row["start"])), float(str(row["end"]))
                there = {
                    "drums" if note.drum else PROGRAMS[note.program]
                    for note in played
                    if note.start < end - 0.3 and note.end > start + 0.3
                }
                named = set(row["instruments"])  # type: ignore[call-overload]
                assert named <= {"drums" if note.drum else PROGRAMS[note.program] for note in played}
                assert len(named ^ there) <= 1  # of one who plays an instant

    def test_midi_files(self, font: Font, tmp_path: Path) -> None:
        file = tmp_path / "openttd-openmsx" / "usr" / "tune.mid"
        file.parent.mkdir(parents=True)
        tune = [Note(0, 4, 60, channel=0), Note(6, 12, 50, channel=1), Note(0, 12, 36, channel=DRUM_CHANNEL)]
        file.write_bytes(write_midi(tune, [*program(0, 0, 40), *program(0, 1, 114)]))
        (take,) = midi_takes(tmp_path, [font], 2)  # there is one soundfont
        assert [row["instruments"] for row in take.rows] == [["drums", "violin"], ["drums", "steel drums"]]
        assert {row["track"] for row in take.rows} == {"openttd-openmsx/tune"}

    def test_validation_has_its_own_scores_and_soundfonts(self, font: Font, tmp_path: Path) -> None:
        other = Font("others", font.file, "valid", font.melodic, font.kits)
        tune = [[start * 0.5, start * 0.5 + 0.5, 60 + start % 7] for start in range(40)]
        lines = [json.dumps({"name": f"piece {number}", "parts": [tune, tune]}) for number in range(20)]
        (tmp_path / "scores.jsonl").write_text("\n".join(lines))
        takes = list(score_takes(tmp_path, [font, other]))
        assert len(takes) == 20
        assert {row["split"] for take in takes for row in take.rows} == {"train", "valid"}
        for take in takes:
            assert {row["split"] for row in take.rows} == {take.font.split}
            assert len({note.channel for note in read_midi(take.midi)}) == 2
        groups = {(row["group"], row["split"]) for take in takes for row in take.rows}
        assert len(groups) == 2  # a group is on one side

    def test_no_scores(self, font: Font, tmp_path: Path) -> None:
        assert not list(score_takes(tmp_path, [font]))

    def test_music21_is_asked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "music21", None)
        with pytest.raises(SystemExit):
            scores.main([str(tmp_path)])
        assert "pip install music21" in capsys.readouterr().err


class TestSoundfonts:
    def test_presets(self, font: Font) -> None:
        assert [(bank, number) for bank, number, _ in synth.presets(font.file)] == PRESETS

    def test_no_soundfont(self, tmp_path: Path) -> None:
        (tmp_path / "a.sf2").write_bytes(b"nothing")
        with pytest.raises(synth.SynthError, match="no table of presets"):
            synth.presets(tmp_path / "a.sf2")


@pytest.mark.skipif(
    shutil.which("fluidsynth") is None, reason="fluidsynth is not installed: apt-get install fluidsynth"
)
class TestSound:
    def test_pitch_and_place(self, font: Font, tmp_path: Path) -> None:
        """Sines: each clip has the pitch that its row says from its start on, and between clips there is silence."""
        dry = next(take for take in note_takes(font, 25) if take.settings["synth.reverb.active"] == 0)
        assert render.render(tmp_path, dry)
        samples, rate = soundfile.read(tmp_path / dry.path)
        assert rate == synth.SAMPLE_RATE
        for row in dry.rows:
            start, end = round(float(str(row["start"])) * rate), round(float(str(row["end"])) * rate)
            note = samples[start + rate // 50 : start + rate // 6]
            spectrum = np.abs(np.fft.rfft(note * np.hanning(len(note)), 1 << 17))
            hz = spectrum.argmax() * rate / (1 << 17)
            assert 12 * np.log2(hz / 440) + 69 == pytest.approx(float(str(row["pitch"])), abs=0.45)
            assert np.abs(samples[start - rate // 50 : start - 64]).max() < 0.01 * np.abs(note).max()
            assert np.abs(samples[end + rate // 8 : end + rate // 6]).max(initial=0) < 1e-3

    def test_what_is_there_is_left_alone(self, font: Font, tmp_path: Path) -> None:
        take = next(note_takes(font, 2))
        (tmp_path / take.path).parent.mkdir(parents=True)
        (tmp_path / take.path).write_bytes(b"here")
        assert render.render(tmp_path, take)
        assert (tmp_path / take.path).read_bytes() == b"here"

    def test_silent_clips_are_left_out(self, font: Font, tmp_path: Path) -> None:
        take = next(note_takes(font, 3))
        (tmp_path / take.path).parent.mkdir(parents=True)
        for loud in range(3):
            spans = [(float(str(row["start"])), float(str(row["end"]))) for row in take.rows]
            samples = np.full(round(spans[-1][1] * 1000), 1e-4)  # -80 dB
            start, end = spans[loud]
            samples[round(start * 1000) : round(end * 1000)] = 0.01
            soundfile.write(tmp_path / take.path, samples, 1000, subtype="PCM_16")
            assert list(render.audible(tmp_path, take)) == [take.rows[loud]]

    def test_a_soundfont_that_is_none(self, font: Font, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        broken = Font("sines", tmp_path / "gone.sf2", "train", [0], [0])
        take = next(note_takes(broken, 2))
        assert not render.render(tmp_path, take)
        assert take.path in capsys.readouterr().err
        assert not (tmp_path / take.path).exists()

    @pytest.fixture
    def corpus(self, tmp_path: Path) -> Iterator[Path]:
        for name in ("csound-soundfont", "timgm6mb-soundfont"):
            (tmp_path / name / "usr").mkdir(parents=True)
            write_soundfont(tmp_path / name / "usr" / f"{name}.sf2", [*((0, n) for n in range(128)), (128, 0)])
        yield tmp_path

    def test_smoke(self, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert render.main([str(corpus), "--smoke"]) == 0
        rows = list(tables.read_table(corpus / "notes.csv"))
        assert {row["kind"] for row in rows} == {"notes", "chords", "drum notes"}
        assert {row["kind"] for row in tables.read_table(corpus / "pieces.csv")} == {"phrases"}
        for row in rows:
            assert float(row["end"]) <= soundfile.info(corpus / row["path"]).duration + 0.3
        before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*.flac")}
        assert render.main([str(corpus), "--smoke"]) == 0
        assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*.flac")} == before


def test_without_fluidsynth(font: Font, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(synth.SynthError, match="apt-get install fluidsynth"):
        synth.play_midi(b"", font.file, tmp_path / "a.flac", {})
    with pytest.raises(synth.SynthError, match="apt-get install openmpt123"):
        synth.play_module(font.file, tmp_path / "a.flac")


def test_an_empty_corpus(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        render.main([str(tmp_path)])
