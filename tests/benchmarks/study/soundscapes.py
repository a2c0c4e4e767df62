"""Needles in haystacks: soundscapes of music in which a few short events sound, labelled as a whole.

    python -m tests.benchmarks.study.soundscapes DIR --esc10 ESC10 --music SONGS

Into DIR go

    labels.csv      path, label (several, separated by ;), split, seconds, ebr: 720 train, 120 valid, 200 test
                    soundscapes of 10 to 60 s with one to four events of one to three of ESC-10's classes
    long.csv        the first 60 test soundscapes again, each ten times as long: the same events, at the same level
    strong.jsonl    when each event sounds: path -> [[onset, offset, label], ...]

An event is the loudest 0.5 to 3 s of an ESC-10 clip, without the silence that pads those clips. It is `ebr` dB louder
(root mean square) than the music under it. Events are of ESC-10's folds 1 to 3 in training, 4 in validation and 5 in
test soundscapes, and no piece of music is the bed on two sides.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.study.making import RATE, Samples, Track, loudness, read, tracks, write_clip, write_table

COUNTS = {"train": 720, "valid": 120, "test": 200}
FOLDS = {"train": (1, 2, 3), "valid": (4,), "test": (5,)}
BED_SHARES = {"train": 0.5, "valid": 0.15, "test": 0.35}
LONG, TIMES = 60, 10
SHORTEST, LONGEST = 10.0, 60.0
RATIOS = (0.0, 6.0, 12.0)
"""Event-to-background ratios, in dB; one per soundscape."""
BED_LEVEL = 0.04
FADE = round(0.02 * RATE)


@dataclass(frozen=True)
class Event:
    """A sound and where it starts, as a share of the room there is."""

    label: str
    samples: Samples
    place: float


def cut_event(clip: Samples, seconds: float) -> Samples:
    """The loudest stretch of so many seconds of what is not silence in a clip, shorter if there is less; faded."""
    frame = RATE // 50
    frames = clip[: len(clip) // frame * frame].reshape(-1, frame)
    power = np.square(frames, dtype=np.float64).mean(1)
    heard = np.flatnonzero(power > max(power.max() * 1e-4, 1e-10))  # within 40 dB of the loudest
    first, last = int(heard[0]), int(heard[-1]) + 1
    length = min(round(seconds * 50), last - first)
    sums = np.convolve(power[first:last], np.ones(length), "valid")
    start = first + int(sums.argmax())
    event = clip[start * frame : (start + length) * frame].copy()
    fade = min(FADE, len(event) // 2)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    event[:fade] *= ramp
    event[-fade:] *= ramp[::-1]
    return event


def bed(pieces: list[Samples], random: np.random.Generator, seconds: float) -> Samples:
    """Music of one piece, from anywhere in it, going on from its start at its end; of one level."""
    piece = pieces[int(random.integers(len(pieces)))]
    music = np.resize(np.roll(piece, -int(random.integers(len(piece)))), round(seconds * RATE))
    return (music * (BED_LEVEL / loudness(music))).astype(np.float32)


def draw_events(clips: dict[str, list[Samples]], random: np.random.Generator) -> list[Event]:
    """One to four events of one to three classes."""
    count = int(random.integers(1, 5))
    labels = random.choice(sorted(clips), size=min(count, int(random.integers(1, 4))), replace=False)
    drawn = [*labels, *random.choice(labels, size=count - len(labels))]
    events = []
    for label in drawn:
        clip = clips[label][int(random.integers(len(clips[label])))]
        events.append(Event(str(label), cut_event(clip, random.uniform(0.5, 3.0)), random.uniform()))
    return events


def mix(music: Samples, events: list[Event], ratio: float) -> tuple[Samples, list[tuple[float, float, str]]]:
    """Events over music, each at its place and `ratio` dB above what it covers; and when they sound, in seconds."""
    scene = music.copy()
    when = []
    for event in events:
        start = int(event.place * (len(music) - len(event.samples)))
        under = music[start : start + len(event.samples)]
        # Where the music pauses, the event would vanish with it.
        level = max(loudness(under), BED_LEVEL / 2) * 10 ** (ratio / 20)
        scene[start : start + len(under)] += event.samples * (level / loudness(event.samples))
        when.append((round(start / RATE, 3), round((start + len(under)) / RATE, 3), event.label))
    return scene, sorted(when)


def sides(found: list[Track], random: np.random.Generator) -> dict[str, list[Track]]:
    """Pieces of music for the beds of each side."""
    order = [found[number] for number in random.permutation(len(found))]
    first = round(BED_SHARES["train"] * len(order))
    second = first + max(1, round(BED_SHARES["valid"] * len(order)))
    return {"train": order[:first], "valid": order[first:second], "test": order[second:]}


def esc10_clips(esc10: Path) -> dict[int, dict[str, list[Samples]]]:
    """Per fold, the clips of every class."""
    clips: defaultdict[int, defaultdict[str, list[Samples]]] = defaultdict(lambda: defaultdict(list))
    with (esc10 / "labels.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            clips[int(row["fold"])][row["label"]].append(read(esc10 / row["path"]))
    return {fold: dict(of_class) for fold, of_class in clips.items()}


def make(
    target: Path,
    esc10: Path,
    music: Path,
    *,
    seed: int = 0,
    counts: dict[str, int] | None = None,
    long: int = LONG,
) -> None:
    """Write the set.

    Args:
        target: its folder.
        esc10: the folder of ESC-10, with its ``labels.csv``.
        music: a folder of pieces of music.
        seed: of everything drawn.
        counts: soundscapes of each side.
        long: test soundscapes that are made again, ten times as long.
    """
    by_fold = esc10_clips(esc10)
    beds = sides(tracks(music), np.random.default_rng(seed))
    rows: list[dict[str, Any]] = []
    long_rows: list[dict[str, Any]] = []
    strong: dict[str, list[tuple[float, float, str]]] = {}
    for number, (side, count) in enumerate((counts or COUNTS).items()):
        pieces = [read(track.path) for track in beds[side]]
        clips: defaultdict[str, list[Samples]] = defaultdict(list)
        for fold in FOLDS[side]:
            for label, of_class in by_fold[fold].items():
                clips[label] += of_class
        for index in range(count):
            random = np.random.default_rng([seed, number, index])
            seconds = float(np.round(np.exp(random.uniform(np.log(SHORTEST), np.log(LONGEST))), 2))
            events, ratio = draw_events(clips, random), float(random.choice(RATIOS))

            def add(path: str, into: list[dict[str, Any]], length: float) -> None:
                scene, when = mix(bed(pieces, random, length), events, ratio)  # noqa: B023 - called at once
                write_clip(target / path, scene)
                strong[path] = when
                labels = ";".join(sorted({label for *_, label in when}))
                row = {"path": path, "label": labels, "split": side, "seconds": length, "ebr": ratio}  # noqa: B023
                into.append(row)

            add(f"{side}/{index:03d}.flac", rows, seconds)
            if side == "test" and index < long:
                add(f"long/{index:03d}.flac", long_rows, TIMES * seconds)
    with (target / "strong.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"path": path, "events": when}) + "\n" for path, when in strong.items())
    columns = ["path", "label", "split", "seconds", "ebr"]
    write_table(target / "long.csv", columns, long_rows)
    write_table(target / "labels.csv", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--esc10", type=Path, required=True)
    parser.add_argument("--music", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make(arguments.directory, arguments.esc10, arguments.music, seed=arguments.seed)


if __name__ == "__main__":
    main()
