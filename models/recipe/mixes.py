"""New sounds from old: ``python -m models.recipe.mixes CORPUS`` writes ``mixes.csv``.

There is little in the corpus beside music: most of the sounds of the world are not in it. A mix is one to three of its
sounds, each faster or slower, some backwards, laid over one another at random levels, perhaps over made-up noise,
perhaps in a room. Nobody knows what it is, but a teacher has an opinion on it: mixes are for distilling, and have no
labels.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import oaconvolve, resample_poly

from models.recipe.copies import RATE, wear
from models.recipe.segments import SECONDS
from models.recipe.tables import read_table, write_table
from models.recipe.takes import generator
from poolembed.audio.excerpt import read_excerpts
from poolembed.errors import AudioError

SHARES = {"effects": 0.4, "speech": 0.15, "music": 0.15, "modules": 0.05, "oneshots": 0.1, "drums": 0.05, "notes": 0.1}
"""Of the sounds that go into mixes, by kind."""
PER_FILE = 64
"""Mixes."""

_POOL = 48  # sounds that the mixes of a file are made of: each is decoded once, and used two or three times
_SPEEDS = ((1, 2), (2, 3), (3, 4), (4, 5), (1, 1), (1, 1), (5, 4), (4, 3), (3, 2), (2, 1))  # the last is half as fast
_MORE, _BACKWARDS, _NOISE, _WORN, _AGAIN = 0.6, 0.1, 0.2, 0.5, 0.5
_LENGTH = round(SECONDS * RATE)
_SMOKE = 1  # files

Samples = NDArray[np.float32]
Rows = dict[str, list[dict[str, str]]]


def main(arguments: list[str] | None = None) -> int:
    """Make the mixes that are missing, and the table; 0."""
    parser = argparse.ArgumentParser(prog="python -m models.recipe.mixes", description=__doc__)
    parser.add_argument("corpus", type=Path, help="with the tables of the steps before")
    parser.add_argument("--files", type=int, default=300, help=f"of {PER_FILE} mixes each")
    parser.add_argument("--valid", type=int, default=10, help="files made of what validates")
    parser.add_argument("--jobs", type=int, default=2, help="threads")
    parser.add_argument("--smoke", action="store_true", help=f"a trial: {_SMOKE} file that trains")
    options = parser.parse_args(arguments)
    corpus: Path = options.corpus
    wanted = {"train": _SMOKE, "valid": 0} if options.smoke else {"train": options.files, "valid": options.valid}
    for split in (split for split, files in wanted.items() if files and not by_kind(corpus, split)):
        parser.error(f"{corpus}: no clips for {split}; see the steps before in models/recipe/README.md")
    rows: list[dict[str, object]] = []
    for split, files in wanted.items():
        names = [f"mixes/{split}-{number:03}.flac" for number in range(files)]
        make = partial(_make, corpus, split)
        with ThreadPoolExecutor(options.jobs) as pool:
            for _ in pool.map(make, [name for name in names if not (corpus / name).exists()]):
                pass
        for name in names:
            for place in range(PER_FILE):
                at = {"start": place * SECONDS, "end": (place + 1) * SECONDS}
                rows.append({"path": name, **at, "split": split, "group": name, "kind": "mixes"})
    print(f"mixes.csv: {write_table(corpus / 'mixes.csv', rows)} clips")
    return 0


@cache
def by_kind(corpus: Path, split: str) -> Rows:
    """The clips of a side of the corpus that mixes are made of, by kind; read once."""
    rows: Rows = defaultdict(list)
    for table in ("music", "sounds", "notes"):
        for row in read_table(corpus / f"{table}.csv") if (corpus / f"{table}.csv").is_file() else ():
            if row["split"] == split and row["kind"] in SHARES:
                rows[row["kind"]].append(row)
    return rows


def _make(corpus: Path, split: str, name: str) -> None:
    """Write a file of mixes: whole, or not at all."""
    rng = generator(name)
    sounds = list(_sounds(corpus, by_kind(corpus, split), rng))
    if not sounds:
        raise SystemExit(f"{name}: none of its sounds can be decoded; is the corpus whole?")
    mixes = [mix(sounds, rng) for _ in range(PER_FILE)]
    target = corpus / name
    target.parent.mkdir(parents=True, exist_ok=True)
    partial_file = target.with_name(f".partial.{target.name}")
    soundfile.write(partial_file, np.concatenate(mixes), RATE, format="FLAC", subtype="PCM_16")
    partial_file.replace(target)


def _sounds(corpus: Path, rows: Rows, rng: np.random.Generator) -> Iterator[Samples]:
    """Sounds of the corpus, kinds by their shares; one that cannot be decoded is left out."""
    kinds = [kind for kind in SHARES if rows.get(kind)]
    shares = np.array([SHARES[kind] for kind in kinds])
    for kind in rng.choice(kinds, _POOL, p=shares / shares.sum()):
        row = rows[kind][rng.integers(len(rows[kind]))]
        try:
            ((_, samples),) = read_excerpts(corpus / row["path"], RATE, [(float(row["start"]), float(row["end"]))])
        except AudioError as error:
            print(f"{row['path']}: {error}", file=sys.stderr)
            continue
        if np.abs(samples).max() > 1e-4:
            yield np.asarray(samples, np.float32)


def mix(sounds: Sequence[Samples], rng: np.random.Generator) -> Samples:
    """One mix of some of the sounds, `SECONDS` of it, no louder than full scale."""
    mixed = place(sounds[int(rng.integers(len(sounds)))], rng)
    layers = 1
    while layers < 3 and rng.random() < _MORE:
        mixed += place(sounds[int(rng.integers(len(sounds)))], rng) * _level(rng, -20, 0)
        layers += 1
    if rng.random() < _NOISE:
        mixed += noise(rng) * _level(rng, -25, 5)
    if rng.random() < _WORN:
        return wear(mixed, rng)
    return np.asarray(mixed * (_level(rng, -12, 0) / max(float(np.abs(mixed).max()), 1e-6)), np.float32)


def place(sound: Samples, rng: np.random.Generator) -> Samples:
    """A sound at another speed, perhaps backwards, somewhere in a clip, perhaps again and again; all as loud."""
    up, down = _SPEEDS[rng.integers(len(_SPEEDS))]
    changed = sound if up == down else np.asarray(resample_poly(sound, up, down), np.float32)
    if rng.random() < _BACKWARDS:
        changed = changed[::-1]
    changed = changed[:_LENGTH]
    clip = np.zeros(_LENGTH, np.float32)
    at = int(rng.integers(_LENGTH - len(changed) + 1))
    clip[at : at + len(changed)] = changed
    if len(changed) < _LENGTH / 3 and rng.random() < _AGAIN:  # at intervals that are much the same
        step = len(changed) * rng.uniform(1, 3)
        for again in np.arange(at + step, _LENGTH, step):
            start = int(again + rng.normal(0, 0.05) * step)
            end = min(start + len(changed), _LENGTH)
            clip[start:end] += changed[: end - start] if end > start else 0
    return clip / max(float(np.sqrt(np.mean(changed**2))), 1e-6) * np.float32(0.1)


def noise(rng: np.random.Generator) -> Samples:
    """Noise of random colour that swells and ebbs, as wind, rain, engines and crowds do."""
    white = rng.normal(size=_LENGTH)
    taps = 511
    hz = np.fft.rfftfreq(taps + 1, 1 / RATE)
    slope = np.maximum(hz / 500, 0.1) ** rng.uniform(-1.5, 0.5)
    octaves = np.log2(np.maximum(hz, 20) / _between(rng, 100, 8000))
    peak = np.exp(-0.5 * (octaves / rng.uniform(0.2, 1.5)) ** 2)
    impulse = np.roll(np.fft.irfft(slope + rng.uniform(0, 10) * peak), taps // 2)[:taps] * np.hanning(taps)
    coloured = oaconvolve(white, impulse, mode="same")
    time = np.arange(_LENGTH) / RATE
    swell = 1 + rng.uniform(0, 1) * np.sin(2 * np.pi * (_between(rng, 0.1, 30) * time + rng.random()))
    swelling = coloured * swell
    return np.asarray(swelling / np.sqrt(np.mean(swelling**2)) * 0.1, np.float32)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between two, each octave as likely as the next."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _level(rng: np.random.Generator, low: float, high: float) -> np.float32:
    """A factor, from decibels."""
    return np.float32(10 ** (rng.uniform(low, high) / 20))


if __name__ == "__main__":
    sys.exit(main())
