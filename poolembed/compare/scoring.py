"""How a trained model does on clips that it never saw, from the shared cache of log-mels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from poolembed.bundle import load_bundle
from poolembed.embed.device import choose_device, choose_precision
from poolembed.errors import LabelsError
from poolembed.evaluate import metrics
from poolembed.evaluate.retrieval import retrieve
from poolembed.labels import Labelled, read_labels
from poolembed.nn.config import HeadConfig
from poolembed.train.cache import MelCache
from poolembed.train.config import TrainConfig
from poolembed.train.dataset import columns_of
from poolembed.train.loading import WholeClips
from poolembed.train.module import HeadedModel
from poolembed.train.objectives.classification import multi_hot, probabilities
from poolembed.train.sampling import Crops

LEADING = {"classification": ("map", "accuracy"), "supcon": ("recall_at_1",), "contrastive": ("recall_at_1",)}
"""Per objective, the metric that a study is about: the first of these that there is."""


@dataclass(frozen=True)
class Scored:
    """What a model makes of clips.

    Attributes:
        labelled: the clips.
        embeddings: ``(N, D)``, unit length.
        head: of the label column; None if there is none.
        probabilities: ``(N, K)`` by the head.
        halves: ``(2, N, D)`` embeddings of the first and second half of each clip, where those are what is trained.
    """

    labelled: Labelled
    embeddings: NDArray[np.float32]
    head: HeadConfig | None
    probabilities: NDArray[np.float64] | None
    halves: NDArray[np.float32] | None = None


def scored(model: str | os.PathLike[str], table: str, config: TrainConfig) -> Scored:
    """Embed and classify the clips of a table, whole, as validation does.

    Args:
        model: a bundle.
        table: labelled clips.
        config: of the run that made the model; its cache, precision and objectives count.

    Raises:
        LabelsError: the table cannot be used, or a clip of it cannot be decoded.
    """
    columns = columns_of(config)
    labelled = read_labels(table, columns=columns, need_labels=bool(columns))
    bundle = load_bundle(model)
    device = choose_device(config.device)
    headed = HeadedModel(bundle.network, bundle.heads, choose_precision(config.precision, device)).to(device).eval()
    context = bundle.network.config.encoder.context
    cache = MelCache(config.cache or Path(config.output) / "cache", bundle.network.frontend, before=context)
    filled = cache.fill(labelled.clips, workers=1, limit_gb=config.cache_limit, watch=lambda done, total: None)
    if filled.failed:
        key, reason = next(iter(filled.failed.items()))
        raise LabelsError(f"{table}: {key} cannot be scored: {reason}")
    crops = Crops.of(cache, filled.rows, bundle.network.config.encoder)
    whole_clips = WholeClips(crops, device=device, log_floor=cache.log_floor)
    clips = range(len(labelled.clips))
    outputs = whole_clips.outputs(headed, clips)
    head = bundle.heads[0].config if bundle.heads else None
    scores = None if head is None else probabilities(outputs, head)
    halves = None
    if any(objective.kind == "contrastive" for objective in config.objectives):
        halves = whole_clips.halves(headed, clips).numpy()
    return Scored(labelled, outputs.embeddings.numpy(), head, scores, halves)


def score(of: Scored, config: TrainConfig) -> dict[str, float]:
    """Metrics of clips.

    Classification has accuracy and macro-F1, or where clips have several labels mean average precision and macro-F1.
    Embeddings are searched by cosine: ``recall_at_1`` and ``retrieval_map``, where right is what shares a label; or,
    trained without labels, the other half of the same clip. Where predictions are pooled, the embedding is not what
    was pooled, and is not scored.
    """
    found: dict[str, float] = {}
    if of.head is not None and of.probabilities is not None:
        true = true_labels(of.labelled, of.head)
        if of.head.multi_label:
            found["map"] = metrics.mean_average_precision(true, of.probabilities)
        else:
            found["accuracy"] = metrics.accuracy(true, of.probabilities)
        found["macro_f1"] = metrics.macro_f1(true, of.probabilities)
    if config.pool == "predictions":
        return found
    if of.halves is not None:
        clips = of.halves.shape[1]
        ranked = retrieve(of.halves.reshape(2 * clips, -1), np.tile(np.arange(clips), 2))
    else:
        (column,) = of.labelled.columns
        labels = [clip.labels[column] for clip in of.labelled.clips]
        names = sorted({label for mine in labels for label in mine})
        hot = multi_hot(labels, names) > 0
        several = of.labelled.multi_label[column]
        ranked = retrieve(of.embeddings, hot if several else hot.argmax(1).astype(np.int64))
    if np.isfinite(ranked.first).any():
        found["recall_at_1"] = float(np.nanmean(ranked.first))
        found["retrieval_map"] = float(np.nanmean(ranked.average_precision))
    return found


def true_labels(labelled: Labelled, head: HeadConfig) -> metrics.Labels:
    """Labels of clips in the order of a head's, as `poolembed.evaluate.metrics` wants them.

    Raises:
        LabelsError: a clip has a label that the head was not trained on.
    """
    labels = [clip.labels[head.column] for clip in labelled.clips]
    unknown = {label for mine in labels for label in mine}.difference(head.labels)
    if unknown:
        raise LabelsError(
            f"{labelled.source} has labels that no training clip has: {', '.join(sorted(unknown)[:5])}",
            hint="every label takes clips of three groups or more: to train, to validate and to test",
        )
    hot = multi_hot(labels, head.labels) > 0
    return hot if head.multi_label else hot.argmax(1).astype(np.int64)
