"""A whole evaluation: clips embedded, baselines on the same clips, everything scored on the same folds."""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from poolembed.bundle import load_bundle
from poolembed.embed.device import DeviceName, PrecisionName
from poolembed.embed.engine import Engine
from poolembed.embed.model import build_engine
from poolembed.embed.nested import check_dim, first_numbers
from poolembed.errors import AudioError, UsageError, VectorsError
from poolembed.evaluate.baselines import mel_statistics, untrained
from poolembed.evaluate.clips import ClipVectors, embed_clips
from poolembed.evaluate.scores import Scores, score
from poolembed.evaluate.task import Task, label_columns, make_task
from poolembed.files.reading import read_regular
from poolembed.labels import Clip, Labelled, read_labels
from poolembed.nn.frontend import LogMel
from poolembed.nn.model import SongModel
from poolembed.progress import Progress, counting, silent
from poolembed.vectors import Vectors, match, read_vectors

Kind = Literal["model", "vectors", "untrained", "mel"]

SEED = 0
"""Of folds, bootstrap and untrained weights: an evaluation repeats to the last digit."""

MEL, UNTRAINED = "mel mean+std", "untrained"

_SHOWN = 5


@dataclass(frozen=True)
class System:
    """Something that turns clips into vectors, and how good they are.

    Attributes:
        name: of the model or file, or of the baseline.
        kind: what it is; the last two are baselines.
        size: numbers in a vector.
        scores: of its vectors.
    """

    name: str
    kind: Kind
    size: int
    scores: Scores


@dataclass(frozen=True)
class Evaluation:
    """What became of an evaluation.

    Attributes:
        source: the folder or table of labels, as given.
        clips: how many were scored.
        task: what was to be told apart.
        systems: what was asked about, then the baselines.
        failures: by key, clips that could not be read, and why.
        dropped: by key, clips that the labels leave out, and why.
        notes: what a person should know before trusting the scores, a sentence each.
    """

    source: str
    clips: int
    task: Task
    systems: list[System]
    failures: dict[str, str]
    dropped: dict[str, str]
    notes: list[str]

    def as_dict(self, *, per_class: bool) -> dict[str, Any]:
        """For JSON."""
        task = self.task
        systems = []
        for system in self.systems:
            scores = asdict(system.scores)
            classes, notes = scores.pop("per_class"), scores.pop("notes")
            named = {"name": system.name, "kind": system.kind, "embedding_size": system.size}
            systems.append({**named, **scores, **({"per_class": classes} if per_class else {}), "notes": notes})
        return {
            "source": self.source,
            "column": task.column,
            "multi_label": task.multi_label,
            "labels": task.labels,
            "clips": self.clips,
            "groups": task.group_count,
            "folds": {"column": task.given, "names": task.fold_names, "clips": np.bincount(task.folds).tolist()},
            "systems": systems,
            "failures": [{"key": key, "reason": reason} for key, reason in self.failures.items()],
            "dropped": [{"key": key, "reason": reason} for key, reason in self.dropped.items()],
            "notes": self.notes,
        }


def evaluate(
    labels: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    *,
    embeddings: str | os.PathLike[str] | None = None,
    paths: str | os.PathLike[str] | None = None,
    column: str = "label",
    folds: str | None = None,
    dim: int | None = None,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    workers: int | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Score a model, or vectors of any system, on labelled clips, beside baselines on the same clips.

    Each clip is predicted from the clips of the other folds: by its nearest neighbours, and by a linear probe.

    Args:
        labels: a folder per label, or a table (CSV, TSV, JSONL, Parquet) with ``path`` and ``label``.
        model: name or path of the model to score; base unless there are `embeddings`.
        embeddings: the vectors to score instead, as ``poolembed embed`` wrote them, or an ``.npy`` matrix.
        paths: of a bare matrix, the text file with the path of each row.
        column: the labels to tell apart.
        folds: the column that names the folds; None has five made, with groups never taken apart.
        dim: score the first so many numbers of the model's embeddings; None for all.
        device: as the following, see `poolembed.load`.
        precision: what the network computes in.
        workers: threads.
        progress: told how far it is.

    Raises:
        UsageError: options that do not go together, or the model was not trained for `dim`.
        BundleError: there is no such model.
        LabelsError: the labels or folds cannot be read, or cannot be scored.
        AudioError: no clip could be embedded.
        VectorsError: vectors that cannot be read, or clips without one.
    """
    if embeddings is None and paths is not None:
        raise UsageError("--paths belongs to --embeddings", hint="give the matrix whose rows it names")
    if embeddings is not None and dim is not None:
        raise UsageError("--dim is of a model", hint="write vectors of that size with: poolembed embed --dim")
    if embeddings is not None and model is not None:
        raise UsageError("a model or embeddings are scored, not both at once", hint="leave one of them out")
    labelled = read_labels(labels, columns=label_columns(column, folds), need_audio=False)
    labelled = labelled.without({clip.key: "no label" for clip in labelled.clips if not clip.labels[column]})
    if embeddings is None:
        engine = partial(build_engine, device=device, precision=precision, workers=workers)
        return _evaluate_model(model or "base", labelled, engine, progress, column, folds, dim)
    return _evaluate_vectors(read_vectors(embeddings, paths), labelled, progress, column, folds)


def _evaluate_model(
    name_or_path: str | os.PathLike[str],
    labelled: Labelled,
    engine: Callable[[SongModel], Engine],
    progress: Progress,
    column: str,
    folds: str | None,
    dim: int | None,
) -> Evaluation:
    _task(labelled, None, column, folds)  # what is wrong with the labels is said before the long work
    bundle = load_bundle(name_or_path)
    name, size = bundle.config.name, check_dim(bundle.config, dim)
    embedded = _embed(engine(bundle.network), labelled.clips, f"embedding with {name}", progress)
    if not embedded.rows:
        key, reason = next(iter(embedded.failures.items()))
        raise AudioError(f"none of {len(labelled.clips)} clips could be embedded; {key}: {reason}")
    scored = labelled.without(embedded.failures)
    task = _task(scored, embedded.matrix, column, folds)
    fresh = untrained(bundle.network, scored.clips, embedded.seconds, seed=SEED)
    baselines = {
        UNTRAINED: _embed(engine(fresh), scored.clips, f"embedding with {name}, untrained", progress),
        MEL: _mel(bundle.network.frontend, scored.clips, progress),
    }
    systems, notes = _score((name, "model", first_numbers(embedded.matrix, size)), baselines, task, progress)
    notes = [*labelled.notes, *task.notes, *notes, *(f"{key}: {note}" for key, note in embedded.notes.items())]
    if _trained_on(bundle.path, labelled.source):
        notes.insert(
            0, f"{name} was trained on clips of {labelled.source}: its own scores, not the baselines', flatter it"
        )
    return Evaluation(
        labelled.source, len(scored.clips), task, systems, embedded.failures, dict(labelled.dropped), notes
    )


def _evaluate_vectors(
    vectors: Vectors, labelled: Labelled, progress: Progress, column: str, folds: str | None
) -> Evaluation:
    rows = match(vectors, [clip.key for clip in labelled.clips])
    without = [clip.key for clip, row in zip(labelled.clips, rows, strict=True) if row is None]
    if without:
        raise VectorsError(
            f"{len(without)} of {len(rows)} clips of {labelled.source} have no vector in {vectors.source}: "
            f"{_some(without)}; its paths are {_some(vectors.keys)}",
            hint="embed these clips too, or take their rows out of the table; a path in the one has to be the end of "
            "that in the other",
        )
    matrix = vectors.matrix[[row for row in rows if row is not None]]
    task = _task(labelled, matrix, column, folds)
    baselines = {MEL: _mel(load_bundle("base").network.frontend, labelled.clips, progress)}
    name = os.path.basename(os.path.normpath(vectors.source))  # noqa: PTH119
    systems, notes = _score((name, "vectors", matrix), baselines, task, progress)
    if len(rows) < len(vectors.keys):
        notes.append(f"{len(vectors.keys) - len(rows)} vectors belong to no clip of {labelled.source}")
    notes.append(f"no baseline {UNTRAINED}: of vectors alone, the architecture is not known")
    notes = [*labelled.notes, *task.notes, *notes]
    return Evaluation(labelled.source, len(rows), task, systems, {}, dict(labelled.dropped), notes)


def _score(
    first: tuple[str, Literal["model", "vectors"], NDArray[np.float32]],
    baselines: dict[str, ClipVectors],
    task: Task,
    progress: Progress,
) -> tuple[list[System], list[str]]:
    """Score what was asked about, and those baselines that have a vector of every clip; and notes."""
    todo: list[tuple[str, Kind, NDArray[np.float32]]] = [first]
    notes = []
    for name, baseline in baselines.items():
        if baseline.failures:
            key, reason = next(iter(baseline.failures.items()))
            clips = f"{len(baseline.failures)} of {len(task.true)} clips cannot be read"
            notes.append(f"no baseline {name}: {clips}, such as {key}: {reason}")
        else:
            todo.append((name, "untrained" if name == UNTRAINED else "mel", baseline.matrix))
    one_more = counting(progress, "scoring", len(todo), "systems")
    systems = []
    for name, kind, matrix in todo:
        scores = score(matrix, task, seed=SEED)
        systems.append(System(name, kind, matrix.shape[1], scores))
        notes += [f"{name}: {note}" for note in scores.notes]
        one_more()
    return systems, notes


def _task(labelled: Labelled, matrix: NDArray[np.float32] | None, column: str, folds: str | None) -> Task:
    """The task; clips of equal vectors are taken for copies."""
    content = None
    if matrix is not None:
        content = [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in matrix]
        if len(set(content)) == 1:
            raise VectorsError(
                f"the vectors of all {len(content)} clips are the same", hint="was the same file embedded?"
            )
    multi_label = labelled.multi_label[column]
    return make_task(labelled.clips, content, column=column, multi_label=multi_label, folds=folds, seed=SEED)


def _embed(engine: Engine, clips: Sequence[Clip], stage: str, progress: Progress) -> ClipVectors:
    return embed_clips(engine, clips, counting(progress, stage, len(clips), "clips"))


def _mel(frontend: LogMel, clips: Sequence[Clip], progress: Progress) -> ClipVectors:
    return mel_statistics(clips, frontend, counting(progress, f"describing by {MEL}", len(clips), "clips"))


def _trained_on(bundle: Path, source: str) -> bool:
    """Whether the training run that a bundle lies in names the same clips."""
    try:
        trained = str(tomllib.loads(read_regular(bundle / "run.toml").decode("utf-8", "surrogateescape"))["data"])
        return os.path.samefile(trained, source)  # noqa: PTH121
    except (OSError, ValueError, KeyError, RecursionError):
        return False  # not a run's directory, or one that was moved


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
