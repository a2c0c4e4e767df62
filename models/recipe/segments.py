"""Cut the recordings into clips: ``python -m models.recipe.segments CORPUS`` writes ``music.csv`` and ``sounds.csv``.

Every file is decoded once, for its exact length, its level and what it sounds like; ``CORPUS/index.jsonl`` keeps that,
so the same command again looks at new files only. Copies are left out: files of the same bytes, and tracks that are
another track encoded anew. Silent clips are left out too. ``tracks.csv`` lists every track and what became of it.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.recipe.corpus import Kind, Package, read_corpus
from models.recipe.drums import drum_of
from models.recipe.tables import one_label, write_table
from poolembed.audio.source import open_source
from poolembed.audio.tags import read_tags
from poolembed.errors import AudioError

SECONDS = 5.12
"""One window of the model."""
SILENCE = -60.0
"""dB of full scale; a clip whose root mean square is below is left out."""
MUSIC: tuple[Kind, ...] = ("music", "modules")
SOUNDS: tuple[Kind, ...] = ("speech", "drums", "oneshots", "effects")

_RATE = 8000
_FRAME = 1024
_SLICES, _BANDS = 64, 16
_SHORTEST = 0.03  # seconds
_SHORTEST_TRACK = 4.0  # shorter music has little to be recognised by, and is a jingle
_ALIKE, _COMPARED = 0.93, 8.0  # cosine; seconds from which two tracks of one shape cannot be chance
_NOBODY = ("", "unknown", "unknown artist", "various artists")
_CLIPS = Path(__file__).parents[2] / "tests" / "clips"


class Sound(msgspec.Struct, frozen=True):
    """What a file holds.

    Attributes:
        path: relative to the corpus.
        size: bytes, by which a changed file is noticed.
        sha256: of the bytes.
        seconds: decoded length; 0 if it cannot be decoded.
        levels: root mean square of each stretch of `SECONDS`, in dB below full scale.
        signature: 64 x 16 levels in dB over time and frequency, of music.
        artist: by its tags, or nothing.
        title: by its tags, or nothing.
    """

    path: str
    size: int
    sha256: str
    seconds: float
    levels: list[float] = []
    signature: list[int] = []
    artist: str = ""
    title: str = ""


def main(arguments: list[str] | None = None) -> int:
    """Index what is new, then write the tables."""
    parser = argparse.ArgumentParser(prog="python -m models.recipe.segments", description=__doc__)
    parser.add_argument("corpus", type=Path, help="what models.recipe.fetch filled")
    parser.add_argument("--smoke", action="store_true", help="a trial: the clips in tests/clips as two packages")
    options = parser.parse_args(arguments)
    corpus: Path = options.corpus
    packages = _smoke_corpus(corpus) if options.smoke else read_corpus()
    files = list(find_files(corpus, packages))
    if not files:
        parser.error(f"{corpus}: no package of corpus.toml is there; models.recipe.fetch downloads them")
    index = build_index(corpus, files)
    music = [(package, kind, index[path]) for package, kind, path in files if kind in MUSIC and path in index]
    sounds = [(package, kind, index[path]) for package, kind, path in files if kind in SOUNDS and path in index]
    copies = find_copies([sound for _, _, sound in music])
    _write_tracks(corpus / "tracks.csv", music, copies)
    counts = {
        "music": write_table(corpus / "music.csv", _music_rows(music, copies)),
        "sounds": write_table(corpus / "sounds.csv", _sound_rows(sounds)),
    }
    print(f"{len(music)} tracks ({len(copies)} of them copies), {len(sounds)} sounds")
    print(", ".join(f"{name}.csv: {count} clips" for name, count in counts.items()))
    return 0


def find_files(corpus: Path, packages: Iterable[Package]) -> Iterator[tuple[Package, Kind, str]]:
    """The recordings in the corpus, rendered modules among them: package, kind and path relative to the corpus."""
    for package in packages:
        root = corpus / package.name
        for file in sorted(path for path in root.rglob("*") if path.is_file()):
            kind = package.kind(file.relative_to(root).as_posix())
            if kind == "modules":
                rendered = corpus / "rendered" / "modules" / package.name / f"{file.name}.flac"
                if rendered.is_file():
                    yield package, kind, rendered.relative_to(corpus).as_posix()
            elif kind in MUSIC or kind in SOUNDS:
                yield package, kind, file.relative_to(corpus).as_posix()


def build_index(corpus: Path, files: Iterable[tuple[Package, Kind, str]]) -> dict[str, Sound]:
    """What the files hold, by path: from the journal of an earlier run, or decoded now. Undecodable ones are named."""
    journal = corpus / "index.jsonl"
    known: dict[str, Sound] = {}
    if journal.is_file():
        for line in journal.read_bytes().split(b"\n"):
            try:
                sound = msgspec.json.decode(line, type=Sound)
            except msgspec.DecodeError:
                continue  # the last line of a run that was killed
            known[sound.path] = sound
    found = {}
    with journal.open("ab") as out:
        out.write(b"\n")
        for _, kind, path in files:
            size = (corpus / path).stat().st_size
            earlier = known.get(path)
            if earlier is not None and earlier.size == size:
                sound = earlier
            else:
                sound = examine(corpus, path, size, kind)
                out.write(msgspec.json.encode(sound) + b"\n")
                out.flush()
            if sound.seconds > 0:
                found[path] = sound
            else:
                print(f"{path}: cannot be decoded", file=sys.stderr)
    return found


def examine(corpus: Path, path: str, size: int, kind: Kind) -> Sound:
    """What there is to know of a file: hash, length, levels, signature, tags."""
    file = corpus / path
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    try:
        with open_source(file, _RATE) as source:
            samples = np.concatenate(list(source.blocks()))
    except AudioError:
        return Sound(path, size, sha256, 0.0)
    step = round(SECONDS * _RATE)
    pieces = [samples[at : at + step] for at in range(0, len(samples), step)]
    levels = [round(float(10 * np.log10(np.mean(np.square(piece)) + 1e-12)), 1) for piece in pieces]
    signature = _signature(samples).ravel().tolist() if kind in MUSIC else []
    artist, title = _tags(file)
    return Sound(path, size, sha256, len(samples) / _RATE, levels, signature, artist, title)


def _signature(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Levels in dB, (slices of time, bands), of a track of any length."""
    samples = np.pad(samples, (0, max(0, _SLICES * _FRAME - len(samples))))
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(_FRAME), axis=1)))
    edges = np.unique(np.geomspace(4, _FRAME // 2, _BANDS + 1).astype(int))
    bands = np.add.reduceat(power, edges[:-1], axis=1)
    slices = [part.mean(0) for part in np.array_split(bands, _SLICES)]
    levels: NDArray[np.int16] = np.rint(10 * np.log10(np.stack(slices) + 1e-9)).astype(np.int16)
    return levels


def _tags(file: Path) -> tuple[str, str]:
    tags = read_tags(file)
    artist, title = one_label(tags.artist or ""), one_label(tags.title or "")
    return ("" if artist.lower().strip("<>") in _NOBODY else artist), title


def find_copies(tracks: list[Sound]) -> dict[str, str]:
    """Tracks that are an earlier one, byte for byte or encoded anew: path -> the path of the earlier one."""
    copies: dict[str, str] = {}
    first: dict[str, str] = {}
    kept: list[tuple[Sound, NDArray[np.float32]]] = []
    for track in tracks:
        same = first.setdefault(track.sha256, track.path)
        if same != track.path:
            copies[track.path] = same
            continue
        if track.seconds < _COMPARED:
            continue
        signature = np.array(track.signature, np.float32)
        signature -= signature.mean()
        signature /= max(float(np.linalg.norm(signature)), 1e-6)
        for other, shape in kept:
            near = abs(other.seconds - track.seconds) < 0.5 + 0.01 * track.seconds
            if near and float(shape @ signature) > _ALIKE:
                copies[track.path] = other.path
                break
        else:
            kept.append((track, signature))
    return copies


def _music_rows(music: list[tuple[Package, Kind, Sound]], copies: dict[str, str]) -> Iterator[dict[str, object]]:
    for package, kind, sound in music:
        if sound.path in copies:
            continue
        track = one_label(str(Path(sound.path).with_suffix("")))
        about = {
            "kind": kind,
            "package": package.name,
            "group": package.name,
            "split": "valid" if package.valid else "train",
            "artist": sound.artist or package.artist,
        }
        # a jingle is no track that another clip could belong to
        named = {"track": track} if sound.seconds >= _SHORTEST_TRACK else {}
        for start, end in cut(sound):
            yield {"path": sound.path, "start": start, "end": end, **about, **named}


def _sound_rows(sounds: list[tuple[Package, Kind, Sound]]) -> Iterator[dict[str, object]]:
    seen: set[str] = set()
    for package, kind, sound in sounds:
        if sound.sha256 in seen:
            continue
        seen.add(sound.sha256)
        about = {
            "kind": kind,
            "package": package.name,
            "group": package.name,
            "split": "valid" if package.valid else "train",
            "drum": drum_of(Path(sound.path).stem) if kind == "drums" else "",
        }
        for start, end in cut(sound):
            yield {"path": sound.path, "start": start, "end": end, **about}


def cut(sound: Sound) -> Iterator[tuple[float, float]]:
    """Clips of `SECONDS`, one after another, without silent ones; what is left at the end counts from half of that."""
    whole = max(1, int((sound.seconds + SECONDS / 2) / SECONDS))
    for number in range(whole):
        start, end = number * SECONDS, min((number + 1) * SECONDS, sound.seconds)
        if end - start >= _SHORTEST and sound.levels[number] > SILENCE:
            yield start, end


def _write_tracks(file: Path, music: list[tuple[Package, Kind, Sound]], copies: dict[str, str]) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("path", "package", "licence", "folder", "artist", "title", "seconds", "split", "copy_of"))
        for package, _, sound in music:
            artist = sound.artist or package.artist
            folder = Path(sound.path).parent.name
            split = "valid" if package.valid else "train"
            about = (sound.path, package.name, package.licence, folder, artist, sound.title, f"{sound.seconds:.2f}")
            writer.writerow((*about, split, copies.get(sound.path, "")))


def _smoke_corpus(corpus: Path) -> list[Package]:
    """A corpus of the checkout's own clips: half of them train and half validate, as music and as drums."""
    clips = sorted(path for path in _CLIPS.rglob("*") if path.suffix.lower() in (".flac", ".ogg", ".mp3", ".wav"))
    by_name: dict[str, list[Path]] = defaultdict(list)
    for number, clip in enumerate(clips):
        by_name[("smoke-train", "smoke-valid")[number % 2]].append(clip)
    for name, paths in by_name.items():
        for path in paths:
            link = corpus / name / ("drums" if path.parent.name == "drums" else "music") / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.write_bytes(path.read_bytes())
    about = {"licence": "CC0-1.0", "by": "sonic-pi-samples", "music": ("music/*",), "drums": ("drums/*",)}
    return [msgspec.convert({"name": name, "valid": name == "smoke-valid", **about}, Package) for name in by_name]


if __name__ == "__main__":
    sys.exit(main())
