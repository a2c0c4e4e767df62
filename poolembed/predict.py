"""Labels of songs, with probabilities: what the heads of a trained model say of a whole song and of its stretches.

Songs run through the engine as they do for embeddings: any length in constant memory, windows of many songs in one
batch, and the same result whatever the batch. What is returned grows with the number of stretches alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poolembed.audio.source import Source
from poolembed.bundle import load_bundle
from poolembed.embed.device import DeviceName, PrecisionName
from poolembed.embed.engine import Engine
from poolembed.embed.model import build_engine
from poolembed.embed.song import Embedded, Failed
from poolembed.errors import BundleError, UsageError
from poolembed.nn.classifier import SongClassifier
from poolembed.nn.head import HeadConfig


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a head says of every so many seconds of a song.

    Attributes:
        start: ``(n,)`` float64, where each stretch starts, in seconds.
        end: ``(n,)`` float64, where it ends; the last one with the song, if not before.
        probabilities: ``(n, K)`` float32.
    """

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the heads say of a song.

    Attributes:
        index: the song's place in the input.
        duration: decoded seconds of audio.
        probabilities: per label column ``(K,)`` float32, in the order of the head's labels; they sum to 1 unless
            the head is multi-label.
        timelines: per label column, where stretches were asked for.
        note: what was wrong with the file though it could be read ("truncated: …"), or None.
    """

    index: int
    duration: float
    probabilities: dict[str, NDArray[np.float32]]
    timelines: dict[str, Timeline]
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a label is heard: seconds from start to end, and the highest probability between them."""

    start: float
    end: float
    label: str
    probability: float


class Predictor:
    """A model with heads, ready to predict. Made by `load_predictor`.

    Attributes:
        heads: what each head tells, in the order of the bundle.
    """

    def __init__(self, engine: Engine, heads: Sequence[HeadConfig]) -> None:
        self._engine = engine
        self.heads = tuple(heads)

    def predict(
        self,
        sources: Iterable[Source],
        *,
        seconds: float | None = None,
        stop: threading.Event | None = None,
    ) -> Generator[Prediction | Failed]:
        """Predict songs; yields one outcome a song, in their order.

        Args:
            sources: paths, or (samples, sample rate) pairs; taken ahead of what is yielded, from other threads.
            seconds: also predict every stretch of so many seconds.
            stop: once set, no further song is started, and those in hand are finished.

        Raises:
            UsageError: `seconds` is infinite or below the model's time resolution.
        """
        for outcome in self._engine.run(sources, seconds=seconds, stop=stop):
            yield outcome if isinstance(outcome, Failed) else self._prediction(outcome, seconds)

    def _prediction(self, song: Embedded, seconds: float | None) -> Prediction:
        """The engine's vectors hold the probabilities of all heads, one after another."""
        bounds = np.cumsum([len(head.labels) for head in self.heads])[:-1]
        columns = [head.column for head in self.heads]
        timelines = {}
        if song.segments is not None and seconds is not None:
            start = song.segments.times
            end = np.minimum(start + seconds, song.duration)
            parts = np.split(song.segments.embeddings, bounds, axis=1)
            timelines = {column: Timeline(start, end, part) for column, part in zip(columns, parts, strict=True)}
        whole = dict(zip(columns, np.split(song.embedding, bounds), strict=True))
        return Prediction(song.index, song.duration, whole, timelines, song.note)


def load_predictor(
    name_or_path: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    on_halved: Callable[[int], None] = lambda _: None,
) -> Predictor:
    """Load a trained model to predict labels with.

    Args:
        name_or_path: of its bundle.
        columns: label columns whose heads to use; None for all.
        device: as the following, see `poolembed.load`.
        precision: what the encoder computes in.
        batch_size: windows per batch.
        workers: threads.
        on_halved: told the new batch size if the device runs out of memory.

    Raises:
        BundleError: there is no such bundle, it is damaged, or it has no head.
        UsageError: it has no head of that column, or there is no such device here.
    """
    bundle = load_bundle(name_or_path)
    if not bundle.heads:
        raise BundleError(
            f"the model {os.fspath(name_or_path)!r} knows no labels: it has no classification head",
            hint="train one on labelled clips: poolembed train clips/ -o mymodel; then --model mymodel",
        )
    heads = {head.config.column: head for head in bundle.heads}
    for column in columns or ():
        if column not in heads:
            known = ", ".join(heads)
            raise UsageError(
                f"the model {os.fspath(name_or_path)!r} has no head {column!r}", hint=f"its heads are: {known}"
            )
    chosen = list(heads.values()) if columns is None else [heads[column] for column in dict.fromkeys(columns)]
    engine = build_engine(
        SongClassifier(bundle.network, chosen),
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        on_halved=on_halved,
    )
    return Predictor(engine, [head.config for head in chosen])


def top(head: HeadConfig, probabilities: NDArray[np.float32], count: int) -> list[tuple[str, float]]:
    """The most probable labels of ``(K,)`` probabilities, highest first; of equal ones the head's first."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [(head.labels[each], float(probabilities[each])) for each in order]


def intervals(head: HeadConfig, timeline: Timeline, threshold: float) -> list[Interval]:
    """Where each label's probability reaches a threshold, stretch after stretch joined; by start, then label."""
    heard = timeline.probabilities >= threshold
    # 1 where a run of stretches begins, -1 behind its end.
    edges = np.diff(np.pad(heard.astype(np.int8), ((1, 1), (0, 0))), axis=0)
    found = []
    for label, column in enumerate(edges.T):
        for first, behind in zip(np.flatnonzero(column == 1), np.flatnonzero(column == -1), strict=True):
            peak = timeline.probabilities[first:behind, label].max()
            start, end = timeline.start[first], timeline.end[behind - 1]
            found.append(Interval(float(start), float(end), head.labels[label], float(peak)))
    return sorted(found, key=lambda interval: interval.start)
