"""Made-up phrases: chords, bass, tune and drums, or some of them, on random instruments, in a random key and tempo."""

from __future__ import annotations

import numpy as np

from models.recipe.gm import pitch_range
from models.recipe.midi import DRUM_CHANNEL, Note

SUSTAINED = (*range(16, 24), *range(40, 45), 48, 49, 52, 53, *range(56, 61), *range(64, 80), *range(88, 96))
"""Programs that hold a note."""
STRUCK = (*range(16), *range(24, 32), 45, 46, 104, 105, 106, 107, 108, 114)
"""Programs whose notes die away."""

_TUNES = (*SUSTAINED, *STRUCK, *range(80, 88))
_BASSES = range(32, 40)
_KICK, _SNARE, _HIHAT = 36, 38, 42
_PROGRESSIONS = ("0534", "0340", "5304", "0453", "1400", "0654", "0234", "0034", "5434")
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 5, 7, 9, 10))


def phrase(rng: np.random.Generator, seconds: float) -> list[Note]:
    """The notes of a phrase of four beats to the bar, in order of their start; no two instruments on one channel."""
    beat = 60 / float(rng.uniform(60, 170))
    beats = int(seconds / beat) + 1
    scale = int(rng.integers(12)) + np.array(_SCALES[rng.integers(len(_SCALES))])
    roots = [int(step) for step in _PROGRESSIONS[rng.integers(len(_PROGRESSIONS))]]
    plays = rng.random(4) < (0.8, 0.65, 0.75, 0.5)
    plays[rng.integers(3)] = True
    notes: list[Note] = []
    if plays[0]:
        notes += _chords(rng, scale, roots, beat, beats)
    if plays[1]:
        notes += _bass(rng, scale, roots, beat, beats)
    if plays[2]:
        notes += _tune(rng, scale, beat, beats)
    if plays[3]:
        notes += _drums(rng, beat, beats)
    return sorted((note for note in notes if note.start < seconds), key=lambda note: (note.start, note.channel))


def _above(pitch_class: int, lowest: int) -> int:
    """The first key of a pitch class from a key on."""
    return lowest + (pitch_class - lowest) % 12


def _chords(rng: np.random.Generator, scale: np.ndarray, roots: list[int], beat: float, beats: int) -> list[Note]:
    program, velocity, every = int(rng.choice(SUSTAINED + STRUCK)), _loud(rng), int(rng.choice((1, 2, 4)))
    low = max(48, pitch_range(program)[0])
    notes = []
    for number in range(0, beats, every):
        root = roots[number // 4 % len(roots)]
        for third in (0, 2, 4):
            pitch = _above(int(scale[(root + third) % 7]), low)
            notes.append(Note(number * beat, (number + every * 0.95) * beat, pitch, velocity, 0, program))
    return notes


def _bass(rng: np.random.Generator, scale: np.ndarray, roots: list[int], beat: float, beats: int) -> list[Note]:
    program, velocity, every = int(rng.choice(_BASSES)), _loud(rng), int(rng.choice((1, 2)))
    pitches = [_above(int(scale[root]), 30) for root in roots]
    return [
        Note(number * beat, (number + every * 0.9) * beat, pitches[number // 4 % len(roots)], velocity, 1, program)
        for number in range(0, beats, every)
    ]


def _tune(rng: np.random.Generator, scale: np.ndarray, beat: float, beats: int) -> list[Note]:
    program, velocity = int(rng.choice(_TUNES)), _loud(rng)
    low, high = pitch_range(program)
    lowest = int(np.clip(62, low, max(low, high - 19)))
    step, at = int(rng.integers(7)), 0.0
    notes = []
    while at < beats:
        length = float(rng.choice((0.5, 0.5, 1, 1, 2)))
        step = int(np.clip(step + rng.integers(-2, 3), 0, 10))
        pitch = _above(int(scale[step % 7]), lowest) + 12 * (step // 7)
        if rng.random() < 0.9:  # or a rest
            notes.append(Note(at * beat, (at + length * 0.9) * beat, min(pitch, 120), velocity, 2, program))
        at += length
    return notes


def _drums(rng: np.random.Generator, beat: float, beats: int) -> list[Note]:
    velocity = _loud(rng)
    hits = rng.random((16, 3)) < (0.25, 0.2, 0.6)  # in each sixteenth of a bar: kick, snare, hi-hat
    hits[0::8, 0] = hits[4::8, 1] = True
    return [
        Note(number * beat / 4, number * beat / 4 + 0.1, key, velocity, DRUM_CHANNEL)
        for number in range(4 * beats)
        for drum, key in enumerate((_KICK, _SNARE, _HIHAT))
        if hits[number % 16, drum]
    ]


def _loud(rng: np.random.Generator) -> int:
    return int(rng.integers(55, 110))
