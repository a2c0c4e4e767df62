"""Two classifiers on frozen embeddings, that say how much of the labels is in them.

- **Nearest neighbours**: the labels of the `NEIGHBOURS` nearest training clips by cosine, as users will search. Each
  has one vote; between equal votes the greater sum of cosines decides.
- **Linear probe**: scikit-learn's logistic regression (L2 penalty, C = `C`, lbfgs, at most `ITERATIONS` iterations) on
  vectors standardised by mean and standard deviation of the training clips. Where clips may have several labels, there
  is one such regression for each label.

Both give scores ``(n, K)`` in [0, 1], which `poolembed.evaluate.metrics` takes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.evaluate.metrics import Floats, Labels
from poolembed.evaluate.retrieval import unit_length

NEIGHBOURS = 5
C = 1.0
ITERATIONS = 1000

_BLOCK = 1 << 22
"""Cosines, or votes, in memory at once."""


@dataclass(frozen=True)
class Linear:
    """What the linear probe says.

    Attributes:
        scores: ``(n, K)``, probabilities.
        fits: regressions that were trained.
        unfinished: how many of them had not converged when they were stopped.
    """

    scores: Floats
    fits: int
    unfinished: int


def nearest_neighbours(
    train: NDArray[Any], true: Labels, test: NDArray[Any], labels: int, *, k: int = NEIGHBOURS
) -> Floats:
    """Votes of the nearest training clips.

    Args:
        train: ``(m, D)`` vectors, any length but 0.
        true: their labels, as in `poolembed.evaluate.metrics`.
        test: ``(n, D)`` vectors.
        labels: K.
        k: how many neighbours vote; all, if there are fewer.

    Returns:
        ``(n, K)`` scores (votes + share) / (k + 1), where the share, in [0, 1), grows with the sum of the voters'
        cosines. So a score is at least 0.5 exactly where more than half of the neighbours have the label.
    """
    k = min(k, len(train))
    near, far = unit_length(train), unit_length(test)
    has = (np.arange(labels) == true[:, None] if true.ndim == 1 else true).astype(np.float64)
    scores = np.empty((len(test), labels))
    rows = max(1, _BLOCK // max(len(train), k * labels))
    for start in range(0, len(test), rows):
        cosines = far[start : start + rows] @ near.T
        nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        votes = has[nearest]
        weights = (1 + np.take_along_axis(cosines, nearest, axis=1).clip(-1, 1)) / 2
        shares = np.einsum("nk,nkl->nl", weights, votes) / (k + 1)
        scores[start : start + rows] = (votes.sum(1) + shares) / (k + 1)
    return scores


def linear_probe(train: NDArray[Any], true: Labels, test: NDArray[Any], labels: int) -> Linear:
    """Probabilities of a logistic regression.

    Args:
        train: ``(m, D)`` vectors.
        true: their labels, as in `poolembed.evaluate.metrics`; where clips have one, at least two labels occur.
        test: ``(n, D)`` vectors.
        labels: K. Those that no training clip has get the probability 0.
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train.astype(np.float64))
    near, far = scaler.transform(train.astype(np.float64)), scaler.transform(test.astype(np.float64))
    scores = np.zeros((len(test), labels))
    if true.ndim == 1:
        classes, probabilities, finished = _regress(near, true, far)
        scores[:, classes] = probabilities
        return Linear(scores, 1, int(not finished))
    mixed = [label for label in range(labels) if 0 < true[:, label].sum() < len(true)]
    unfinished = 0
    for label in mixed:
        _, probabilities, finished = _regress(near, true[:, label], far)
        scores[:, label] = probabilities[:, 1]
        unfinished += not finished
    scores[:, true.all(0)] = 1.0
    return Linear(scores, len(mixed), unfinished)


def _regress(train: Floats, true: NDArray[Any], test: Floats) -> tuple[NDArray[Any], Floats, bool]:
    """Classes, their probabilities ``(n, classes)``, and whether the fit converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=C, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, true)
    return model.classes_, model.predict_proba(test), bool((model.n_iter_ < ITERATIONS).all())
