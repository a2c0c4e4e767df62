"""Pieces for several instruments: scores from Debian and music21, and phrases that are made up, with who plays when."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.recipe.corpus import read_corpus
from models.recipe.gm import PROGRAMS, pitch_range
from models.recipe.midi import DRUM_CHANNEL, Control, Note, program, read_midi, write_midi
from models.recipe.phrases import STRUCK, SUSTAINED, phrase
from models.recipe.segments import SECONDS
from models.recipe.takes import Font, Take, about, generator, room

_LONGEST = 150.0  # seconds of a MIDI file
_LONGEST_SCORE = 50.0  # and of a score from music21
_HEARD = 0.2  # seconds in a clip, from which an instrument counts
_VALID_SCORES = 8  # one in so many scores is for validation
_PHRASE = 2 * SECONDS
_PAUSE = 1.5  # seconds between phrases, for what rings on
_PHRASES_A_FILE = 10


def midi_takes(corpus: Path, fonts: Sequence[Font], versions: int) -> Iterator[Take]:
    """The MIDI files of the corpus, each played by so many soundfonts, as they name their instruments."""
    for package in read_corpus():
        root = corpus / package.name
        for file in sorted(root.rglob("*")):
            if not file.is_file() or package.kind(file.relative_to(root).as_posix()) != "midi":
                continue
            notes = [note for note in read_midi(file.read_bytes()) if note.start < _LONGEST]
            if notes:
                side = "valid" if package.valid else "train"
                track = f"{package.name}/{file.stem}"
                yield from _versions(track, notes, fonts, side, versions, group=package.name)


def score_takes(corpus: Path, fonts: Sequence[Font]) -> Iterator[Take]:
    """The scores that ``models.recipe.scores`` wrote, on random instruments, at random speeds and transpositions."""
    file = corpus / "scores.jsonl"
    if not file.is_file():
        return
    for number, line in enumerate(file.read_text().splitlines()):
        score = json.loads(line)
        track = f"music21/{score['name']}"
        rng = generator(track)
        speed, shift = float(rng.uniform(0.8, 1.3)), int(rng.integers(-4, 5))
        parts = [[(on / speed, off / speed, pitch + shift) for on, off, pitch in part] for part in score["parts"]]
        notes = _orchestrate(parts, rng)
        if notes:
            side = "valid" if number % _VALID_SCORES == 0 else "train"
            yield from _versions(track, notes, fonts, side, 1, group="music21")


def phrase_takes(fonts: Sequence[Font], phrases: int) -> Iterator[Take]:
    """Made-up phrases: chords, bass, melody and drums, or some of them, on random instruments; some to a file."""
    for font in fonts:
        for first in range(0, phrases, _PHRASES_A_FILE):
            path = f"rendered/phrases/{font.name}-{first:04}.flac"
            known = about(font, "phrases")
            notes: list[Note] = []
            rows: list[dict[str, object]] = []
            for number in range(first, min(first + _PHRASES_A_FILE, phrases)):
                at = (number - first) * (_PHRASE + _PAUSE)
                track = f"phrases/{font.name}-{number:04}"
                made = phrase(generator(track), _PHRASE)
                for row in _clips(made, _PHRASE):
                    start, end = float(str(row["start"])) + at, float(str(row["end"])) + at
                    rows.append({"path": path, "track": track, **known, **row, "start": start, "end": end})
                notes += [replace(note, start=note.start + at, end=min(note.end, _PHRASE) + at) for note in made]
            rng = generator(path)
            yield Take(path, font, write_midi(notes, _programs(notes)), rows, room(rng, wet=rng.random() < 0.6))


def _versions(
    track: str,
    notes: Sequence[Note],
    fonts: Sequence[Font],
    side: str,
    versions: int,
    *,
    group: str,
) -> Iterator[Take]:
    rng = generator(f"fonts {track}")
    able = [font for font in fonts if font.split == side]
    for number in rng.permutation(len(able))[:versions].tolist():
        font = able[number]
        path = f"rendered/pieces/{track}-{font.name}.flac"
        length = max(note.end for note in notes)
        known = {**about(font, "pieces"), "track": track, "group": f"{group} {side}"}
        rows = [{"path": path, **known, **row} for row in _clips(notes, length)]
        yield Take(path, font, write_midi(notes, _programs(notes)), rows, room(rng, wet=rng.random() < 0.6))


def _clips(notes: Sequence[Note], length: float) -> Iterator[dict[str, object]]:
    """Clips of a piece, and the instruments that are heard in each."""
    for number in range(int(length / SECONDS)):
        start, end = number * SECONDS, (number + 1) * SECONDS
        heard: dict[str, float] = {}
        for note in notes:
            name = "drums" if note.drum else PROGRAMS[note.program]
            there = min(note.end, end) - max(note.start, start)
            if there > 0:
                heard[name] = heard.get(name, 0.0) + (max(there, 0.1) if note.drum else there)
        players = sorted(name for name, seconds in heard.items() if seconds >= _HEARD)
        if players:
            yield {"start": start, "end": end, "instruments": players}


def _programs(notes: Sequence[Note]) -> list[Control]:
    """Changes of program, as the notes need them."""
    controls: list[Control] = []
    now: dict[int, int] = {}
    for note in notes:
        if now.get(note.channel) != note.program:
            now[note.channel] = note.program
            controls += program(note.start, note.channel, note.program)
    return controls


def _orchestrate(parts: Sequence[Sequence[tuple[float, float, int]]], rng: np.random.Generator) -> list[Note]:
    """Give each part of a score an instrument whose range it fits."""
    notes = []
    pool = SUSTAINED if rng.random() < 0.7 else STRUCK
    one = rng.random() < 0.2  # all parts on one instrument, such as an organ or a piano
    channels = [channel for channel in range(16) if channel != DRUM_CHANNEL]
    chosen: int | None = None
    for channel, part in zip(channels, parts, strict=False):
        pitches = [pitch for _, _, pitch in part]
        if not pitches:
            continue
        low, high = np.percentile(pitches, (5, 95))
        fitting = [each for each in pool if pitch_range(each)[0] <= low and high <= pitch_range(each)[1]]
        if chosen is None or not one:
            chosen = int(rng.choice(fitting or pool))
        velocity = int(rng.integers(60, 110))
        notes += [
            Note(on, off, pitch, velocity, channel, chosen)
            for on, off, pitch in part
            if on < _LONGEST_SCORE and 12 <= pitch < 120
        ]
    return sorted(notes, key=lambda note: note.start)
