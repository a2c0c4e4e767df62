"""The mean of the channels, and what is said where nothing is left of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from poolembed.audio._mixing import Downmix
from poolembed.audio.decode import open_audio
from poolembed.audio.source import open_source
from tests.audio.sounds import Heard, sndfile, tone

RATE = 44_100


def music(seconds: float = 3, seed: int = 0) -> NDArray[np.float64]:
    """Noise that swells and fades."""
    time = np.arange(int(seconds * RATE))
    noise: NDArray[np.float64] = np.random.default_rng(seed).normal(0, 0.1, len(time)) * (1 + np.sin(time / 9_000))
    return noise


def note(*channels: NDArray[np.float64]) -> str | None:
    """The note of an array."""
    with open_source((np.stack(channels).astype(np.float32), RATE), RATE) as source:
        for _ in source.blocks():
            pass
        return source.note


def test_mean() -> None:
    random = np.random.default_rng(0)
    for channels in (1, 2, 3, 8):
        block = random.normal(size=(channels, 1_000)).astype(np.float32)
        mean = Downmix()(block)
        np.testing.assert_allclose(mean, block.mean(axis=0), rtol=0, atol=1e-6)
        assert mean.dtype == np.float32 and not np.shares_memory(mean, block)


def test_silence_is_noted() -> None:
    zeros = np.zeros(RATE)
    assert note(zeros) == note(zeros, zeros) == "silent"
    # Dither of 16 bits is silence, a sample above it is not.
    dither = np.random.default_rng(0).integers(-1, 2, (2, RATE)) / 32_768
    assert note(*dither) == "silent"
    sound = zeros.copy()
    sound[-1] = 0.01
    assert note(sound) is None and note(sound, sound) is None


def test_channels_that_cancel_are_noted() -> None:
    song = music()
    assert note(song, -song) == "its channels cancel: their mean is silence"
    assert note(song, -0.9 * song) == "its channels cancel: their mean is 26 dB below them"
    # A little of the song's own, as in stereo whose one side is upside down.
    assert note(song, -song + 0.3 * music(seed=1)) == "its channels cancel: their mean is 17 dB below them"
    other = music(seed=1)
    assert note(song, -song, other, -other) == "its channels cancel: their mean is silence"


def test_channels_that_do_not_cancel_are_not() -> None:
    song, other, silent = music(), music(seed=1), np.zeros(3 * RATE)
    for channels in [(song,), (song, song), (song, other), (song, silent), (song, other - 0.3 * song),
                     (song, *[silent] * 15), (song, 0.1 * song), (song, -0.1 * song)]:  # fmt: skip
        assert note(*channels) is None
    tones = tone(440, RATE, seconds=3)[:, 0], tone(723, RATE, seconds=3)[:, 0]
    assert note(*tones) is None


@pytest.mark.parametrize("count", [1, 60, 61, 1_000, 65_537])
def test_short_songs(count: int) -> None:
    song = music(2)[:count] + 0.2
    assert note(song, song) is None
    assert note(song, -song) == "its channels cancel: their mean is silence"


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
def test_files(tmp_path: Path, container: str) -> None:
    song = tone(440, RATE, seconds=3)
    (tmp_path / "a").write_bytes(sndfile(np.concatenate([song, -song], axis=1), RATE, container))
    heard = Heard(tmp_path / "a")
    assert heard.note is not None and heard.note.startswith("its channels cancel: their mean is ")
    (tmp_path / "a").write_bytes(sndfile(np.zeros((3 * RATE, 2)), RATE, container))
    assert Heard(tmp_path / "a").note == "silent"


def test_it_is_said_beside_what_else_is_wrong(tmp_path: Path) -> None:
    song = music()
    samples = np.stack([song, -song], axis=1)
    samples[5] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, RATE, "FLOAT")
    with open_audio(str(tmp_path / "a.wav")) as stream:
        for _ in stream.blocks():
            pass
    assert stream.note == "1 NaN or infinite samples taken as 0; its channels cancel: their mean is silence"
