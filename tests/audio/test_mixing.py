"""The mean of the channels, those that are turned over, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from poolembed.audio.decode import open_audio
from poolembed.audio.mixing import Downmix
from poolembed.audio.source import open_source
from tests.audio.sounds import Heard, sndfile, tone

RATE = 44_100
SLOW = 1_000  # of songs that are long and cheap; a stretch is 2500 samples


def music(seconds: float = 3, seed: int = 0, rate: int = RATE) -> NDArray[np.float64]:
    """Noise that swells and fades."""
    time = np.arange(int(seconds * rate))
    noise: NDArray[np.float64] = np.random.default_rng(seed).normal(0, 0.1, len(time)) * (1.1 + np.sin(time / rate * 5))
    return noise


def mixed(*channels: NDArray[np.floating], sizes: Sequence[int] = (), rate: int = SLOW) -> NDArray[np.float32]:
    """The mix of a song that comes in blocks of such sizes, and a last one of the rest."""
    blocks = np.split(np.stack(channels).astype(np.float32), np.cumsum(sizes), axis=1)
    return np.concatenate([*Downmix(rate).blocks(block for block in blocks if block.shape[1])])


def note(*channels: NDArray[np.floating], rate: int = RATE) -> str | None:
    """The note of an array."""
    with open_source((np.stack(channels).astype(np.float32), rate), rate) as source:
        for _ in source.blocks():
            pass
        return source.note


def as_far_apart(rate: int = SLOW, seconds: float = 60) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Left and right of songs whose stereo is wide, and none of which loses anything by the plain mean."""
    song, other = music(seconds, 0, rate), music(seconds, 1, rate)
    low = np.convolve(song, np.ones(9) / 3, "same")
    return {
        "unrelated": (song, other),
        "hard left and hard right by turns": (song * (np.arange(len(song)) // 777 % 2), song),
        "one side alone": (song, np.zeros(len(song))),
        "a little against each other": (song, other - 0.1 * song),
        "a soft echo upside down": (song, -0.1 * song),
        "sides as loud as the middle": (song + other, song - other),
        "delayed": (song[:-15], song[15:]),
        "delayed, and the highs gone": (low[:-15], low[15:]),
    }


def test_mean() -> None:
    random = np.random.default_rng(0)
    common = random.normal(size=1_000)
    for channels in (1, 2, 3, 8, 17):
        block = (common + random.normal(size=(channels, 1_000))).astype(np.float32)
        (mean,) = Downmix(RATE).blocks([block])
        np.testing.assert_allclose(mean, block.mean(axis=0), rtol=0, atol=1e-6)
        assert mean.dtype == np.float32 and not np.shares_memory(mean, block)


@pytest.mark.parametrize("name", as_far_apart())
def test_wide_stereo_is_the_plain_mean_to_the_bit(name: str) -> None:
    left, right = (channel.astype(np.float32) for channel in as_far_apart()[name])
    np.testing.assert_array_equal(mixed(left, right), (left + right) / np.float32(2))
    assert note(left, right, rate=SLOW) is None


@given(st.lists(st.integers(1, 9_000), max_size=12), st.integers(2, 4))
def test_the_mix_does_not_depend_on_the_blocks(sizes: list[int], channels: int) -> None:
    song, other = music(20, 0, SLOW), music(20, 1, SLOW)
    changing = np.where(np.arange(len(song)) // 4_321 % 2, 1, -0.9)  # out of phase again and again
    sound = (song, changing * song + 0.2 * other, other, -other)[:channels]
    np.testing.assert_array_equal(mixed(*sound, sizes=sizes), mixed(*sound))


@pytest.mark.parametrize("width", [0, 0.3, 0.6])
def test_a_channel_that_is_turned_over_changes_nothing(width: float) -> None:
    song, side = music(20, 0, SLOW), width * music(20, 1, SLOW)
    left, right = song + side, song - side
    expected = mixed(left, right)
    np.testing.assert_array_equal(mixed(left, -right), expected)
    np.testing.assert_array_equal(mixed(-left, right), -expected)
    np.testing.assert_array_equal(mixed(-left, -right), -expected)


def test_sides_that_are_louder_are_kept() -> None:
    """The middle is 6 dB below the sides: what is audible is these."""
    middle, side = 0.5 * music(20, 0, SLOW), music(20, 1, SLOW)
    np.testing.assert_allclose(mixed(middle + side, middle - side), side, atol=1e-7)


@pytest.mark.parametrize(("first", "end"), [(0, 20_000), (20_000, 40_000), (21_111, 43_210), (38_000, 60_000)])
def test_only_a_part_out_of_phase(first: int, end: int) -> None:
    song = music(60, 0, SLOW)
    sign = np.ones(len(song))
    sign[first:end] = -1
    result = mixed(song, sign * song)
    power = np.add.reduceat(result.astype(np.float64) ** 2, range(0, len(song), 2_500))
    kept = power / np.add.reduceat(song**2, range(0, len(song), 2_500))
    # All is kept, but in the stretches where it changes, of which the louder half is kept.
    assert np.count_nonzero(kept < 0.95) <= 2 and kept.min() > 0.2
    for part in (slice(None, first // 2_500 * 2_500), slice(-(-end // 2_500) * 2_500 + 20, None)):
        np.testing.assert_allclose(result[part], song[part].astype(np.float32), atol=1e-6)


def test_a_change_is_faded() -> None:
    song = 0.1 * np.ones(10_000)
    result = mixed(song, np.where(np.arange(10_000) < 5_900, 1, -1) * song)
    assert np.abs(result[5_900:7_500]).max() < 1e-6  # what was in phase in that stretch is more
    np.testing.assert_allclose(result[7_500:7_520], np.arange(20) / 200, atol=1e-6)
    np.testing.assert_allclose(result[7_520:], 0.1, atol=1e-6)


def test_songs_about_the_threshold_do_not_flutter() -> None:
    """Ten minutes each, as far apart as the mean just stands: signs change once in ten minutes at most."""
    for width in (1.05, 1.1, 1.2, 1.25, 1.5):
        middle, side = music(600, 0, SLOW), width * music(600, 1, SLOW)
        sides = np.abs(mixed(middle + side, middle - side) - side.astype(np.float32)) < 1e-6
        stretches = sides[1_250::2_500]
        assert np.count_nonzero(np.diff(stretches)) <= 1


def test_more_channels_than_two() -> None:
    song, silent = music(9, 0, SLOW), np.zeros(9 * SLOW)
    for channels, expected in [
        ((song, -song, -song, song), song),
        ((song, song, -song), song),
        ((silent, song, silent, -song), song / 2),
        ((*[song] * 5, -song), song * 4 / 6),  # still louder than unrelated channels are: nothing is lost
        ((song, -song, *[silent] * 14), song / 8),
        ((song, -song, *[silent] * 15), silent),  # more than anybody hears are added up as they are
    ]:
        result = mixed(*channels)
        result *= np.sign(result @ expected) or 1  # upside down it sounds the same
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_the_number_of_channels_may_change() -> None:
    song = music(9, 0, SLOW).astype(np.float32)
    stereo = np.stack([song, -song])
    blocks = [stereo[:, :4_000], song[None, 4_000:4_100], np.stack([song] * 3)[:, 4_100:7_000], stereo[:, 7_000:]]
    mix = Downmix(SLOW)
    np.testing.assert_allclose(np.concatenate([*mix.blocks(blocks)]), song, atol=1e-7)
    assert mix.samples == len(song)
    assert mix.finish() == ["channels out of phase: turned over in 6.0 of 9.0 s, lest they cancel"]


def test_silence_is_noted() -> None:
    zeros = np.zeros(RATE)
    assert note(zeros) == note(zeros, zeros) == "silent"
    # Dither of 16 bits is silence, a sample above it is not.
    dither = np.random.default_rng(0).integers(-1, 2, (2, RATE)) / 32_768
    assert note(*dither) == "silent"
    sound = zeros.copy()
    sound[-1] = 0.01
    assert note(sound) is None and note(sound, sound) is None


def test_what_is_turned_over_is_noted() -> None:
    song = music()
    assert note(song, -song) == "channels out of phase: turned over in 3.0 of 3.0 s, lest they cancel"
    song = music(10)
    part = np.where(np.arange(len(song)) < 5 * RATE, 1, -1)
    assert note(song, part * song) == "channels out of phase: turned over in 5.0 of 10.0 s, lest they cancel"


def test_a_tone_on_each_side_is_left_alone() -> None:
    assert note(tone(440, RATE, seconds=3)[:, 0], tone(723, RATE, seconds=3)[:, 0]) is None


@pytest.mark.parametrize("count", [1, 60, 61, 1_000, 65_537])
def test_short_songs(count: int) -> None:
    song = music(2)[:count] + 0.2
    assert note(song, song) is None
    seconds = f"{count / RATE:.1f}"
    assert note(song, -song) == f"channels out of phase: turned over in {seconds} of {seconds} s, lest they cancel"


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
def test_files(tmp_path: Path, container: str) -> None:
    song = tone(440, RATE, seconds=3)
    (tmp_path / "a").write_bytes(sndfile(np.concatenate([song, -song], axis=1), RATE, container))
    heard = Heard(tmp_path / "a")
    assert heard.note is not None and heard.note.startswith("channels out of phase: turned over in 3.")
    assert heard.pitches(0.5, 2.5) == [440, 440]
    (tmp_path / "a").write_bytes(sndfile(np.zeros((3 * RATE, 2)), RATE, container))
    assert Heard(tmp_path / "a").note == "silent"


def test_it_is_said_beside_what_else_is_wrong(tmp_path: Path) -> None:
    song = music()
    samples = np.stack([song, -song], axis=1)
    samples[5] = samples[31] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, RATE, "FLOAT")
    with open_audio(str(tmp_path / "a.wav")) as stream:
        for _ in stream.blocks():
            pass
    turned = "channels out of phase: turned over in 3.0 of 3.0 s, lest they cancel"
    assert stream.note == f"2 NaN or infinite samples taken as 0; {turned}"
