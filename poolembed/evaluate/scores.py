"""One call from vectors to everything that is said of them: cross-validated probes, retrieval, intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.evaluate import metrics
from poolembed.evaluate.bootstrap import bootstrap
from poolembed.evaluate.metrics import ClassScores, Floats
from poolembed.evaluate.probes import linear_probe, nearest_neighbours
from poolembed.evaluate.retrieval import Retrieval, retrieve
from poolembed.evaluate.task import Task

Metric = Callable[[metrics.Labels, NDArray[Any], Floats], Floats]

SINGLE: dict[str, Metric] = {"accuracy": metrics.weighted_accuracy, "macro_f1": metrics.weighted_macro_f1}
SEVERAL: dict[str, Metric] = {"map": metrics.weighted_mean_average_precision}


@dataclass(frozen=True, slots=True)
class Score:
    """A score in [0, 1] and its 95 % interval; None where there is none."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Scores:
    """What is said of some vectors.

    Attributes:
        knn: scores of the nearest neighbours: accuracy and macro_f1, or where clips may have several labels map.
        linear: the same of the linear probe.
        retrieval: recall_at_1, map and mrr.
        queries: clips that there was something to find for.
        per_class: how each label fares with "knn" and with "linear".
        notes: what a person should know before trusting them, a sentence each.
    """

    knn: dict[str, Score]
    linear: dict[str, Score]
    retrieval: dict[str, Score]
    queries: int
    per_class: dict[str, list[ClassScores]]
    notes: list[str]


def score(vectors: NDArray[Any], task: Task, *, seed: int = 0) -> Scores:
    """Score vectors on a task.

    Each clip is predicted from the clips of the other folds; the predictions of all folds are scored together.

    Args:
        vectors: ``(N, D)``, finite, any length but 0.
        task: of the same N clips.
        seed: of the bootstrap.
    """
    labels = len(task.labels)
    knn, linear = np.zeros((2, len(vectors), labels))
    fits = unfinished = 0
    for fold in range(len(task.fold_names)):
        test = task.folds == fold
        train, true = vectors[~test], task.true[~test]
        knn[test] = nearest_neighbours(train, true, vectors[test], labels)
        probe = linear_probe(train, true, vectors[test], labels)
        linear[test] = probe.scores
        fits, unfinished = fits + probe.fits, unfinished + probe.unfinished
    found = retrieve(vectors, task.true, task.apart)
    chosen = SEVERAL if task.multi_label else SINGLE
    names, values = _with_intervals(knn, linear, found, chosen, task, seed)
    scores = dict(zip(names, values, strict=True))
    queries = int((~np.isnan(found.first)).sum())
    notes = []
    if unfinished:
        notes.append(f"{unfinished} of {fits} fits of the linear probe were stopped before they converged")
    if queries < len(vectors):
        notes.append(
            f"retrieval leaves out {len(vectors) - queries} clips without another to find, of their group apart"
        )
    return Scores(
        knn={name: scores["knn", name] for name in chosen},
        linear={name: scores["linear", name] for name in chosen},
        retrieval={name: scores["retrieval", name] for name in _RETRIEVAL},
        queries=queries,
        per_class={
            "knn": metrics.per_class(task.true, knn, task.labels),
            "linear": metrics.per_class(task.true, linear, task.labels),
        },
        notes=notes,
    )


_RETRIEVAL = ("recall_at_1", "map", "mrr")


def _with_intervals(
    knn: Floats, linear: Floats, found: Retrieval, chosen: dict[str, Metric], task: Task, seed: int
) -> tuple[list[tuple[str, str]], list[Score]]:
    """Names and values of all scores."""
    for scores in (knn, linear):
        metrics.validate(task.true, scores)
    per_query = np.stack([found.first, found.average_precision, found.reciprocal_rank], axis=1)
    counts = ~np.isnan(per_query)
    per_query = np.where(counts, per_query, 0.0)

    def statistics(weights: Floats) -> Floats:
        total = weights @ counts
        means = np.divide(weights @ per_query, total, out=np.full(total.shape, np.nan), where=total > 0)
        columns = [metric(task.true, scores, weights) for scores in (knn, linear) for metric in chosen.values()]
        return np.column_stack([*columns, means])

    names = [(probe, name) for probe in ("knn", "linear") for name in chosen]
    names += [("retrieval", name) for name in _RETRIEVAL]
    values = statistics(np.ones((1, len(task.true))))[0]
    intervals = bootstrap(statistics, task.groups, seed=seed)
    return names, [
        Score(*(None if np.isnan(number) else float(number) for number in (value, *interval)))
        for value, interval in zip(values, intervals, strict=True)
    ]
