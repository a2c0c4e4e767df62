"""What `tests.benchmarks.steadiness` does to songs is what it says; and what it makes of the vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.benchmarks.steadiness import (
    PIECE,
    PIECES,
    WANTED,
    Excerpt,
    changes,
    excerpts,
    measure,
    repeated,
    unit,
)

RATE = 32_000
TIME = np.arange(32 * RATE) / RATE
CHOICE = {"tempo +5 %", "+1/2 semitone", "+1 semitone"}


def tone(hertz: float = 440.0, channels: int = 2) -> Excerpt:
    """Louder and louder, so that a stretch is known by its level."""
    samples = 0.2 * np.sin(2 * np.pi * hertz * TIME) * (0.5 + TIME / 64)
    return Excerpt(np.stack([samples] * channels, 1).astype(np.float32), RATE)


@pytest.fixture(scope="module")
def changed() -> dict[str, Excerpt]:
    return dict(changes(tone(), np.random.default_rng(0)))


def hertz(excerpt: Excerpt) -> float:
    middle = excerpt.samples[5 * excerpt.rate : 15 * excerpt.rate, 0]
    return float(np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() / 10)


def decibels(samples: NDArray[np.floating]) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(np.square(samples)))))


def test_every_row_is_made(changed: dict[str, Excerpt]) -> None:
    made_of_pieces = {"0.64 s repeated", "0.64 s repeated, inner pieces", "30 s against its three parts"}
    assert set(changed) == (set(WANTED) - made_of_pieces) | CHOICE
    mono = {name for name, _ in changes(tone(channels=1), np.random.default_rng(0))}
    assert set(changed) - mono == {"one channel's polarity"}


def test_what_is_cut_or_silent(changed: dict[str, Excerpt]) -> None:
    song = tone().samples
    for name, seconds in (("40 ms", 0.04), ("0.5 s", 0.5), ("1 s", 1.0)):
        np.testing.assert_array_equal(changed[f"cut by {name}"].samples, song[round(seconds * RATE) :])
    ahead = changed["25 ms of silence in front"].samples
    assert not ahead[:800].any()
    np.testing.assert_array_equal(ahead[800:], song)
    behind = changed["as much silence behind"]
    assert behind.seconds == 64
    assert not behind.samples[len(song) :].any()
    np.testing.assert_allclose(changed["one channel's polarity"].samples.mean(1), 0, atol=1e-7)


def test_levels(changed: dict[str, Excerpt]) -> None:
    song = tone().samples
    for db in (20, 30):
        assert decibels(changed[f"gain -{db} dB"].samples) == pytest.approx(decibels(song) - db, abs=1e-3)
    for db in (20, 10):
        noise = changed[f"white noise {db} dB below"].samples - song
        assert decibels(noise) == pytest.approx(decibels(song) - db, abs=0.05)


def test_pitch_and_tempo(changed: dict[str, Excerpt]) -> None:
    assert changed["tempo +5 %"].seconds == pytest.approx(32 / 1.05, abs=0.1)
    assert hertz(changed["tempo +5 %"]) == pytest.approx(440, abs=1)
    for name, semitones in (("+1/2 semitone", 0.5), ("+1 semitone", 1)):
        assert changed[name].seconds == pytest.approx(32, abs=0.1)
        assert hertz(changed[name]) == pytest.approx(440 * 2 ** (semitones / 12), abs=1)


def test_codecs(changed: dict[str, Excerpt]) -> None:
    assert changed["22.05 kHz"].rate == 22_050
    for name in ("22.05 kHz", "MP3 64 kb/s"):
        assert changed[name].seconds == pytest.approx(32, abs=0.1)
        assert hertz(changed[name]) == pytest.approx(440, abs=0.2)
        assert not np.array_equal(changed[name].samples, tone().samples)


class Levels:
    """A model whose vector is the level and 1: of softer sounds another one."""

    def embed(self, excerpt: Excerpt) -> NDArray[np.float32]:
        return unit(np.array([np.sqrt(np.mean(np.square(excerpt.samples))), 1], np.float32))

    def pieces(self, excerpt: Excerpt) -> NDArray[np.float32] | None:
        length = round(PIECE * excerpt.rate)
        pieces = np.stack([self.embed(excerpt.changed(part)) for part in excerpt.samples.reshape(PIECES, length, 1)])
        pieces[0] = [1, 0]  # as the first may differ, which has silence beside it
        return pieces


def test_what_is_measured() -> None:
    song = tone()
    vector, found = measure(Levels(), song, dict(changes(song, np.random.default_rng(0))))
    assert set(found) == set(WANTED) | CHOICE
    softer = Levels().embed(song.changed(song.samples * 0.1))
    assert found["gain -20 dB"] == pytest.approx(float(vector @ softer), abs=1e-6)
    assert found["0.64 s repeated"] < 0.5
    assert found["0.64 s repeated, inner pieces"] == pytest.approx(1, abs=1e-5)
    parts = np.stack([Levels().embed(song.changed(song.samples[i * 10 * RATE :][: 10 * RATE])) for i in range(3)])
    whole = Levels().embed(song.changed(song.samples[: 30 * RATE]))
    assert found["30 s against its three parts"] == pytest.approx(float(whole @ unit(parts.mean(0))), abs=1e-6)


def test_a_piece_is_repeated_exactly() -> None:
    samples = repeated(tone(channels=1), RATE).samples.reshape(PIECES, -1)
    assert samples.shape == (16, 20_480)
    assert (samples == samples[0]).all()


def test_songs_are_taken_evenly_and_from_within(tmp_path: Path) -> None:
    for number in range(6):
        soundfile.write(tmp_path / f"{number}.wav", np.tile(tone().samples, (2, 1)), RATE)
    soundfile.write(tmp_path / "7 short.wav", tone().samples[: 20 * RATE], RATE)
    soundfile.write(tmp_path / "8 silent.wav", np.zeros((32 * RATE, 1)), RATE)
    found = excerpts(tmp_path, 3)
    assert list(found) == ["0.wav", "2.wav", "4.wav"]
    assert found["0.wav"].seconds == 60
    assert len(excerpts(tmp_path, 99)) == 6
