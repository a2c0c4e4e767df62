"""Teachers' vectors of a table's clips: ``python -m models.recipe.teachers.vectors TABLE OUT --teacher mn04 WEIGHTS``.

Writes ``OUT/<teacher>-<output>.parquet``, of each clip its key and a teacher's vector, in float32: what the targets of
``poolembed train``'s distilling objective can be, and what ``poolembed evaluate --embeddings`` takes. Parts of some
hundred clips are kept in ``OUT/.<teacher>/``, so the same command again goes on where it stopped, and another table
costs only the clips that no part has. Clips that cannot be decoded are named and left out. A copy, by the table's
column ``copy_of``, has the vectors of what it is a copy of.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.recipe.teachers.checkpoint import read_checkpoint
from models.recipe.teachers.mobilenet import MobileNetTeacher
from models.recipe.teachers.musicnn import PonsMusicnn, WonMusicnn
from models.recipe.teachers.own import BATCH, OwnTeacher
from models.recipe.teachers.speech import SpeechTeacher
from poolembed.audio.excerpt import read_excerpts
from poolembed.errors import AudioError
from poolembed.labels import Clip, read_labels

_PART = 512  # clips
_SMOKE = 12  # clips, of five seconds: a minute


class Teacher(Protocol):
    """A trained network."""

    @property
    def sample_rate(self) -> int:
        """That its clips must have, in Hz."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it makes."""

    def __call__(self, samples: Tensor) -> dict[str, Tensor]:
        """Mono clips of one length, (B, n), to what it makes of them, each (B, numbers)."""


def load_teacher(name: str, weights: Path) -> Teacher:
    """A teacher by its name.

    Args:
        name: one of `TEACHERS`.
        weights: ``mn04_as_mAP_432.pt``, the wheel of musicnn, a ``best_model.pth`` of sota-music-tagging-models, or a
            bundle of this project.
    """
    return TEACHERS[name](weights)


def _mn04(weights: Path) -> Teacher:
    return MobileNetTeacher(torch.load(weights, map_location="cpu", weights_only=True))


def _won(weights: Path) -> Teacher:
    return WonMusicnn(torch.load(weights, map_location="cpu", weights_only=True), torch.bfloat16)


def _pons(model: str) -> Callable[[Path], Teacher]:
    def load(weights: Path) -> Teacher:
        with zipfile.ZipFile(weights) as wheel:
            index, data = (wheel.read(f"musicnn/{model}/{name}") for name in (".index", ".data-00000-of-00001"))
        tensors = {key: torch.from_numpy(value.copy()) for key, value in read_checkpoint(index, data).items()}
        return PonsMusicnn(tensors, torch.bfloat16)

    return load


TEACHERS: dict[str, Callable[[Path], Teacher]] = {
    "mn04": _mn04,
    "musicnn-mtt": _pons("MTT_musicnn"),
    "musicnn-msd": _pons("MSD_musicnn"),
    "musicnn-mtat": _won,
    "musicnn-jamendo": _won,
    "base": OwnTeacher,
    "speech": SpeechTeacher,
}
"""By name; musicnn-mtat and -jamendo are as trained anew by Won et al."""


def main(arguments: list[str] | None = None) -> int:
    """Compute what is missing; 0, or 3 if some clips could not be decoded."""
    parser = argparse.ArgumentParser(prog="python -m models.recipe.teachers.vectors", description=__doc__)
    parser.add_argument("table", help="of clips")
    parser.add_argument("out", type=Path, help="directory to write to")
    parser.add_argument("--teacher", required=True, nargs=2, metavar=("NAME", "WEIGHTS"), help=", ".join(TEACHERS))
    parser.add_argument("--kind", nargs="+", default=(), help="only clips of these kinds, by the table's column")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--smoke", action="store_true", help=f"a trial: {_SMOKE} clips")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    name, weights = options.teacher
    if name not in TEACHERS:
        parser.error(f"no teacher {name!r}; there are {', '.join(TEACHERS)}")
    teacher = load_teacher(name, Path(weights))
    columns = ("copy_of", "kind") if options.kind else ("copy_of",)
    clips = read_labels(options.table, columns=columns, need_labels=False).clips
    if options.kind:
        clips = [clip for clip in clips if clip.labels["kind"] and clip.labels["kind"][0] in options.kind]
        if not clips:
            parser.error(f"{options.table}: no clip is of kind {', '.join(options.kind)}")
    failed = compute(teacher, clips[:_SMOKE] if options.smoke else clips, options.out, name)
    return 3 if failed else 0


def compute(teacher: Teacher, clips: Sequence[Clip], out: Path, name: str) -> int:
    """Write a teacher's vectors of clips; how many of them have none."""
    parts = out / f".{name}"
    parts.mkdir(parents=True, exist_ok=True)
    began, seconds = time.monotonic(), 0.0
    of = {clip.key: (*clip.labels.get("copy_of", ()), clip.key)[0] for clip in clips}
    wanted = set(of.values())
    kept = {key for file in parts.glob("*.npz") for key in _keys(file)}
    missing = [clip for clip in clips if clip.key in wanted and clip.key not in kept]
    for number, part in enumerate(in_parts(missing), 1):
        found, audio = _part(teacher, part)
        seconds += audio
        file = parts / f"{_digest(part)}.npz"
        partial = file.with_suffix(".partial")
        with partial.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **found)
        partial.replace(file)
        speed = seconds / (time.monotonic() - began)
        print(f"{name}: part {number} of {-(-len(missing) // _PART)}, {speed:.0f} x real time", flush=True)
    place: dict[str, int] = {}
    rows: dict[str, list[NDArray[np.float32]]] = {output: [] for output in teacher.outputs}
    for file in sorted(parts.glob("*.npz")):
        with np.load(file, allow_pickle=False) as part_of:
            taken = [row for row, key in enumerate(part_of["keys"].tolist()) if key in wanted and key not in place]
            place |= {key: len(place) + number for number, key in enumerate(part_of["keys"][taken].tolist())}
            for output in teacher.outputs if taken else ():
                rows[output].append(part_of[output][taken])
    keys = [key for key, original in of.items() if original in place]
    order = [place[of[key]] for key in keys]
    for output, pieces in rows.items():
        _write(out / f"{name}-{output}.parquet", keys, np.concatenate(pieces)[order])
    print(f"{name}: {len(keys)} of {len(clips)} clips")
    return len(clips) - len(keys)


def _write(file: Path, keys: Sequence[str], matrix: NDArray[np.float32]) -> None:
    import pyarrow
    import pyarrow.parquet

    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(matrix.ravel()), matrix.shape[1])
    partial = file.with_suffix(".partial")
    pyarrow.parquet.write_table(pyarrow.table({"path": pyarrow.array(keys), "embedding": vectors}), partial)
    partial.replace(file)


def in_parts(clips: Sequence[Clip]) -> Iterator[list[Clip]]:
    """Clips of one file together, as far as parts allow."""
    ordered = iter(sorted(clips, key=lambda clip: (clip.path, clip.start)))
    while part := list(islice(ordered, _PART)):
        yield part


def _keys(part: Path) -> list[str]:
    with np.load(part, allow_pickle=False) as kept:
        keys: list[str] = kept["keys"].tolist()
    return keys


def _digest(clips: Sequence[Clip]) -> str:
    return hashlib.sha256("\n".join(clip.key for clip in clips).encode(errors="surrogateescape")).hexdigest()[:24]


def _part(teacher: Teacher, clips: Sequence[Clip]) -> tuple[dict[str, NDArray[np.generic]], float]:
    """Keys and outputs of the clips that can be decoded, and how many seconds of audio they are."""
    vectors: dict[int, dict[str, NDArray[np.float32]]] = {}
    waiting: dict[int, list[tuple[int, NDArray[np.float32]]]] = defaultdict(list)
    samples_done = 0

    def flush(length: int) -> None:
        batch = waiting.pop(length)
        outputs = teacher(torch.from_numpy(np.stack([samples for _, samples in batch])))
        for row, (number, _) in enumerate(batch):
            vectors[number] = {output: outputs[output][row].numpy() for output in teacher.outputs}

    for number, samples in _decode(teacher.sample_rate, clips):
        samples_done += len(samples)
        waiting[len(samples)].append((number, samples))
        if len(waiting[len(samples)]) == BATCH:
            flush(len(samples))
    for length in list(waiting):
        flush(length)
    there = list(vectors)[::-1]
    found: dict[str, NDArray[np.generic]] = {"keys": np.array([clips[number].key for number in there])}
    for output in teacher.outputs:
        found[output] = np.array([vectors[number][output] for number in there], np.float32)
    return found, samples_done / teacher.sample_rate


def _decode(sample_rate: int, clips: Sequence[Clip]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    by_path: dict[str, list[int]] = defaultdict(list)
    for number, clip in enumerate(clips):
        by_path[clip.path].append(number)
    for path, numbers in by_path.items():
        try:
            for index, samples in read_excerpts(path, sample_rate, [(clips[n].start, clips[n].end) for n in numbers]):
                yield numbers[index], samples
        except AudioError as error:
            print(f"{path}: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
