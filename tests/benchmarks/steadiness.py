"""How steady vectors are: cosine between a song and the same song changed, of any models side by side.

python -m tests.benchmarks.steadiness FOLDER [--models base tiny] [--mn04 WEIGHTS] [--songs 24] [--name steadiness]

FOLDER has real songs of at least 31 seconds, in what libsndfile reads. So many are taken, evenly from their sorted
paths, and of each a minute, or what it has, from a quarter of the way in. That excerpt is embedded as it is and after
each change, at its own rate and in stereo if it is, as ``Model.embed`` takes samples. Every row is the median over the
songs of the cosine between the two vectors, and behind it the lowest:

- *cut by 40 ms, 0.5 s, 1 s*: the beginning is missing.
- *0.64 s repeated*: a stretch of 0.64 s from the middle of the excerpt, at the model's rate, 16 times in a row, and one
  vector per 0.64 s: the lowest cosine among the 16, and among all but the first and the last, which have silence beside
  them.
- *30 s against its three parts*: the whole against the mean of the vectors of its three parts of 10 s.
- *silence in front, behind*: 25 ms in front; behind it as long a silence as the excerpt.
- *one channel's polarity*: the right channel times -1; of stereo songs alone.
- *gain*: times 10^(dB / 20).
- *MP3 64 kb/s, 22.05 kHz*: encoded by LAME; resampled by FFmpeg.
- *white noise*: Gaussian, that many dB below the root mean square of the excerpt.
- *semitones, tempo*: pitch by playing faster and bringing the tempo back, tempo by FFmpeg's atempo. Whether a vector
  ought to stay the same under these is a choice.
- *another song*: every pair of excerpts, the median and the highest: what the others are to be compared with.

WEIGHTS is the checkpoint of EfficientAT mn04 that `models/recipe/README.md` names; its vector is the penultimate layer,
averaged over the excerpt, as the recipe uses it. It gives no vectors over time, and its vectors are not centred: those
of different songs are at 0.5, so that its cosines are to be read beside its last row.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray

from models.recipe.teachers.vectors import Teacher, load_teacher
from poolembed.embed.model import Model, load
from poolembed.embed.run import find_songs
from poolembed.embed.song import Embedded
from tests.benchmarks.common import Table, machine, middle, report, say
from tests.benchmarks.reencoded import Kind, encode

Samples = NDArray[np.float32]
Vector = NDArray[np.float32]

SECONDS, SHORTEST = 60.0, 31.0
PIECE, PIECES = 0.64, 16
OTHER = "another song (median, highest)"
WANTED = {
    "cut by 40 ms": 0.995,
    "cut by 0.5 s": 0.99,
    "cut by 1 s": 0.99,
    "0.64 s repeated": 0.98,
    "0.64 s repeated, inner pieces": 0.98,
    "30 s against its three parts": 0.98,
    "25 ms of silence in front": 0.99,
    "as much silence behind": 0.95,
    "one channel's polarity": 0.95,
    "gain -20 dB": 0.97,
    "gain -30 dB": 0.9,
    "MP3 64 kb/s": 0.9,
    "22.05 kHz": 0.95,
    "white noise 20 dB below": 0.88,
    "white noise 10 dB below": 0.75,
}
"""What the next models are to reach; the other rows are a choice."""


@dataclass(frozen=True)
class Excerpt:
    """``(n, channels)`` samples at a rate in Hz."""

    samples: Samples
    rate: int

    def changed(self, samples: NDArray[np.floating]) -> Excerpt:
        """Other samples at the same rate."""
        return Excerpt(samples.astype(np.float32), self.rate)

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / self.rate


class Embedder(Protocol):
    """A model under test."""

    def embed(self, excerpt: Excerpt) -> Vector:
        """At unit length."""

    def pieces(self, excerpt: Excerpt) -> NDArray[np.float32] | None:
        """A vector for every `PIECE` of a mono excerpt, ``(n, D)``; None from a model that gives none."""


class Ours:
    """A bundle."""

    def __init__(self, name: str) -> None:
        self._model: Model = load(name)

    def embed(self, excerpt: Excerpt) -> Vector:
        """As users do."""
        return self._model.embed(excerpt.samples.T, sample_rate=excerpt.rate)

    def pieces(self, excerpt: Excerpt) -> NDArray[np.float32] | None:
        """As ``--timestamps`` does."""
        (outcome,) = self._model.outcomes([(excerpt.samples[:, 0], excerpt.rate)], seconds=PIECE)
        assert isinstance(outcome, Embedded)
        assert outcome.segments is not None
        return outcome.segments.embeddings


class Theirs:
    """A teacher."""

    def __init__(self, weights: Path) -> None:
        self._teacher: Teacher = load_teacher("mn04", weights)

    def embed(self, excerpt: Excerpt) -> Vector:
        """Mean of the channels, resampled as poolembed does."""
        mono = soxr.resample(excerpt.samples.mean(1), excerpt.rate, self._teacher.sample_rate, "HQ")
        return unit(self._teacher(torch.from_numpy(mono).unsqueeze(0))["penultimate"][0].numpy())

    def pieces(self, excerpt: Excerpt) -> NDArray[np.float32] | None:
        """It has none."""
        return None


def changes(song: Excerpt, random: np.random.Generator) -> Iterator[tuple[str, Excerpt]]:
    """Every change that is compared with the excerpt as it is."""
    x, rate = song.samples, song.rate
    for name, seconds in (("40 ms", 0.04), ("0.5 s", 0.5), ("1 s", 1.0)):
        yield f"cut by {name}", song.changed(x[round(seconds * rate) :])
    silence = np.zeros((len(x), x.shape[1]), np.float32)
    yield "25 ms of silence in front", song.changed(np.concatenate([silence[: round(0.025 * rate)], x]))
    yield "as much silence behind", song.changed(np.concatenate([x, silence]))
    if x.shape[1] == 2:
        yield "one channel's polarity", song.changed(x * np.array([1, -1]))
    for db in (20, 30):
        yield f"gain -{db} dB", song.changed(x * 10 ** (-db / 20))
    level = np.sqrt(np.mean(np.square(x)))
    for db in (20, 10):
        noise = random.standard_normal(x.shape)
        yield f"white noise {db} dB below", song.changed(x + level * 10 ** (-db / 20) * noise)
    yield "MP3 64 kb/s", encoded(song, Kind("MP3", "mp3", 64))
    yield "22.05 kHz", encoded(song, Kind("22.05 kHz", "flac", filter=("aresample", "22050")))
    yield "tempo +5 %", encoded(song, Kind("tempo", "flac", filter=("atempo", "1.05")))
    for name, semitones in (("+1/2 semitone", 0.5), ("+1 semitone", 1.0)):
        ratio = 2 ** (semitones / 12)
        yield name, encoded(Excerpt(x, round(rate * ratio)), Kind(name, "flac", filter=("atempo", f"{1 / ratio:.6f}")))


def encoded(song: Excerpt, kind: Kind) -> Excerpt:
    """What comes back from a file of that kind."""
    with tempfile.TemporaryDirectory() as folder:
        track, copy = Path(folder) / "track.wav", Path(folder) / f"copy.{kind.suffix}"
        soundfile.write(track, song.samples, song.rate, subtype="FLOAT")
        encode(track, copy, kind)
        samples, rate = soundfile.read(copy, dtype="float32", always_2d=True)
    return Excerpt(samples, rate)


def repeated(song: Excerpt, rate: int = 32_000) -> Excerpt:
    """The middle `PIECE` over and over, mono, at the rate of the models."""
    mono = soxr.resample(song.samples.mean(1), song.rate, rate, "HQ")
    length = round(PIECE * rate)
    piece = mono[len(mono) // 2 :][:length]
    return Excerpt(np.tile(piece, PIECES)[:, None], rate)


def measure(model: Embedder, song: Excerpt, changed: Mapping[str, Excerpt]) -> tuple[Vector, dict[str, float]]:
    """The vector of an excerpt, and the cosine after every change."""
    whole = model.embed(song)
    found = {name: float(whole @ model.embed(other)) for name, other in changed.items()}
    half_minute = song.samples[: 30 * song.rate]
    parts = np.stack([model.embed(song.changed(part)) for part in np.split(half_minute, 3)])
    found["30 s against its three parts"] = float(model.embed(song.changed(half_minute)) @ unit(parts.mean(0)))
    pieces = model.pieces(repeated(song))
    if pieces is not None:
        cosines = pieces[:PIECES] @ pieces[:PIECES].T
        found["0.64 s repeated"] = float(cosines.min())
        found["0.64 s repeated, inner pieces"] = float(cosines[1:-1, 1:-1].min())
    return whole, found


def unit(vector: NDArray[np.float32]) -> Vector:
    """At unit length."""
    result: Vector = (vector / np.linalg.norm(vector)).astype(np.float32)
    return result


def excerpts(folder: Path, wanted: int) -> dict[str, Excerpt]:
    """Of so many songs, by path; those that cannot be used are named."""
    long: list[tuple[Path, float]] = []
    for path in sorted(Path(file.path) for file in find_songs([folder]).files):
        try:
            info = soundfile.info(path)
        except soundfile.LibsndfileError:
            continue
        if info.duration >= SHORTEST and info.channels <= 2:
            long.append((path, info.duration))
    if not long:
        raise SystemExit(f"{folder}: no song of {SHORTEST:g} seconds or more that libsndfile reads")
    chosen = (
        [long[place * len(long) // wanted] for place in range(min(wanted, len(long)))] if wanted < len(long) else long
    )
    found = {}
    for path, seconds in chosen:
        start = min(seconds / 4, max(seconds - SECONDS, 0.0))
        rate = soundfile.info(path).samplerate
        samples, _ = soundfile.read(path, round(SECONDS * rate), round(start * rate), dtype="float32", always_2d=True)
        if len(samples) < SHORTEST * rate or np.abs(samples).max() < 0.01:
            say(f"{path}: left out, for it is shorter than its header says, or silent")
            continue
        found[os.path.relpath(path, folder)] = Excerpt(samples, rate)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["base", "tiny"], help="names or paths of bundles")
    parser.add_argument("--mn04", type=Path, metavar="WEIGHTS", help="also measure the teacher")
    parser.add_argument("--songs", type=int, default=24)
    parser.add_argument("--name", default="steadiness", help="of the files in results")
    options = parser.parse_args(arguments)
    about = machine()
    songs = excerpts(options.folder, options.songs)
    models: dict[str, Embedder] = {Path(name).name: Ours(name) for name in options.models}
    if options.mn04:
        models["mn04"] = Theirs(options.mn04)
    cosines: dict[str, dict[str, dict[str, float]]] = {}
    vectors: dict[str, list[Vector]] = {name: [] for name in models}
    for number, (path, song) in enumerate(songs.items()):
        say(path)
        changed = dict(changes(song, np.random.default_rng(number)))
        for name, model in models.items():
            vector, found = measure(model, song, changed)
            vectors[name].append(vector)
            for row, cosine in found.items():
                cosines.setdefault(row, {}).setdefault(name, {})[path] = cosine
    cosines[OTHER] = {
        name: {f"{a} | {b}": float(mine[i] @ mine[j]) for (i, a), (j, b) in combinations(enumerate(songs), 2)}
        for name, mine in vectors.items()
    }
    table = Table("Cosine to the song as it is: median of the songs (lowest)", ["change", *models, "wanted"])
    for row in [*WANTED, *(row for row in cosines if row not in WANTED)]:
        cells = []
        for name in models:
            values = [*cosines.get(row, {}).get(name, {}).values()]
            outer = max if row == OTHER else min
            cells.append(f"{middle(values):.3f} ({outer(values):.3f})" if values else "-")
        table.add(row, *cells, f"{WANTED[row]:g}" if row in WANTED else "-")
    stereo = sum(song.samples.shape[1] == 2 for song in songs.values())
    minutes = sum(song.seconds for song in songs.values()) / 60
    heard = f"{len(songs)} songs, {stereo} of them in stereo, {minutes:.0f} minutes in all."
    command = (
        f"steadiness FOLDER --models {' '.join(Path(name).name for name in options.models)} --songs {options.songs}"
    )
    command += " --mn04 WEIGHTS" if options.mn04 else ""
    report(options.name, "Steadiness of vectors", command, about, [heard, table], {"cosines": cosines})


if __name__ == "__main__":
    main()
