"""What is rendered: notes, drums and chords of a soundfont, as scores with exact labels.

A take is one sound file: a whole instrument's notes, one after another, so that a soundfont is loaded once for
hundreds of them. Everything random is drawn from a seed that the take's name gives, so that a take is always the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.recipe.drums import GM_KEYS
from models.recipe.gm import PITCHED, PLAYED, PROGRAMS, family, pitch_range
from models.recipe.midi import DRUM_CHANNEL, Control, Note, bend, program, silence, write_midi

CHORDS: dict[str, tuple[int, ...]] = {
    "major": (0, 4, 7),
    "minor": (0, 3, 7),
    "diminished": (0, 3, 6),
    "augmented": (0, 4, 8),
    "suspended fourth": (0, 5, 7),
    "seventh": (0, 4, 7, 10),
    "major seventh": (0, 4, 7, 11),
    "minor seventh": (0, 3, 7, 10),
    "fifth": (0, 7, 12),
    "octave": (0, 12),
}
"""Semitones above the root."""

_CHORDAL = (*range(8), 11, 12, *range(15, 32), *range(40, 47), *range(48, 55), 61, 62, 63, *range(80, 96), 104, 106)
_DRUM_SLOT, _DRUM_CLIP = 1.2, 1.0
_TAIL = 0.4  # seconds of a note's release that belong to its clip


@dataclass(frozen=True)
class Font:
    """A soundfont.

    Attributes:
        package: that it is from.
        file: the soundfont.
        split: train or valid; a soundfont is on one side.
        melodic: programs that it has.
        kits: drum kits that it has, by program; for a font that is one kit alone, None.
        drum_keys: keys whose drum is known.
    """

    package: str
    file: Path
    split: str
    melodic: Sequence[int]
    kits: Sequence[int | None]
    drum_keys: Sequence[int] = tuple(GM_KEYS)

    @property
    def name(self) -> str:
        """Of its folder among what is rendered."""
        return self.file.stem


@dataclass(frozen=True)
class Take:
    """One file to render.

    Attributes:
        path: of the sound file, relative to the corpus.
        font: that plays it.
        midi: the score.
        rows: of the table, each with start and end in the sound file.
        settings: of fluidsynth.
    """

    path: str
    font: Font
    midi: bytes
    rows: list[dict[str, object]]
    settings: Mapping[str, object] = field(default_factory=dict)


def generator(name: str) -> np.random.Generator:
    """Random numbers of one name."""
    return np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))


def about(font: Font, kind: str) -> dict[str, object]:
    """The cells that all clips of a soundfont share."""
    return {"kind": kind, "package": font.package, "group": font.package, "split": font.split}


def room(rng: np.random.Generator, *, wet: bool) -> dict[str, object]:
    """Settings of fluidsynth: a random room, or none."""
    if not wet:
        return {"synth.reverb.active": 0, "synth.chorus.active": 0, "synth.gain": 0.6}
    return {
        "synth.reverb.active": 1,
        "synth.reverb.room-size": round(rng.uniform(0.1, 0.7), 3),
        "synth.reverb.damp": round(rng.uniform(0, 0.8), 3),
        "synth.reverb.level": round(rng.uniform(0.3, 0.9), 3),
        "synth.chorus.active": int(rng.random() < 0.3),
        "synth.gain": 0.6,
    }


def note_takes(font: Font, notes: int) -> Iterator[Take]:
    """Single notes of each program that plays notes, with random pitch, velocity, length and fine tuning."""
    for number in (each for each in font.melodic if each in PLAYED):
        path = f"rendered/notes/{font.name}/{number:03}.flac"
        rng = generator(path)
        wet = rng.random() < 0.5
        low, high = pitch_range(number)
        played, rows = [], []
        controls: list[Control] = program(0, 0, number)
        at = 0.1
        for _ in range(notes):
            pitch = int(rng.integers(low, high + 1))
            held = float(np.exp(rng.uniform(np.log(0.2), np.log(3.0))))
            end = at + held
            controls.append(bend(at, float(rng.normal(0, 8)) if rng.random() < 0.5 else 0.0))
            controls.append(Control(at, 0xB0, (91, int(rng.integers(20, 128)))))  # how much of it goes to the room
            controls.append(Control(at, 0xB0, (1, int(rng.integers(0, 90)) if rng.random() < 0.2 else 0)))  # vibrato
            played.append(Note(at, end, pitch, int(rng.integers(30, 125)), program=number))
            labels = {"program": PROGRAMS[number], "family": family(number), "pitch": pitch}
            if number not in PITCHED:
                del labels["pitch"]
            rows.append({"path": path, "start": at, "end": end + _TAIL, **about(font, "notes"), **labels})
            controls.append(silence(end + _TAIL + 0.1))
            at = end + _TAIL + (1.2 if wet else 0.2)
        yield Take(path, font, write_midi(played, controls), rows, room(rng, wet=wet))


def chord_takes(font: Font, chords: int) -> Iterator[Take]:
    """Chords of each program that plays them, in random inversions."""
    names = list(CHORDS)
    for number in (each for each in font.melodic if each in _CHORDAL):
        path = f"rendered/chords/{font.name}/{number:03}.flac"
        rng = generator(path)
        wet = rng.random() < 0.5
        low, high = pitch_range(number)
        played, rows = [], []
        controls: list[Control] = program(0, 0, number)
        at = 0.1
        for _ in range(chords):
            name = names[rng.integers(len(names))]
            root = int(rng.integers(low, max(high - 16, low + 1)))
            end = at + float(np.exp(rng.uniform(np.log(0.5), np.log(3.0))))
            velocity = int(rng.integers(40, 115))
            turn = int(rng.integers(len(CHORDS[name]))) if len(CHORDS[name]) > 2 and name != "fifth" else 0
            for place, step in enumerate(CHORDS[name]):
                strum = place * float(rng.choice([0, 0, 0.02, 0.05]))
                pitch = root + step + (12 if place < turn else 0)
                played.append(Note(at + strum, end, pitch, velocity, program=number))
            labels = {"program": PROGRAMS[number], "family": family(number), "chord": name}
            rows.append({"path": path, "start": at, "end": end + _TAIL, **about(font, "chords"), **labels})
            controls.append(silence(end + _TAIL + 0.1))
            at = end + _TAIL + (1.2 if wet else 0.2)
        yield Take(path, font, write_midi(played, controls), rows, room(rng, wet=wet))


def drum_takes(font: Font, hits: int) -> Iterator[Take]:
    """Each drum of each kit, at random velocities."""
    for kit in font.kits:
        path = f"rendered/drums/{font.name}/{0 if kit is None else kit:03}.flac"
        rng = generator(path)
        channel = 0 if kit is None else DRUM_CHANNEL
        keys = rng.permutation(np.repeat(font.drum_keys, hits))
        played, rows = [], []
        controls: list[Control] = program(0, channel, kit or 0)
        for number, key in enumerate(keys.tolist()):
            at = 0.1 + number * _DRUM_SLOT
            played.append(Note(at, at + 0.3, key, int(rng.integers(30, 128)), channel))
            controls.append(silence(at + _DRUM_CLIP + 0.1, channel))
            labels = {"drum": GM_KEYS[key]}
            rows.append({"path": path, "start": at, "end": at + _DRUM_CLIP, **about(font, "drum notes"), **labels})
        yield Take(path, font, write_midi(played, controls), rows, room(rng, wet=False))
