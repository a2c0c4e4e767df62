"""Render what has exact labels: ``python -m models.recipe.render CORPUS`` writes ``notes.csv`` and ``pieces.csv``.

Needs Debian's fluidsynth and openmpt123. Sound files go to ``CORPUS/rendered/``; those that are there already are
left alone, so the same command again goes on where it stopped. Tracker music is rendered first, with no table:
``models.recipe.segments`` takes it for music like any other, so run that afterwards.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from models.recipe.corpus import SMOKE, Package, read_corpus
from models.recipe.drums import GM_KEYS
from models.recipe.pieces import midi_takes, phrase_takes, score_takes
from models.recipe.segments import SILENCE
from models.recipe.synth import SynthError, play_midi, play_module, presets
from models.recipe.tables import write_table
from models.recipe.takes import Font, Take, chord_takes, drum_takes, note_takes


class Amounts(NamedTuple):
    """How much is rendered.

    Attributes:
        notes: per program of a soundfont.
        chords: per program of a soundfont that plays chords.
        hits: per drum of a kit.
        phrases: per soundfont.
        versions: soundfonts that play each MIDI file.
    """

    notes: int
    chords: int
    hits: int
    phrases: int
    versions: int


FULL = Amounts(notes=80, chords=12, hits=4, phrases=250, versions=2)
TRIAL = Amounts(notes=6, chords=4, hits=1, phrases=2, versions=1)

_DRUM_BANK = 128
_SAVED = 50  # takes, after which the table is written with what there is
_KITS = (0, 8, 16, 24, 25, 32, 40)  # the kits that General MIDI's drum keys hold for
_KIT_ALONE = (36, 37, 38, 42, 44, 46, 49, 51, 53)  # of soundfonts that are one kit: keys all agree on


def main(arguments: list[str] | None = None) -> int:
    """Render what is missing and write the tables; 0, or 3 if some files failed, which are named."""
    parser = argparse.ArgumentParser(prog="python -m models.recipe.render", description=__doc__)
    parser.add_argument("corpus", type=Path, help="what models.recipe.fetch filled")
    parser.add_argument("--smoke", action="store_true", help="a trial: about a minute of each, with one soundfont")
    options = parser.parse_args(arguments)
    corpus: Path = options.corpus
    packages = [package for package in read_corpus() if not options.smoke or package.name in SMOKE]
    fonts = [font for package in packages for font in find_fonts(corpus, package)]
    fonts.sort(key=lambda font: font.split, reverse=True)  # a run that is cut short has both sides
    failed = [] if options.smoke else [file for package in packages for file in render_modules(corpus, package)]
    if not fonts:
        parser.error(f"{corpus}: no soundfont is there; models.recipe.fetch downloads them")
    if options.smoke:
        fonts = [replace(font, melodic=font.melodic[::40], kits=font.kits[:1]) for font in fonts]
    amounts = TRIAL if options.smoke else FULL
    tables = {"notes": _note_takes(fonts, amounts), "pieces": _piece_takes(corpus, fonts, amounts)}
    for name, takes in tables.items():
        rows: list[dict[str, object]] = []
        for number, take in enumerate(takes, 1):
            if render(corpus, take):
                rows += audible(corpus, take)
            else:
                failed.append(take.path)
            if number % _SAVED == 0:
                write_table(corpus / f"{name}.csv", rows)
        print(f"{name}.csv: {write_table(corpus / f'{name}.csv', rows)} clips", flush=True)
    if failed:
        print(f"{len(failed)} files could not be rendered: {', '.join(failed[:10])}", file=sys.stderr)
    return 3 if failed else 0


def find_fonts(corpus: Path, package: Package) -> Iterator[Font]:
    """The soundfonts of a package, and what they have."""
    root = corpus / package.name
    for file in sorted(root.rglob("*.sf[23]")):
        there = presets(file)
        split = "valid" if package.valid else "train"
        kits = [number for bank, number, _ in there if bank == _DRUM_BANK and number in _KITS]
        if kits:
            melodic = sorted({number for bank, number, _ in there if bank == 0})
            yield Font(package.name, file, split, melodic, kits)
        else:
            yield Font(package.name, file, split, (), (None,), [key for key in GM_KEYS if key in _KIT_ALONE])


def render_modules(corpus: Path, package: Package) -> Iterator[str]:
    """Render the tracker music of a package; those that fail, which are told."""
    root = corpus / package.name
    for module in sorted(root.rglob("*")):
        if package.kind(module.relative_to(root).as_posix()) != "modules":
            continue
        target = corpus / "rendered" / "modules" / package.name / f"{module.name}.flac"
        if target.exists():
            continue
        try:
            play_module(module, target)
        except (SynthError, RuntimeError) as error:
            print(f"{module}: {error}", file=sys.stderr)
            yield str(module)


def render(corpus: Path, take: Take) -> bool:
    """Render a take unless it is there; whether it is there now."""
    target = corpus / take.path
    if not target.exists():
        try:
            play_midi(take.midi, take.font.file, target, take.settings)
        except (SynthError, RuntimeError) as error:
            print(f"{take.path}: {error}", file=sys.stderr)
            return False
    return True


def audible(corpus: Path, take: Take) -> Iterator[dict[str, object]]:
    """The rows of a take that is there, without those of silent clips, such as a soft triangle."""
    samples, rate = soundfile.read(corpus / take.path, dtype="float32")
    for row in take.rows:
        start, end = (round(float(str(row[side])) * rate) for side in ("start", "end"))
        clip = samples[start:end]
        if len(clip) and 10 * np.log10(np.mean(np.square(clip)) + 1e-12) > SILENCE:
            yield row


def _note_takes(fonts: list[Font], amounts: Amounts) -> Iterator[Take]:
    for font in fonts:
        yield from drum_takes(font, amounts.hits)
        yield from chord_takes(font, amounts.chords)
        yield from note_takes(font, amounts.notes)


def _piece_takes(corpus: Path, fonts: list[Font], amounts: Amounts) -> Iterator[Take]:
    orchestras = [font for font in fonts if font.melodic]
    yield from midi_takes(corpus, orchestras, amounts.versions)
    yield from score_takes(corpus, orchestras)
    yield from phrase_takes(orchestras, amounts.phrases)


if __name__ == "__main__":
    sys.exit(main())
