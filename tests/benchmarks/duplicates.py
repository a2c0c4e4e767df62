"""Precision and recall of ``poolembed duplicates`` on re-encodings of real tracks, and the threshold that follows.

python -m tests.benchmarks.duplicates FOLDER WORK [--list tracks.csv] [--model base] [--tracks 200] [--kinds 4]

FOLDER has the tracks. --list names them in its column ``path``, and may tell in ``split`` which ones the model was
trained on, and in ``copy_of`` which may be copies of which. Of a fixed sample of the tracks copies are made, each of a
few kinds in turn. They are kept in WORK, with what took long to find out, so that the same command with another model
has only to embed.

Two files are the same recording if one was made of the other here, or if their waveforms correlate: the same track
comes in several packages, and to find that is no mistake.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.embed.manifest import NAME, read_manifest
from poolembed.embed.run import find_songs
from poolembed.search.collection import Collection, open_collection
from poolembed.search.duplicates import THRESHOLD, TOLERANCE, find_duplicates
from tests.benchmarks.common import POOLEMBED, machine, report, say
from tests.benchmarks.duplicate_pairs import Files, by_kind, by_threshold, pairs_of_tracks, percent, score
from tests.benchmarks.reencoded import KINDS, make_copies
from tests.benchmarks.waveforms import SAME, same_recordings

THRESHOLDS = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.9925, 0.995, 0.9975, 0.999, 0.9995)
GRID = np.round(np.arange(0.5, 0.99995, 0.0005), 4)

PRECISION = 0.99
"""Of all pairs, which the default threshold is to reach."""

FALSE_PER_TRACK = 0.002
"""Pairs that the default threshold may find wrongly among tracks of which no copies were made."""

SHORTEST, LONGEST = 10.0, 360.0
"""Seconds of a track of which copies are made."""

Rows = list[dict[str, str]]
Seconds = dict[str, float]


def read_list(folder: Path, table: Path | None) -> tuple[list[Path], Rows]:
    """The tracks, and what is said of each."""
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - as poolembed embed does, links are left as they are
    if table is None:
        paths = [Path(file.path) for file in find_songs([folder]).files]
        return paths, [{} for _ in paths]
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [folder / row["path"] for row in rows], rows


def embed(model: str, paths: Sequence[Path], output: Path) -> Seconds:
    """As users do. What is in the output already stays; returns the length of all that is."""
    say(f"embedding {len(paths)} files")
    command = [POOLEMBED, "embed", "-", "-0", "-o", str(output), "--format", "matrix", "--model", model, "--quiet"]
    done = subprocess.run(command, check=False, input=b"\0".join(map(os.fsencode, paths)))
    if done.returncode not in (0, 3):
        raise SystemExit(f"poolembed embed failed with exit code {done.returncode}")
    records = read_manifest(output / NAME).records.values()
    return {record.abspath: record.duration for record in records if record.duration is not None}


def sample(tracks: Sequence[Path], about: Rows, seconds: Seconds, count: int) -> list[Path]:
    """The tracks to copy, the same ones in every run: those that no model was trained on, and others by chance."""
    usable = [i for i, track in enumerate(tracks) if SHORTEST <= seconds.get(str(track), 0) <= LONGEST]
    order = np.random.default_rng(0).permutation(len(tracks))
    usable.sort(key=lambda i: (about[i].get("split") != "valid", order[i]))
    return [tracks[i] for i in usable[:count]]


def compare_waveforms(
    tracks: Sequence[Path], about: Rows, seconds: Seconds, work: Path
) -> dict[tuple[int, int], float]:
    """Pairs of tracks that could be one recording, with the correlation of their waveforms; kept for the next run."""
    places = {row.get("path"): place for place, row in enumerate(about)}
    suspects = [(place, places[row["copy_of"]]) for place, row in enumerate(about) if row.get("copy_of") in places]
    lengths = [seconds.get(str(track), 0.0) for track in tracks]
    digest = hashlib.blake2b(json.dumps([[*map(str, tracks)], lengths, suspects]).encode(), digest_size=8).hexdigest()
    kept = work / f"waveforms-{digest}.json"
    if not kept.exists():
        # A copy without its first second may be as long as a track that is a second beyond the tolerance.
        readable = [place for place, length in enumerate(lengths) if length]
        found = same_recordings(
            [tracks[place] for place in readable], [lengths[place] for place in readable], TOLERANCE + 1,
            [(readable.index(one), readable.index(other)) for one, other in suspects],
        )  # fmt: skip
        kept.write_text(json.dumps([[readable[one], readable[other], r] for (one, other), r in found.items()]))
    return {(one, other): r for one, other, r in json.loads(kept.read_text())}


def first_of_each(waveforms: dict[tuple[int, int], float], tracks: int) -> NDArray[np.int64]:
    """For each track the first that is the same recording."""
    first = np.arange(tracks)
    for (one, other), r in waveforms.items():
        if r >= SAME:
            low, high = sorted((first[one], first[other]))
            first[first == high] = low
    return first


def choose(files: Files, tracks: Sequence[Path]) -> tuple[float, str]:
    """The lowest threshold that is good enough by one half of the folders, and how it does on the other half."""
    sides = np.array([zlib.crc32(os.fsencode(track.parent)) & 1 for track in tracks])[files.recording]
    chosen = float(GRID[-1])
    for threshold in GRID[::-1].tolist():
        half = score(files, threshold, files.once(sides == 0))
        alone = score(files, threshold, files.once((sides == 0) & (files.kind == "")))
        if half.precision < PRECISION or alone.false > FALSE_PER_TRACK * (sides[files.kind == ""] == 0).sum():
            break
        chosen = threshold
    other = score(files, chosen, files.once(sides == 1))
    alone = score(files, chosen, files.once((sides == 1) & (files.kind == "")))
    text = (
        f"By the tracks of one half of the folders, {chosen:g} is the lowest threshold from which on precision is at "
    )
    text += f"least {percent(PRECISION)} % and no more than {FALSE_PER_TRACK:g} pairs per track are wrong among tracks "
    text += f"alone. On the other half it has a precision of {percent(other.precision)} % and a recall of "
    text += f"{percent(other.recall)} %, and finds {alone.false} wrong pairs among "
    return chosen, text + f"{((sides == 1) & (files.kind == '')).sum()} tracks alone."


def groups(collection: Collection, files: Files) -> tuple[str, dict[str, int]]:
    """What a user would see, and might delete."""
    place = {path: row for row, path in enumerate(files.paths)}
    found = find_duplicates(collection).groups
    listed = right = mixed = 0
    for group in found:
        of = files.recording[[place[song.path] for song in group.songs]]
        listed += len(of) - 1
        right += int((of[1:] == of[0]).sum())
        mixed += bool((of != of[0]).any())
    spare = len(files.paths) - len(np.unique(files.recording))
    text = (
        f"As `poolembed duplicates` lists them, at {THRESHOLD:g}: {len(found)} groups, {mixed} of them with more than "
    )
    text += f"one recording. Of {listed} files beside the best of their groups, {right} "
    text += f"({percent(right / max(listed, 1))} %) are copies of it; {spare} files could be spared in all, so that "
    text += f"{percent(right / max(spare, 1))} % of these are found."
    return text, {"groups": len(found), "mixed": mixed, "listed": listed, "right": right, "spare": spare}


def measure(args: argparse.Namespace) -> tuple[list[Any], dict[str, Any]]:
    tracks, about = read_list(args.folder, args.list)
    args.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        seconds = embed(args.model, tracks, output)
        waveforms = compare_waveforms(tracks, about, seconds, args.work)
        chosen = sample(tracks, about, seconds, args.tracks)
        wanted = [
            (t, KINDS[(n * args.kinds + k) % len(KINDS)]) for n, t in enumerate(chosen) for k in range(args.kinds)
        ]
        copies = make_copies(wanted, Path(os.path.abspath(args.work)))  # noqa: PTH100
        seconds = embed(args.model, list(copies), output)
        collection = open_collection(output)
        number = {str(track): place for place, track in enumerate(tracks)}
        made = {str(copy): (str(track), kind.name) for copy, (track, kind) in copies.items()}
        of = [made.get(path, (path, "")) for path in collection.paths]
        track = np.array([number[path] for path, _ in of])
        lengths = np.array([seconds[path] for path in collection.paths])
        vectors = np.concatenate([block for _, block in collection.blocks()])
        files = Files(
            paths=list(collection.paths),
            track=track,
            kind=np.array([kind for _, kind in of]),
            recording=first_of_each(waveforms, len(tracks))[track],
            cosine=vectors @ vectors.T,
            fits=np.abs(lengths[:, None] - lengths) <= TOLERANCE,
        )
        listed, about_groups = groups(collection, files)
    assert collection.model is not None
    threshold, halves = choose(files, tracks)
    curve, of_thresholds = by_threshold(files, sorted({*THRESHOLDS, THRESHOLD, threshold}))
    kinds, of_kinds = by_kind(files, np.array([about[place].get("split", "") for place in track]))
    found, of_tracks = pairs_of_tracks(files, waveforms)
    model = f"{collection.model.name} ({collection.model.fingerprint})"
    setup = (
        f"Model {model}. {(files.kind == '').sum()} tracks and {len(copies)} copies of {len(chosen)} of them; lengths "
    )
    setup += f"may differ by {TOLERANCE:g} s."
    constants = f"So in `poolembed/search/duplicates.py`: `THRESHOLD = {threshold:g}` and "
    constants += f'`MEASURED_ON = "{collection.model.fingerprint}"`.'
    wrong = [pair for pair in of_tracks if not pair["right"]]
    note = f"{len(of_tracks)} pairs in all, {len(wrong)} of them wrong, {sum(p['one folder'] for p in wrong)} of these "
    note += "of one folder, where tracks share instruments and composer."
    data = {"model": model, "chosen": threshold, "groups": about_groups, "by threshold": of_thresholds}
    data |= {"by kind": of_kinds, "pairs of tracks": of_tracks}
    return [setup, halves, constants, curve, kinds, listed, found, note], data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--list", type=Path, metavar="CSV")
    parser.add_argument("--model", default="base")
    parser.add_argument("--tracks", type=int, default=200, help="of how many copies are made")
    parser.add_argument("--kinds", type=int, default=4, help="copies of each")
    args = parser.parse_args()
    about = machine()
    parts, data = measure(args)
    command = "duplicates FOLDER WORK --list CSV" if args.list else "duplicates FOLDER WORK"
    report("duplicates", "Duplicates", command, about, parts, data)


if __name__ == "__main__":
    main()
