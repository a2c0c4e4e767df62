from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from poolembed.audio import source as source_module
from poolembed.audio.source import open_source
from poolembed.errors import AudioError, UsageError

RATE = 32_000


def read(source: Any, rate: int = RATE) -> tuple[NDArray[np.float32], float, str | None]:
    with open_source(source, rate) as song:
        signal = np.concatenate(list(song.blocks()))
        return signal, song.duration, song.note


def noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def test_file_and_array_of_the_same_song_are_the_same(tmp_path: Path) -> None:
    samples = noise(2, 200_000)
    soundfile.write(tmp_path / "a.wav", samples.T, 44_100, "FLOAT")
    expected = soxr.resample(samples.mean(axis=0), 44_100, RATE, quality="HQ")
    for source in (tmp_path / "a.wav", str(tmp_path / "a.wav"), (samples, 44_100)):
        signal, duration, note = read(source)
        np.testing.assert_array_equal(signal, expected)
        assert signal.dtype == np.float32
        assert duration == 200_000 / 44_100
        assert note is None


def test_blocks_are_small_however_long_the_array() -> None:
    with open_source((noise(1_000_000), RATE), RATE) as song:
        assert max(len(block) for block in song.blocks()) <= 65_536


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_integers_are_scaled_by_their_full_scale(dtype: type[np.signedinteger[Any]]) -> None:
    info = np.iinfo(dtype)
    signal, *_ = read((np.array([info.min, 0, info.max, info.min // 2], dtype), RATE))
    assert signal[[0, 1, 3]].tolist() == [-1, 0, -0.5]
    assert 0.99 < signal[2] <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_unsigned_integers_are_centred(dtype: type[np.unsignedinteger[Any]]) -> None:
    top = int(np.iinfo(dtype).max)
    signal, *_ = read((np.array([0, top // 2 + 1, top // 4 + 1], dtype), RATE))
    assert signal.tolist() == [-1, 0, -0.5]


@given(st.integers(1, 9), st.integers(1, 50))
def test_channels_are_averaged(channels: int, samples: int) -> None:
    array = noise(channels, samples) + 1  # of channels that cancel some are turned over
    np.testing.assert_allclose(read((array, RATE))[0], array.mean(axis=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_taken_as_they_are(dtype: type[np.floating[Any]]) -> None:
    array = np.array([0.25, -3, 100], dtype)
    assert read((array, RATE))[0].tolist() == [0.25, -3, 100]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_integers_given_as_floats_are_noted(dtype: type[np.floating[Any]], tmp_path: Path) -> None:
    unscaled = (noise(2, 100_000) * 32767).astype(dtype)
    note = read((unscaled, RATE))[2]
    assert note is not None
    assert note.startswith("full scale is 1, and samples reach 32")
    soundfile.write(tmp_path / "a.wav", unscaled.astype(np.float32).T, RATE, "FLOAT")
    assert "integers that were not scaled" in (read(tmp_path / "a.wav")[2] or "")


@pytest.mark.parametrize("peak", [1.0, 4.0, 15.9])
def test_floats_that_are_merely_loud_are_not(peak: float) -> None:
    assert read((peak * np.sin(np.arange(9999)), RATE))[2] is None


def test_what_is_not_finite_is_no_peak() -> None:
    assert read((np.array([1, np.inf, np.nan, -np.inf, 0.5]), RATE))[2] == "3 NaN or infinite samples taken as 0"


def test_an_unforeseen_error_is_the_songs_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def fail(*arguments: Any) -> Any:
        raise ZeroDivisionError("a bug")

    soundfile.write(tmp_path / "a.wav", noise(500), RATE)
    for name in ("resample_blocks", "open_audio"):
        monkeypatch.setattr(source_module, name, fail)
        with pytest.raises(AudioError, match="a fault of poolembed: ZeroDivisionError: a bug") as caught:
            read(tmp_path / "a.wav")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caplog.text.count("Traceback") == 2
    assert "a.wav" in caplog.text


def test_the_array_is_left_as_it_was() -> None:
    array = np.array([1, np.nan, 3], np.float32)
    read((array, RATE))
    np.testing.assert_array_equal(array, [1, np.nan, 3])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_samples_that_are_not_finite_become_zero(bad: float) -> None:
    signal, _, note = read((np.array([[1, bad, bad, 3], [1, 1, bad, 3]]), RATE))
    assert signal.tolist() == [1, 0, 0, 3]
    assert note == "2 NaN or infinite samples taken as 0"


def test_nothing_finite_is_an_error() -> None:
    with pytest.raises(AudioError, match="every sample is NaN or infinite"):
        read((np.full(100_000, np.nan), RATE))


@pytest.mark.parametrize(
    ("array", "rate", "error", "message"),
    [
        (np.zeros(0), RATE, AudioError, "no audio samples"),
        (np.zeros((2, 0)), RATE, AudioError, "no audio samples"),
        (np.float32(1), RATE, UsageError, r"not of shape \(\)"),
        (np.zeros((1, 2, 3)), RATE, UsageError, r"not of shape \(1, 2, 3\)"),
        (np.zeros(9, bool), RATE, UsageError, "not bool"),
        (np.zeros(9, complex), RATE, UsageError, "not complex128"),
        (np.array(["a"]), RATE, UsageError, "not <U1"),
        (np.zeros(9), 0, UsageError, "positive whole number of Hz, not 0"),
        (np.zeros(9), -1, UsageError, "positive whole number"),
        (np.zeros(9), 44_100.5, UsageError, "positive whole number"),
        (np.zeros(9), True, UsageError, "positive whole number"),
        (np.zeros((1001, 2)), RATE, UsageError, "looks transposed.*array.T"),
        (np.zeros((44_100, 8)), RATE, UsageError, "looks transposed"),
    ],
)
def test_arrays_that_make_no_sense(array: NDArray[Any], rate: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read((array, rate))


@pytest.mark.parametrize("shape", [(2, 1), (8, 1), (1000, 8), (1001, 9), (8, 1001)])
def test_odd_but_possible_shapes(shape: tuple[int, int]) -> None:
    assert len(read((np.zeros(shape), RATE))[0]) == shape[1]


def test_numpy_integers_are_rates() -> None:
    assert read((np.zeros(9), np.int64(RATE)))[1] == 9 / RATE


@pytest.mark.parametrize("rate", [0, -1])
def test_target_rate_must_be_positive(rate: int) -> None:
    with pytest.raises(UsageError, match="must be positive"):
        open_source((np.zeros(9), RATE), rate)


def test_note_of_a_file_is_passed_on(tmp_path: Path) -> None:
    samples = noise(50_000)
    samples[7] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, RATE, "FLOAT")
    assert read(tmp_path / "a.wav")[2] == "1 NaN or infinite samples taken as 0"


def test_failing_to_open_a_file_is_an_audio_error(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="No such file"):
        open_source(tmp_path / "gone.mp3", RATE)
