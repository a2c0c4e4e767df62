"""The front end is librosa's mel spectrogram of the whole song, whatever windows it is computed in.

The reference is librosa in float64. How exact to be, in power:

- relative to the largest mel of each frame, 2e-6: the FFT of 2048 float32 samples is good to about u·log2(2048) of
  the frame's largest amplitude, 7e-7, and a power is off by twice its amplitude's error (up to 6e-7 was measured);
- element by element, 1e-4 and 1e-9 of the frame's largest mel: an amplitude error of e·A in a bin whose amplitude is
  r·A is a relative error of 2e/r in its power, so a band 90 dB below the loudest keeps nothing: no elementwise
  relative bound holds without a floor. Recorded music needs 3e-11, a pure chirp 2e-10.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from poolembed.embed.windows import WindowShape, cut_windows
from poolembed.nn.config import FrontendConfig
from poolembed.nn.frontend import LogMel, mel_filterbank
from tests.spectrum import spectrum

Samples = NDArray[np.float32]

FULL = FrontendConfig()
SMALL = FrontendConfig(sample_rate=8000, n_fft=256, hop_length=80, n_mels=20, f_max=4000.0)
FRAMES = 16

CLIPS = sorted(
    path
    for path in (Path(__file__).parents[1] / "clips").rglob("*")
    if path.suffix in {".wav", ".flac", ".ogg", ".mp3"}
)


def reference(samples: Samples, config: FrontendConfig) -> Tensor:
    """Librosa's mel power of a whole song, ``(frames, n_mels)``."""
    bank = librosa.filters.mel(
        sr=config.sample_rate,
        n_fft=config.n_fft,
        n_mels=config.n_mels,
        fmin=config.f_min,
        fmax=config.f_max,
        htk=False,
        norm="slaney",
        dtype=np.float64,
    )
    return torch.from_numpy(np.abs(spectrum(samples, config.n_fft, config.hop_length)) ** 2 @ bank.T)


def blocks_of(samples: Samples, size: int) -> Iterator[Samples]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def windowed(
    samples: Samples, config: FrontendConfig, *, window_frames: int = FRAMES, block: int = 1000
) -> tuple[Tensor, LogMel]:
    """Mel power of a song computed window by window, each by itself, padding cut off; and the front end used."""
    frontend = LogMel(config, mel_filterbank(config))
    shape = WindowShape(window_frames, config.hop_length, config.n_fft)
    parts = []
    for window in cut_windows(blocks_of(samples, block), shape):
        power = frontend.power(torch.from_numpy(window.samples.copy()).unsqueeze(0))
        assert power.shape == (1, window_frames, config.n_mels)
        parts.append(power[0, : window.frames])
    return torch.cat(parts), frontend


def assert_same_power(actual: Tensor, expected: Tensor) -> None:
    assert actual.dtype == torch.float32
    assert actual.shape == expected.shape
    loudest = expected.amax(-1, keepdim=True)
    gap = (actual.double() - expected).abs()
    worst = (gap / loudest.clamp_min(1e-30)).max()
    assert bool((gap <= 2e-6 * loudest).all()), f"{worst:.3g} of the frame's largest mel"
    assert bool((gap <= 1e-4 * expected + 1e-9 * loudest).all()), "element by element"


def noise(count: int, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).uniform(-1, 1, count).astype(np.float32)


def signals(rate: int, count: int) -> dict[str, Samples]:
    """What music is made of, and what is hard: wide dynamics, edges, offsets, near silence."""
    time = np.arange(count) / rate
    chirp = np.sin(2 * np.pi * (50 * time + (rate / 2 - 50) / (2 * time[-1]) * time**2))
    chord = sum(np.sin(2 * np.pi * f * time) * np.exp(-3 * (time % 0.5)) for f in (220.0, 277.2, 329.6, 440.0)) / 4
    clicks = np.zeros(count)
    clicks[:: rate // 7] = 1
    made = {
        "noise": noise(count),
        "chirp": chirp,
        "chord": chord,
        "clicks": clicks,
        "square": np.sign(np.sin(2 * np.pi * 110 * time)),
        "loud sine over quiet noise": np.sin(2 * np.pi * 1000 * time) + 1e-3 * noise(count, 1),
        "quiet": 1e-4 * noise(count, 2),
        "offset": 0.5 + 0.1 * chord,
        "silence, then noise": np.where(time < time[-1] / 2, 0, noise(count, 3)),
    }
    return {name: np.asarray(wave, dtype=np.float32) for name, wave in made.items()}


def test_the_reference_is_librosa() -> None:
    """What ``librosa.feature.melspectrogram(center=True, pad_mode="constant", power=2.0)`` 0.11 made of a chord."""
    made = np.load(Path(__file__).with_name("librosa_mel.npy"))
    ours = reference(signals(SMALL.sample_rate, 4000)["chord"], SMALL).numpy()
    np.testing.assert_allclose(ours, made, rtol=1e-8)


@pytest.mark.parametrize("name", list(signals(8000, 100)))
def test_whole_song_is_librosas(name: str) -> None:
    samples = signals(FULL.sample_rate, 3 * FULL.sample_rate + 17)[name]
    power, _ = windowed(samples, FULL, block=4096)
    assert_same_power(power, reference(samples, FULL))


def test_there_is_recorded_music_to_test_on() -> None:
    assert len(CLIPS) >= 3, "without clips the next test is empty"


@pytest.mark.parametrize("clip", CLIPS, ids=lambda path: path.name)
def test_recorded_music_is_librosas(clip: Path) -> None:
    # Read as if it were at the model's rate: the mel bands move, the arithmetic does not.
    samples = soundfile.read(clip, dtype="float32", always_2d=True, frames=10 * FULL.sample_rate)[0].mean(axis=1)
    power, frontend = windowed(samples, FULL, window_frames=256, block=65536)
    expected = reference(samples, FULL)
    assert_same_power(power, expected)
    got = power.clamp_min(frontend.config.log_floor).log().double()
    # In the log, where the encoder reads it, a relative error in power is an absolute one; 2e-4 was measured.
    assert (got - expected.clamp_min(FULL.log_floor).log()).abs().max().item() <= 1e-3


W = FRAMES * SMALL.hop_length
HALF = SMALL.n_fft // 2


@settings(max_examples=60)
@given(count=st.integers(1, 4 * W), block=st.integers(1, 5000))
@example(count=1, block=1)
@example(count=SMALL.hop_length - 1, block=7)
@example(count=SMALL.hop_length, block=7)
@example(count=SMALL.hop_length + 1, block=7)
@example(count=2 * SMALL.hop_length, block=80)
@example(count=W - 1, block=W)
@example(count=W, block=W)
@example(count=W + 1, block=W)
@example(count=W - SMALL.hop_length - 1, block=W)
@example(count=W - SMALL.hop_length, block=W)
@example(count=W - SMALL.hop_length + 1, block=W)
@example(count=W - SMALL.hop_length + HALF - 1, block=W)
@example(count=W - SMALL.hop_length + HALF, block=W)
@example(count=W - SMALL.hop_length + HALF + 1, block=W)
@example(count=W - HALF, block=W)
@example(count=2 * W - SMALL.hop_length, block=1)
@example(count=3 * W, block=HALF)
def test_any_length_in_any_blocks(count: int, block: int) -> None:
    samples = noise(count, seed=count)
    power, _ = windowed(samples, SMALL, block=block)
    assert len(power) == 1 + count // SMALL.hop_length
    assert_same_power(power, reference(samples, SMALL))


@pytest.mark.parametrize("window_frames", [1, 2, 3, 16, 1000])
def test_any_window_length(window_frames: int) -> None:
    samples = noise(20 * SMALL.hop_length + 11)
    power, _ = windowed(samples, SMALL, window_frames=window_frames)
    assert_same_power(power, reference(samples, SMALL))


@pytest.mark.parametrize("config", [FULL, SMALL], ids=["full", "small"])
@pytest.mark.parametrize("offset", [-1, 0, 1])
@pytest.mark.parametrize("place", ["first sample", "window start", "window edge", "last reach", "last sample"])
def test_an_impulse_where_windows_meet(config: FrontendConfig, offset: int, place: str) -> None:
    # One sample that both neighbours' edge frames must see: with a sample of context too few, or one misplaced, the
    # frames on one side of the edge lose it. Their neighbours see nothing at all, so there is nothing to hide behind.
    span, half = FRAMES * config.hop_length, config.n_fft // 2
    count = 3 * span
    at = {
        "first sample": 1 + offset,
        "window start": span - half + offset,
        "window edge": span + offset,
        "last reach": span - config.hop_length + half + offset,
        "last sample": count - 2 + offset,
    }[place]
    samples = np.zeros(count, dtype=np.float32)
    samples[at] = 1
    power, _ = windowed(samples, config)
    expected = reference(samples, config)
    assert_same_power(power, expected)
    assert bool(((power.amax(-1) > 0) == (expected.amax(-1) > 0)).all()), "heard in the same frames"


def test_edge_frames_are_those_of_one_window_over_the_song() -> None:
    samples = noise(6 * W)
    cut, _ = windowed(samples, SMALL)
    whole, _ = windowed(samples, SMALL, window_frames=6 * FRAMES + 1)
    edges = [frame for edge in range(FRAMES, 6 * FRAMES, FRAMES) for frame in range(edge - 2, edge + 2)]
    torch.testing.assert_close(cut[edges], whole[edges], rtol=1e-5, atol=0)


def test_call_is_the_log_of_the_power_above_the_floor() -> None:
    frontend = LogMel(SMALL, mel_filterbank(SMALL))
    samples = torch.from_numpy(np.stack([noise(1000), 1e-4 * noise(1000, 1), np.zeros(1000, np.float32)]))
    mel, power = frontend(samples), frontend.power(samples)
    assert mel.shape == power.shape == (3, 1 + (1000 - SMALL.n_fft) // SMALL.hop_length, SMALL.n_mels)
    assert bool((power[0] > SMALL.log_floor).any()), "noise is above the floor"
    assert bool((power[1] < SMALL.log_floor).any()), "near silence below it"
    torch.testing.assert_close(mel, power.clamp_min(SMALL.log_floor).log(), rtol=0, atol=0)
    assert torch.equal(mel[2], torch.full_like(mel[2], SMALL.log_floor).log()), "silence is the floor, not -inf"


def test_rows_do_not_see_each_other() -> None:
    frontend = LogMel(SMALL, mel_filterbank(SMALL))
    samples = torch.from_numpy(np.stack([noise(1000, seed) for seed in range(5)]))
    batched = frontend.power(samples)
    for row, alone in enumerate(samples):
        torch.testing.assert_close(batched[row], frontend.power(alone.unsqueeze(0))[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("amp", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(amp: torch.dtype) -> None:
    # The power of a full-scale sine, (n_fft / 4)² = 262144, is beyond float16's 65504.
    frontend = LogMel(FULL, mel_filterbank(FULL))
    time = torch.arange(3 * FULL.n_fft) / FULL.sample_rate
    samples = torch.sin(2 * torch.pi * 440 * time).unsqueeze(0)
    plain = frontend(samples)
    with torch.autocast("cpu", dtype=amp):
        cast = frontend(samples)
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, plain, rtol=0, atol=1e-4)


def test_filterbank_is_librosas_and_checked() -> None:
    bank = mel_filterbank(SMALL)
    assert bank.dtype == torch.float32
    expected = librosa.filters.mel(sr=8000, n_fft=256, n_mels=20, fmin=0.0, fmax=4000.0, htk=False, norm="slaney")
    assert torch.equal(bank, torch.from_numpy(expected))
    with pytest.raises(ValueError, match="filterbank"):
        LogMel(SMALL, bank.T)


def test_filterbank_travels_in_the_state_dict() -> None:
    full = LogMel(SMALL, mel_filterbank(SMALL))
    empty = LogMel(SMALL)
    assert list(full.state_dict()) == ["filterbank"], "what a bundle stores: no parameter, no window function"
    empty.load_state_dict(full.state_dict(), strict=True)
    samples = torch.from_numpy(noise(1000)).unsqueeze(0)
    assert torch.equal(empty(samples), full(samples))
    assert list(full.parameters()) == []
