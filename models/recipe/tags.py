"""Heads that tell tags from a model's embeddings: ``python -m models.recipe.tags TABLE TARGETS MODEL``.

Each column of tags is what a teacher says (`COLUMNS`; its logits lie in TARGETS, as `models.recipe.teachers.vectors`
writes them): a linear map of the embedding that learns the teacher's probabilities, not its decisions, by logistic
regression with soft targets. It learns on the table's training clips, and on whole tracks, whose target is the mean of
their clips' probabilities: a song's embedding is none of a clip. Held-out packages tell which classes are kept, and how
well the two agree (``TAGS.md`` in MODEL, by the card). What the teacher hears too little of there is judged in the
training packages, one half by what the other taught; the model itself has learned from these.

The heads are written into the bundle MODEL, in float16, in the place of any that it has; its weights, its fingerprint
and so all stored embeddings stay as they are. Embeddings of clips and tracks are kept in TARGETS, for another time.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import tomllib
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.nn import functional as F

from poolembed.bundle import Bundle, load_bundle, save_bundle
from poolembed.catalog import CONFIG, HEADS
from poolembed.embed.model import build_engine
from poolembed.evaluate.clips import embed_clips
from poolembed.evaluate.metrics import mean_average_precision
from poolembed.labels import Clip, read_labels
from poolembed.nn.config import HeadConfig
from poolembed.nn.head import EmbeddingHead
from poolembed.vectors import match, read_vectors

COLUMNS = {"audioset": "mn04-logits", "jamendo": "musicnn-jamendo-logits", "mtat": "musicnn-mtat-logits"}
"""Column of tags -> whose targets it learns. A column without any is left out."""
MUSIC = frozenset({"music", "modules", "copies", "pieces", "phrases"})
"""Kinds of clips that teachers of music have heard the like of; all columns but audioset learn from these alone."""

CLASSES = Path(__file__).parent / "teachers" / "classes.toml"

HEARD = 0.5
"""Probability from which on the teacher decides for a class."""
FEWEST = 4  # clips of a track from which on it is learned as a whole
OCCURS = 0.1, 3  # a class that the teacher gives this probability in fewer clips cannot be judged by them
EXPLAINED = 0.2  # of what there is to explain in the teacher's probabilities of a class
PRIOR = 10.0  # deviation of weights, a priori; across packages of 1,316 clips the best of .6, 1.7, 3, 9 and 30
MOST = 40_000  # training clips, drawn by lot; the whole tracks come on top
SONG = 5.0  # how many clips a whole track counts as
_STEPS = 100
_ROWS = 4096  # looked at together
_BINS = 10

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Examples:
    """What a head learns from, or is judged on.

    Attributes:
        vectors: ``(n, D)`` embeddings of unit length.
        targets: ``(n, K)`` the teacher's probabilities.
        weights: ``(n,)`` how much each counts.
        halves: ``(n,)`` 0 or 1; a package is in one.
    """

    vectors: Floats
    targets: Floats
    weights: Floats
    halves: NDArray[np.int64]

    def take(self, rows: NDArray[np.bool_]) -> Examples:
        """Some of them."""
        return Examples(self.vectors[rows], self.targets[rows], self.weights[rows], self.halves[rows])


@dataclass(frozen=True)
class Agreement:
    """How a head and its teacher agree on K classes in n clips.

    Attributes:
        clips: n.
        first: share of clips whose likeliest class is the teacher's.
        five: share of the teacher's five likeliest classes that are among the head's.
        precision: mean average precision over the classes that the teacher decides for in some clip.
        decided: number of those.
        error: expected calibration error: by how much the head's probabilities differ from the teacher's mean, on
            average over all clips and classes, in bins of the head's probability, those below 0.05 left out.
    """

    clips: int
    first: float
    five: float
    precision: float
    decided: int
    error: float


def main(arguments: list[str] | None = None) -> int:
    """Learn the heads, write them and what is to be said of them."""
    parser = argparse.ArgumentParser(prog="python -m models.recipe.tags", description=__doc__)
    parser.add_argument("table", help="of clips, such as CORPUS/corpus.csv")
    parser.add_argument("targets", type=Path, help="directory of the teachers' logits")
    parser.add_argument("model", type=Path, help="the bundle, which is changed")
    options = parser.parse_args(arguments)
    bundle = load_bundle(options.model)
    files = {column: options.targets / f"{name}.parquet" for column, name in COLUMNS.items()}
    there = {column: file for column, file in files.items() if file.is_file()}
    if not there:
        parser.error(f"{options.targets}: none of {', '.join(file.name for file in files.values())} is there")
    clips = read_labels(options.table, columns=("kind", "package"), need_labels=False).clips
    classes = tomllib.loads(CLASSES.read_text(encoding="utf-8"))
    heads, report = [], []
    for column, file in there.items():
        logits = read_vectors(file)
        rows = match(logits, [clip.key for clip in clips])
        known = [
            (clip, row)
            for clip, row in zip(clips, rows, strict=True)
            if row is not None and (column == "audioset" or MUSIC.intersection(clip.labels["kind"]))
        ]
        if logits.matrix.shape[1] != len(classes[column]):
            parser.error(f"{file} has {logits.matrix.shape[1]} classes, and {CLASSES} {len(classes[column])}")
        targets = sigmoid(logits.matrix[[row for _, row in known]])
        sides = examples(bundle, [clip for clip, _ in known], targets, options.targets)
        head, text = learn(column, classes[column], *sides)
        heads.append(head)
        report.append(text)
        print(text)
    write(options.model, bundle, heads)
    (options.model / "TAGS.md").write_text(_HEADING.format(name=bundle.config.name) + "\n".join(report), "utf-8")
    return 0


def examples(
    bundle: Bundle, clips: Sequence[Clip], targets: Floats, cache: Path
) -> tuple[Examples, Examples, Examples]:
    """What is learned, and what is held out: clips, and whole tracks."""
    tracks = defaultdict(list)
    for row, clip in enumerate(clips):
        if clip.labels["kind"] in (("music",), ("modules",)):
            tracks[clip.path].append(row)
    long = [rows for rows in tracks.values() if len(rows) >= FEWEST]
    firsts = [clips[rows[0]] for rows in long]
    whole = [Clip(first.path, first.path, first.labels, split=first.split) for first in firsts]
    means = np.array([targets[rows].mean(0) for rows in long], np.float32).reshape(len(long), targets.shape[1])
    lots = sorted(range(len(clips)), key=lambda row: zlib.crc32(clips[row].key.encode(errors="surrogateescape")))
    learned = [row for row in lots if clips[row].split == "train"][:MOST]
    picked = sorted([*learned, *(row for row in lots if clips[row].split != "train")])
    every = [*(clips[row] for row in picked), *whole]
    targets = np.concatenate([targets[picked], means])
    found = embed(bundle, every, cache)
    is_song = np.arange(len(every)) >= len(picked)
    there = np.array([clip.key in found for clip in every])
    training = np.array([clip.split == "train" for clip in every])

    halves = np.array([zlib.crc32(" ".join(clip.labels["package"]).encode()) % 2 for clip in every], np.int64)

    def some(mask: NDArray[np.bool_]) -> Examples:
        rows = np.flatnonzero(mask & there)
        vectors = np.array([found[every[row].key] for row in rows], np.float32)
        weights = np.where(is_song[rows], SONG, 1.0).astype(np.float32)
        return Examples(vectors, targets[rows], weights, halves[rows])

    return some(training), some(~training & ~is_song), some(~training & is_song)


def embed(bundle: Bundle, clips: Sequence[Clip], cache: Path) -> dict[str, Floats]:
    """The model's embeddings of clips that can be decoded, by key; those that the cache lacks are computed."""
    file = cache / f".tags-{bundle.fingerprint[:16]}.npz"
    found: dict[str, Floats] = {}
    if file.is_file():
        with np.load(file, allow_pickle=False) as kept:
            found = dict(zip(kept["keys"].tolist(), kept["vectors"], strict=True))
    missing = [clip for clip in clips if clip.key not in found]
    if missing:
        embedded = embed_clips(build_engine(bundle.network), missing)
        for key, reason in embedded.failures.items():
            print(f"{key}: {reason}", file=sys.stderr)
        found |= {missing[row].key: vector for row, vector in zip(embedded.rows, embedded.matrix, strict=True)}
        partial = file.with_suffix(".partial")
        with partial.open("wb") as stream:
            np.savez(stream, allow_pickle=False, keys=np.array(list(found)), vectors=np.array(list(found.values())))
        partial.replace(file)
    return found


def learn(
    column: str, classes: Sequence[str], training: Examples, clips: Examples, songs: Examples
) -> tuple[EmbeddingHead, str]:
    """A head of the classes that can be told, and the report on it in Markdown."""
    weight, bias = fit(training)
    of_clips, of_songs = (sigmoid(side.vectors @ weight.T + bias) for side in (clips, songs))
    shares = explained(clips.targets, of_clips, training.targets.mean(0))
    told = occurs(clips.targets) & (shares >= EXPLAINED)
    rare = ~occurs(clips.targets) & occurs(training.targets)
    across = explained(training.targets, crosswise(training), training.targets.mean(0)) if rare.any() else shares
    rare &= across >= EXPLAINED
    too = [f"{classes[each]} {across[each]:.2f}" for each in np.flatnonzero(rare).tolist()]
    kept = np.flatnonzero(told | rare)
    head = as_head(column, [classes[each] for each in kept.tolist()], weight[kept], bias[kept])
    sides = {"clips": (clips, of_clips), "whole tracks": (songs, of_songs)}
    lines = [f"## {column}: {len(kept)} of the teacher's {len(classes)} classes", ""]
    lines += ["| held out | | first | five | mAP | of classes | calibration |", "|---|--:|--:|--:|--:|--:|--:|"]
    for name, (side, found) in sides.items():
        if len(side.vectors):
            same = agreement(side.targets[:, kept], found[:, kept])
            lines.append(
                f"| {name} | {same.clips:,} | {same.first:.1%} | {same.five:.1%} | {same.precision:.3f} | "
                f"{same.decided} | {same.error:.3f} |"
            )
    lines += ["", "| class | clips | highest | explained | AP | AUC |", "|---|--:|--:|--:|--:|--:|"]
    for each in np.flatnonzero(told).tolist():
        truth, scores = clips.targets[:, each] >= HEARD, of_clips[:, each]
        precision = f"{average_precision_score(truth, scores):.2f}" if truth.any() else ""
        area = f"{roc_auc_score(truth, scores):.3f}" if 0 < truth.sum() < len(truth) else ""
        highest = clips.targets[:, each].max()
        lines.append(f"| {classes[each]} | {truth.sum()} | {highest:.2f} | {shares[each]:.2f} | {precision} | {area} |")
    if too:
        lines += ["", f"Across halves of the training packages ({len(too)}): {', '.join(too)}."]
    return head, "\n".join([*lines, ""])


def crosswise(training: Examples) -> Floats:
    """Probabilities ``(n, K)`` of training clips by what is learned from the other half of the packages."""
    found = np.zeros_like(training.targets)
    for half in (0, 1):
        rows = training.halves == half
        if rows.any() and not rows.all():
            weight, bias = fit(training.take(~rows))
            found[rows] = sigmoid(training.vectors[rows] @ weight.T + bias)
    return found


def fit(training: Examples) -> tuple[Floats, Floats]:
    """Weights ``(K, D)`` and biases ``(K,)`` by logistic regression with soft targets."""
    count, size = training.targets.shape[1], training.vectors.shape[1]
    total = float(training.weights.sum())
    shares = (training.weights / total)[:, None]
    prior = np.clip((shares * training.targets).sum(0), 1e-6, 1 - 1e-6)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The cross-entropy, summed over classes so that each is as if it were fitted alone, and its gradient."""
        solution = flat.astype(np.float32).reshape(count, size + 1)
        weight, bias = solution[:, :size], solution[:, size]
        value = float(np.square(weight, dtype=np.float64).sum()) / (2 * PRIOR**2 * total)
        gradient = np.concatenate([weight / (PRIOR**2 * total), np.zeros((count, 1))], axis=1)
        for first in range(0, len(shares), _ROWS):
            rows = slice(first, first + _ROWS)
            vectors, targets = training.vectors[rows], training.targets[rows]
            logits = vectors @ weight.T + bias
            value += float((shares[rows] * (np.logaddexp(0, logits) - targets * logits)).sum(dtype=np.float64))
            error = shares[rows] * (sigmoid(logits) - targets)
            gradient[:, :size] += error.T @ vectors
            gradient[:, size] += error.sum(0)
        return value, gradient.ravel()

    start = np.concatenate([np.zeros((count, size)), np.log(prior / (1 - prior))[:, None]], axis=1)
    options = {"maxiter": _STEPS, "maxcor": 20, "ftol": 1e-8, "gtol": 0.0}
    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    solution = found.x.astype(np.float32).reshape(count, size + 1)
    return solution[:, :size], solution[:, size]


def occurs(targets: Floats) -> NDArray[np.bool_]:
    """``(K,)`` which classes the teacher hears in enough clips to judge by."""
    probability, fewest = OCCURS
    return np.asarray((targets >= probability).sum(0) >= fewest)


def explained(targets: Floats, found: Floats, prior: Floats) -> NDArray[np.float64]:
    """``(K,)`` how much nearer to the teacher's probabilities the head's are than the class's mean in training.

    Near as the Kullback-Leibler divergence has it: 1 is the same, 0 no nearer, less than 0 farther.
    """

    def divergence(of: NDArray[np.float64]) -> NDArray[np.float64]:
        p, q = np.clip(targets.astype(np.float64), 1e-7, 1 - 1e-7), np.clip(of, 1e-7, 1 - 1e-7)
        return np.asarray((p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean(0))

    from_mean = divergence(np.asarray(prior, np.float64)[None])
    return 1 - divergence(found.astype(np.float64)) / np.maximum(from_mean, 1e-12)  # of a constant there is nothing


def agreement(targets: Floats, found: Floats) -> Agreement:
    """How a head's probabilities ``(n, K)`` agree with the teacher's."""
    five = min(5, targets.shape[1])
    theirs, ours = (np.argsort(-each, axis=1, kind="stable")[:, :five] for each in (targets, found))
    decided = targets >= HEARD
    some = decided.any(0)
    binned = np.minimum((found * _BINS).astype(int), _BINS - 1)
    error, count = 0.0, 0
    for place in range(_BINS):
        chosen = (binned == place) & (found >= 0.05)
        if chosen.any():
            error += abs(float(found[chosen].sum(dtype=np.float64) - targets[chosen].sum(dtype=np.float64)))
            count += int(chosen.sum())
    return Agreement(
        clips=len(targets),
        first=float((theirs[:, 0] == ours[:, 0]).mean()),
        five=float((theirs[:, :, None] == ours[:, None]).any(2).mean()),
        precision=mean_average_precision(decided[:, some], found[:, some]) if some.any() else math.nan,
        decided=int(some.sum()),
        error=error / max(count, 1),
    )


def as_head(column: str, labels: Sequence[str], weight: Floats, bias: Floats) -> EmbeddingHead:
    """A linear map as a head: directions, and a scale of each."""
    config = HeadConfig(column=column, labels=tuple(labels), multi_label=True, scale="class")
    head = EmbeddingHead(config, weight.shape[1])
    with torch.no_grad():
        head.weight.copy_(F.normalize(torch.from_numpy(weight), dim=1))
        head.bias.copy_(torch.from_numpy(bias))
        head.log_scale.copy_(torch.from_numpy(np.log(np.linalg.norm(weight, axis=1))))
    return head.eval()


def write(model: Path, bundle: Bundle, heads: Sequence[EmbeddingHead]) -> None:
    """Put heads into a bundle, in the place of those that it has; the file of its weights is not touched."""
    config = bundle.config
    with tempfile.TemporaryDirectory(dir=model) as folder:
        made = Path(folder) / "made"
        save_bundle(
            made,
            bundle.network,
            name=config.name,
            license=config.license,
            card=bundle.card,
            heads=heads,
            nested=config.nested,
            half=True,
        )
        if load_bundle(made).fingerprint != bundle.fingerprint:
            raise SystemExit(f"{model}: written again, its weights would be others; are they of float16?")
        (made / HEADS).replace(model / HEADS)
        (made / CONFIG).replace(model / CONFIG)


def sigmoid(logits: NDArray[np.float32]) -> Floats:
    """Probabilities of log-odds."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits), np.float32)


_HEADING = """\
# What {name} tells by words

Heads on the embedding that learned their teachers' probabilities (`python -m models.recipe.tags`), and how well they
agree with the teachers on packages that neither the model nor they learned from. They say what the teachers would,
not what is so. First: share of clips in which the likeliest class is the teacher's. Five: share of the teacher's five
likeliest that are among the head's. mAP: mean average precision of the head's probabilities against the teacher's
decisions (0.5), over the classes that it decides for. Calibration: by how much probabilities from 0.05 on are off, on
average. Of each class: held-out clips that the teacher hears it in, its highest probability, how much of the teacher's
probabilities is explained (1 less the ratio of divergences, from the head's and from the mean), average precision and
area under the curve against its decisions. Classes that held-out packages have too little of are judged in the
training packages, one half by what the other taught: flattered, for the model has learned from them.

Teachers: audioset is EfficientAT mn04 (MIT), jamendo and mtat are musicnn (MIT), trained on MTG-Jamendo and
MagnaTagATune. Names of audioset's classes are those of the AudioSet ontology, (c) Google Inc., licensed under CC BY
4.0 (https://creativecommons.org/licenses/by/4.0/).

"""


if __name__ == "__main__":
    sys.exit(main())
