"""Single notes of sixteen instruments, rendered from Debian's two General MIDI soundfonts.

    apt-get install fluidsynth timgm6mb-soundfont fluid-soundfont-gm
    python -m tests.benchmarks.study.notes DIR          # -> DIR/labels.csv and 1,280 clips of 2 s

Label: the instrument. Fold: of an instrument's range of 30 semitones, six in a row; a synthesiser plays a few
neighbouring pitches from one recording, so that neighbours must not stand on both sides.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from tests.benchmarks.study.making import RATE, Samples, loudness, read, write_clip, write_table

SOUNDFONTS = Path("/usr/share/sounds/sf2")
FONTS = {"fluid": "FluidR3_GM.sf2", "tim": "TimGM6mb.sf2"}
PROGRAMS = {  # General MIDI program, from 0, and the lowest of its 30 semitones
    "piano": (0, 40), "harpsichord": (6, 40), "vibraphone": (11, 53), "church_organ": (19, 40),
    "nylon_guitar": (24, 40), "distorted_guitar": (30, 40), "acoustic_bass": (32, 28), "violin": (40, 55),
    "pizzicato": (45, 43), "choir": (52, 48), "trumpet": (56, 54), "french_horn": (60, 41),
    "alto_saxophone": (65, 49), "clarinet": (71, 50), "flute": (73, 60), "sitar": (104, 45),
}  # fmt: skip
FOLDS, BAND = 5, 6
PER_BAND = 8
SECONDS = 2.0
SPACING = 4.0
"""Seconds between the starts of two notes in the rendering, so that one has died away when the next starts."""


def notes(name: str, font: str, seed: int) -> list[dict[str, float]]:
    """Pitch, velocity, length, fold, and silence before the note, of an instrument's notes in one soundfont."""
    instrument = list(PROGRAMS).index(name)
    random = np.random.default_rng([seed, instrument, list(FONTS).index(font)])
    lowest = PROGRAMS[name][1]
    return [
        {
            "pitch": int(lowest + band * BAND + random.integers(BAND)),
            "velocity": int(random.integers(45, 121)),
            "seconds": float(random.uniform(0.25, 1.6)),
            "lead": float(random.uniform(0.0, 0.4)),
            # Each fold has its share of low and of high bands.
            "fold": 1 + (band + instrument) % FOLDS,
        }
        for band in range(FOLDS)
        for _ in range(PER_BAND)
    ]


def midi(program: int, played: list[dict[str, float]]) -> bytes:
    """A MIDI file of one track that plays notes `SPACING` apart; a tick is a millisecond."""

    def variable(number: int) -> bytes:
        out = [number & 0x7F]
        while number := number >> 7:
            out.append(number & 0x7F | 0x80)
        return bytes(reversed(out))

    # 500,000 microseconds a quarter of 500 ticks.
    track = bytes([0, 0xFF, 0x51, 3, 7, 0xA1, 0x20, 0, 0xC0, program])
    now = 0
    for number, note in enumerate(played):
        start = round(1000 * (1 + number * SPACING))
        pitch = int(note["pitch"])
        track += variable(start - now) + bytes([0x90, pitch, int(note["velocity"])])
        length = round(1000 * note["seconds"])
        track += variable(length) + bytes([0x80, pitch, 0])
        now = start + length
    track += variable(round(1000 * SPACING)) + bytes([0xFF, 0x2F, 0])
    header = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1, 500 >> 8, 500 & 255])
    return header + b"MTrk" + len(track).to_bytes(4, "big") + track


def render(font: Path, program: int, played: list[dict[str, float]]) -> Samples:
    """The notes as fluidsynth plays them, without reverb and chorus, mono at `RATE`."""
    with tempfile.TemporaryDirectory() as folder:
        score, audio = Path(folder) / "notes.mid", Path(folder) / "notes.wav"
        score.write_bytes(midi(program, played))
        subprocess.run(
            [*f"fluidsynth -n -i -q -R 0 -C 0 -g 0.5 -r {RATE} -O s16 -F".split(), str(audio), str(font), str(score)],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        return read(audio)


def make(target: Path, *, seed: int = 0, soundfonts: Path = SOUNDFONTS, per_instrument: int | None = None) -> None:
    """Write the set.

    Args:
        target: its folder.
        seed: of everything drawn.
        soundfonts: the folder of the soundfonts.
        per_instrument: fewer notes, for a test.
    """
    if shutil.which("fluidsynth") is None:
        raise SystemExit("fluidsynth is missing: apt-get install fluidsynth timgm6mb-soundfont fluid-soundfont-gm")
    rows = []
    for font, file in FONTS.items():
        for name, (program, _) in PROGRAMS.items():
            played = notes(name, font, seed)[:per_instrument]
            sound = render(soundfonts / file, program, played)
            for number, note in enumerate(played):
                start = round((1 + number * SPACING - note["lead"]) * RATE)
                clip = sound[start : start + round(SECONDS * RATE)]
                if loudness(clip) < 1e-4:
                    raise SystemExit(f"{font} is silent at {name}, pitch {note['pitch']}")
                path = f"{name}/{font}-{number:02d}-{note['pitch']:.0f}.flac"
                write_clip(target / path, clip)
                group = f"{name}-{(int(note['pitch']) - PROGRAMS[name][1]) // BAND}"
                rows.append({"path": path, "label": name, "fold": int(note["fold"]), "group": group})
    write_table(target / "labels.csv", ["path", "label", "fold", "group"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--soundfonts", type=Path, default=SOUNDFONTS)
    arguments = parser.parse_args()
    make(arguments.directory, seed=arguments.seed, soundfonts=arguments.soundfonts)


if __name__ == "__main__":
    main()
