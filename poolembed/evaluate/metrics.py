"""Scores of a classifier, from true labels and its scores; plain numpy.

Conventions
-----------
- There are N clips and K labels. ``scores`` is ``(N, K)``, finite; the higher, the more the label applies.
- ``true`` is ``(N,)`` integers in [0, K) where every clip has one label, and ``(N, K)`` booleans where clips may have
  several, or none.
- Predicted is, where clips have one label, the label of the highest score, of equals the first; where they may have
  several, every label with a score of at least `THRESHOLD`, so there the scores are probabilities, or like them.
- Clips may count more or less than once: the functions ``weighted_*`` take ``weights``, ``(R, N)``, at least 0, and
  give R results, one for each way to weigh. That is how `poolembed.evaluate.bootstrap` draws many samples at once. The
  plain functions count every clip once.
- Means over labels ("macro") go over the labels that some clip has, for the others have neither recall nor average
  precision. So a label that is predicted but never true costs the recall of the labels it was taken for. Where no clip
  has any label, they are NaN.
- Average precision is the step-wise sum over the thresholds, sum (R_n - R_{n-1}) P_n, without interpolation; clips of
  equal score are one threshold. It is scikit-learn's ``average_precision_score``.

Every function calls `validate` first; a weighted one leaves that to its caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64] | NDArray[np.bool_]
"""``(N,)`` integers, or ``(N, K)`` booleans."""

THRESHOLD = 0.5

_BLOCK = 1 << 23
"""Numbers in the largest temporary array of a weighted metric."""


@dataclass(frozen=True, slots=True)
class ClassScores:
    """How one label fares.

    Attributes:
        label: its name.
        clips: how many have it.
        precision: share of the clips it was predicted for that have it; 0 where it was predicted for none.
        recall: share of the clips with it that it was predicted for; None where there are none, as for the next two.
        f1: harmonic mean of the two.
        average_precision: of the clips ranked by its score.
    """

    label: str
    clips: int
    precision: float
    recall: float | None
    f1: float | None
    average_precision: float | None


def validate(true: NDArray[Any], scores: NDArray[Any]) -> None:
    """Check that labels and scores are what the module's conventions say.

    Raises:
        ValueError: they are not; the message says how.
    """
    if scores.ndim != 2 or scores.dtype.kind != "f" or 0 in scores.shape:
        raise ValueError(f"scores must be floats (N, K), N and K at least 1, not {scores.dtype} {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    clips, labels = scores.shape
    if true.ndim == 1 and true.dtype.kind in "iu":
        if true.shape != (clips,):
            raise ValueError(f"{len(true)} true labels do not go with scores of {clips} clips")
        if true.min() < 0 or true.max() >= labels:
            raise ValueError(f"true labels must be in [0, {labels}), and go from {true.min()} to {true.max()}")
    elif true.ndim == 2 and true.dtype.kind == "b":
        if true.shape != scores.shape:
            raise ValueError(f"true labels of shape {true.shape} do not go with scores of shape {scores.shape}")
    else:
        raise ValueError(f"true labels must be integers (N,) or booleans (N, K), not {true.dtype} {true.shape}")


def accuracy(true: Labels, scores: NDArray[Any]) -> float:
    """Share of the clips whose label is predicted; for one label a clip.

    Raises:
        ValueError: not what `validate` lets pass, or several labels a clip.
    """
    validate(true, scores)
    return float(weighted_accuracy(true, scores, _once(scores))[0])


def macro_f1(true: Labels, scores: NDArray[Any]) -> float:
    """Mean over labels of F1 = 2 TP / (2 TP + FP + FN).

    Raises:
        ValueError: not what `validate` lets pass.
    """
    validate(true, scores)
    return float(weighted_macro_f1(true, scores, _once(scores))[0])


def mean_average_precision(true: Labels, scores: NDArray[Any]) -> float:
    """Mean over labels of the average precision of the clips ranked by the label's score.

    Raises:
        ValueError: not what `validate` lets pass.
    """
    validate(true, scores)
    return float(weighted_mean_average_precision(true, scores, _once(scores))[0])


def confusion(true: Labels, scores: NDArray[Any]) -> NDArray[np.int64]:
    """How many clips of each label (rows) were predicted to be of each label (columns), ``(K, K)``.

    Raises:
        ValueError: not what `validate` lets pass, or several labels a clip.
    """
    validate(true, scores)
    _require_one_label(true)
    labels = scores.shape[1]
    cells = np.bincount(true * labels + scores.argmax(1), minlength=labels * labels)
    return cells.reshape(labels, labels).astype(np.int64)


def per_class(true: Labels, scores: NDArray[Any], labels: Sequence[str]) -> list[ClassScores]:
    """How each label fares, in their order.

    Args:
        true: as in the module's conventions.
        scores: as there.
        labels: K names.

    Raises:
        ValueError: not what `validate` lets pass, or not K names.
    """
    validate(true, scores)
    if len(labels) != scores.shape[1]:
        raise ValueError(f"{len(labels)} names for {scores.shape[1]} labels")
    has, predicted = _has(true, scores.shape[1]), predictions(true, scores)
    hits, clips, picked = (has & predicted).sum(0), has.sum(0), predicted.sum(0)
    average = _average_precisions(has, scores, _once(scores))[0]
    return [
        ClassScores(
            label=label,
            clips=int(n),
            precision=float(tp / p) if p else 0.0,
            recall=float(tp / n) if n else None,
            f1=float(2 * tp / (p + n)) if n else None,
            average_precision=float(ap) if n else None,
        )
        for label, tp, n, p, ap in zip(labels, hits, clips, picked, average, strict=True)
    ]


def predictions(true: Labels, scores: NDArray[Any]) -> NDArray[np.bool_]:
    """Which labels are predicted for which clips, ``(N, K)``; of `true` only the kind counts."""
    if true.ndim == 1:
        return _has(scores.argmax(1), scores.shape[1])
    above: NDArray[np.bool_] = scores >= THRESHOLD
    return above


def weighted_accuracy(true: Labels, scores: NDArray[Any], weights: Floats) -> Floats:
    """`accuracy` for each row of weights, ``(R,)``."""
    _require_one_label(true)
    right = (scores.argmax(1) == true).astype(np.float64)
    return _ratio(weights @ right, weights.sum(1))


def weighted_macro_f1(true: Labels, scores: NDArray[Any], weights: Floats) -> Floats:
    """`macro_f1` for each row of weights, ``(R,)``."""
    has, predicted = _has(true, scores.shape[1]), predictions(true, scores)
    clips = weights @ has
    f1 = _ratio(2 * (weights @ (has & predicted)), clips + weights @ predicted)
    return _mean_over_labels(f1, clips)


def weighted_mean_average_precision(true: Labels, scores: NDArray[Any], weights: Floats) -> Floats:
    """`mean_average_precision` for each row of weights, ``(R,)``."""
    has = _has(true, scores.shape[1])
    rows = max(1, _BLOCK // len(has))
    parts = [_average_precisions(has, scores, weights[row : row + rows]) for row in range(0, len(weights), rows)]
    return _mean_over_labels(np.concatenate(parts), weights @ has)


def _average_precisions(has: NDArray[np.bool_], scores: NDArray[Any], weights: Floats) -> Floats:
    """Average precision per row of weights and label, ``(R, K)``; 0 where no clip has the label."""
    result = np.empty((len(weights), has.shape[1]))
    for label in range(has.shape[1]):
        order = np.argsort(-scores[:, label], kind="stable")
        ranked = scores[order, label]
        last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each run of equal scores
        counted = weights[:, order]
        picked = counted.cumsum(1)[:, last]
        hits = (counted * has[order, label]).cumsum(1)[:, last]
        steps = np.diff(hits, axis=1, prepend=0.0)
        result[:, label] = _ratio((steps * _ratio(hits, picked)).sum(1), hits[:, -1])
    return result


def _mean_over_labels(values: Floats, clips: Floats) -> Floats:
    """Mean over the labels that clips have, ``(R,)`` from ``(R, K)``; NaN where there are none."""
    there = clips > 0
    total = np.where(there, values, 0.0).sum(1)
    mean: Floats = np.divide(total, there.sum(1), out=np.full(len(total), np.nan), where=there.any(1))
    return mean


def _has(true: Labels, labels: int) -> NDArray[np.bool_]:
    if true.ndim == 2:
        return true.astype(bool)
    has = np.zeros((len(true), labels), bool)
    has[np.arange(len(true)), true] = True
    return has


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient, and 0 where it is 0 / 0."""
    quotient: Floats = np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator > 0)
    return quotient


def _once(scores: NDArray[Any]) -> Floats:
    return np.ones((1, len(scores)))


def _require_one_label(true: Labels) -> None:
    if true.ndim != 1:
        raise ValueError("clips with several labels have no accuracy and no confusion matrix")
