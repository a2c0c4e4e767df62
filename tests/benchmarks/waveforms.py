"""Which tracks are the same recording, by their waveforms alone: what a model's answers are held against."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from poolembed.audio.source import open_source
from tests.benchmarks.common import say

RATE = 4000
FRAME = 200
"""Samples, 1/20 s, of a level."""

ALIKE = 0.8
"""Correlation of the levels of two tracks from which on their waveforms are compared."""

SAME = 0.9
"""Correlation of two waveforms from which on they are the same recording. Every re-encoding here is above it."""

Samples = NDArray[np.float32]


def correlate(one: Samples, other: Samples, lag: int) -> float:
    """The largest correlation coefficient, either sign, of two signals that are shifted by up to so many samples."""
    one, other = one - one.mean(), other - other.mean()
    size = 1 << (len(one) + len(other)).bit_length()
    lags = np.fft.irfft(np.fft.rfft(one, size) * np.fft.rfft(other, size).conj(), size)
    near = np.concatenate([lags[: lag + 1], lags[-lag:]])
    return float(np.abs(near).max() / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-9))


@functools.lru_cache(200)
def waveform(track: Path) -> Samples:
    """Mono, at `RATE`."""
    with open_source(str(track), RATE) as source:
        return np.concatenate([*source.blocks(), np.zeros(FRAME, np.float32)])


def levels(track: Path) -> Samples:
    """In dB, every `FRAME`."""
    samples = waveform(track)
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return np.asarray(10 * np.log10(np.square(frames).mean(axis=1) + 1e-8), np.float32)


def same_recordings(
    tracks: Sequence[Path], durations: Sequence[float], tolerance: float, suspects: Iterable[tuple[int, int]] = ()
) -> dict[tuple[int, int], float]:
    """Correlations of the waveforms of all pairs that could be one recording: ``(lower place, higher place) -> r``.

    Pairs are compared if their lengths differ by no more than the tolerance and their levels go alike, or if they are
    suspected anyway.
    """
    order = sorted(range(len(tracks)), key=lambda place: durations[place])
    suspected = {(min(pair), max(pair)) for pair in suspects}
    lag, pairs = round(tolerance * RATE / FRAME), []
    window: list[tuple[int, Samples]] = []
    for number, place in enumerate(order, start=1):
        window = [(other, its) for other, its in window if durations[place] - durations[other] <= tolerance]
        mine = levels(tracks[place])
        for other, its in window:
            pair = (min(place, other), max(place, other))
            if pair in suspected or correlate(mine, its, lag) >= ALIKE:
                pairs.append(pair)
        window.append((place, mine))
        if number % 100 == 0:
            say(f"levels of {number}/{len(tracks)} tracks compared")
    pairs += sorted(suspected - set(pairs))
    say(f"comparing the waveforms of {len(pairs)} pairs")
    return {
        pair: correlate(waveform(tracks[pair[0]]), waveform(tracks[pair[1]]), round(tolerance * RATE)) for pair in pairs
    }
