"""Worn copies of the tracks: ``python -m models.recipe.copies CORPUS`` writes ``copies.csv``.

Half a minute of each track once more, through a random equaliser, half of them in a room, and all of them through MP3
or Opus at a low bitrate. A copy has the clips and labels of its track, so that an embedding learns what does not
matter; as ``copy_of`` its rows name the clip that they are a copy of, whose teachers' vectors they are given.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from scipy.signal import oaconvolve

from models.recipe.segments import SECONDS
from models.recipe.tables import read_table, write_table
from models.recipe.takes import generator
from poolembed.audio.excerpt import read_excerpts
from poolembed.errors import AudioError

RATE = 32_000
CLIPS = 6
"""Of a track."""
CODECS = {"opus": ("libopus", 48_000, (16, 24, 32, 48)), "mp3": ("libmp3lame", 32_000, (32, 48, 64, 96))}
"""By suffix: encoder, its sample rate in Hz, and bitrates in kbit/s."""

_TAPS = 511
_ROOM = 0.5  # the share of tracks in one
_KNOTS, _EQ_DB = 7, 5.0
_SMOKE = 3  # tracks

Samples = NDArray[np.float32]


def main(arguments: list[str] | None = None) -> int:
    """Make the copies that are missing, and the table; 0, or 3 if some tracks failed, which are named."""
    parser = argparse.ArgumentParser(prog="python -m models.recipe.copies", description=__doc__)
    parser.add_argument("corpus", type=Path, help="with the music.csv of models.recipe.segments")
    parser.add_argument("--smoke", action="store_true", help=f"a trial: {_SMOKE} tracks")
    options = parser.parse_args(arguments)
    corpus: Path = options.corpus
    tracks: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in read_table(corpus / "music.csv"):
        tracks[row["path"]].append(row)
    rows: list[dict[str, object]] = []
    failed = []
    for path, clips in list(tracks.items())[: _SMOKE if options.smoke else None]:
        rng = generator(f"copy of {path}")
        suffix = sorted(CODECS)[rng.integers(len(CODECS))]
        first, last, chosen = stretch(clips, rng)
        copy = f"copies/{path}.{suffix}"
        if not (corpus / copy).exists():
            try:
                encode(wear(_decode(corpus / path, first, last), rng), corpus / copy, rng)
            except (AudioError, av.FFmpegError) as error:
                print(f"{path}: {error}", file=sys.stderr)
                failed.append(path)
                continue
        for clip in chosen:
            original = f"{path}#t={clip['start']},{clip['end']}"
            placed = {"start": float(clip["start"]) - first, "end": float(clip["end"]) - first}
            # a semicolon would split the cell: such a copy speaks for itself
            known = {"path": copy, "kind": "copies", "copy_of": "" if ";" in path else original}
            rows.append({**clip, **known, **placed})
    print(f"copies.csv: {write_table(corpus / 'copies.csv', rows)} clips")
    return 3 if failed else 0


def stretch(clips: list[dict[str, str]], rng: np.random.Generator) -> tuple[float, float, list[dict[str, str]]]:
    """`CLIPS` clips of a track that follow one another, or all it has: where they start, where they end, their rows."""
    at = int(rng.integers(max(1, len(clips) - CLIPS + 1)))
    first = float(clips[at]["start"])
    chosen = [clip for clip in clips[at:] if float(clip["start"]) < first + (CLIPS - 0.5) * SECONDS]
    return first, float(chosen[-1]["end"]), chosen


def _decode(file: Path, start: float, end: float) -> Samples:
    ((_, samples),) = read_excerpts(file, RATE, [(start, end)])
    return np.asarray(samples, np.float32)


def wear(samples: Samples, rng: np.random.Generator) -> Samples:
    """Equalise at random, perhaps put in a room, and turn up or down; as long as it was."""
    worn = oaconvolve(samples, equaliser(rng), mode="same")
    if rng.random() < _ROOM:
        worn = oaconvolve(worn, room(rng))[: len(samples)]
    level = 10 ** (rng.uniform(-12, 0) / 20)
    return np.asarray(worn * (level / max(float(np.abs(worn).max()), 1e-6)), np.float32)


def equaliser(rng: np.random.Generator) -> Samples:
    """A linear-phase filter whose gain wanders by some decibels over the octaves."""
    hz = np.fft.rfftfreq(_TAPS + 1, 1 / RATE)
    knots = np.geomspace(50, RATE / 2, _KNOTS)
    gain = 10 ** (np.interp(np.log(np.maximum(hz, 1)), np.log(knots), rng.normal(0, _EQ_DB, _KNOTS)) / 20)
    impulse = np.roll(np.fft.irfft(gain), _TAPS // 2)[:_TAPS] * np.hanning(_TAPS)
    return np.asarray(impulse, np.float32)


def room(rng: np.random.Generator) -> Samples:
    """The response of a made-up room: the sound itself, then noise that dies away, high tones first."""
    seconds = rng.uniform(0.15, 1.0)  # until it is 60 dB down
    time = np.arange(int(seconds * RATE)) / RATE
    tail = rng.normal(size=len(time)) * 10 ** (-3 * time / seconds)
    dull = np.convolve(tail, np.ones(4) / 4)[: len(tail)]
    share = np.minimum(time / seconds, 1)
    tail = tail * (1 - share) + dull * share
    tail[: int(rng.uniform(0.001, 0.02) * RATE)] = 0
    tail *= 10 ** (rng.uniform(-15, 0) / 20) / max(float(np.linalg.norm(tail)), 1e-9)
    tail[0] = 1
    return np.asarray(tail, np.float32)


def encode(samples: Samples, target: Path, rng: np.random.Generator) -> None:
    """Write mono samples of `RATE` at a random bitrate; the suffix says which codec. Whole or not at all."""
    encoder, rate, bitrates = CODECS[target.suffix.removeprefix(".")]
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial.{target.name}")
    with av.open(str(partial), "w", format="ogg" if encoder == "libopus" else "mp3") as container:
        stream = container.add_stream(encoder, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate = 1000 * int(rng.choice(bitrates))
        resampler = av.AudioResampler("fltp" if encoder == "libmp3lame" else "flt", "mono", rate)
        for at in range(0, len(samples), RATE):
            frame = av.AudioFrame.from_ndarray(samples[None, at : at + RATE], "flt", "mono")
            frame.sample_rate, frame.pts = RATE, at
            for ready in resampler.resample(frame):
                container.mux(stream.encode(ready))
        for ready in resampler.resample(None):
            container.mux(stream.encode(ready))
        container.mux(stream.encode(None))
    partial.replace(target)


if __name__ == "__main__":
    sys.exit(main())
