"""Labels of songs, with probabilities: what the heads of a trained model say of a whole song and of its stretches.

Songs run through the engine as they do for embeddings: any length in constant memory, windows of many songs in one
batch, and the same result whatever the batch. What is returned grows with the number of stretches alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poolembed.audio.source import Source
from poolembed.bundle import load_bundle
from poolembed.embed.device import DeviceName, PrecisionName
from poolembed.embed.engine import Engine
from poolembed.embed.model import build_engine
from poolembed.embed.run import find_songs
from poolembed.embed.song import Embedded, Failed
from poolembed.errors import FilesFailedError, UsageError
from poolembed.heads import Labels, choose, no_head, top
from poolembed.nn.classifier import SongClassifier
from poolembed.nn.config import HeadConfig
from poolembed.text import passed_over, printable

THRESHOLD = 0.5
"""Probability from which on a label is heard."""


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
class Moment:
    """What is heard from `start` to `end`, in seconds: the likeliest labels, or one and its highest probability."""

    start: float
    end: float
    labels: Labels


@dataclass(frozen=True, slots=True)
class LabelledSong:
    """The labels of a song.

    Attributes:
        path: of the file.
        duration: decoded seconds of audio.
        labels: per label column the likeliest labels, the likeliest first.
        moments: per label column, where `seconds` were asked for: what is heard in every stretch; or, of a model that
            was trained with ``--pool predictions``, from when to when each label is heard.
    """

    path: str
    duration: float
    labels: dict[str, Labels]
    moments: dict[str, list[Moment]]


def predict(
    songs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    model: str | os.PathLike[str] = "base",
    *,
    columns: Sequence[str] | None = None,
    count: int = 3,
    seconds: float | None = None,
    threshold: float | None = None,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    workers: int | None = None,
    stop: threading.Event | None = None,
    on_error: Callable[[str, str], None] | None = None,
    on_note: Callable[[str], None] = lambda _: None,
) -> Generator[LabelledSong]:
    """Label songs with what a model that was trained on labelled clips hears in them.

    Args:
        songs: audio files, and directories to search for them.
        model: name or path of the model.
        columns: the label columns to predict; None for all that the model knows.
        count: how many labels, the likeliest.
        seconds: also say what is heard when, as fine as so many seconds.
        threshold: the probability from which on a label is heard, 0 to 1; None for `THRESHOLD`.
        device: as the following, see `poolembed.load`.
        precision: what the encoder computes in.
        workers: threads.
        stop: once set, no further song is started, and those in hand are finished.
        on_error: told path and reason of what cannot be read. Without it, an error that names all such files is raised
            at the end, after the others were yielded.
        on_note: told what was passed over, and what is wrong with a file that is labelled all the same.

    Returns:
        The songs in order, as they are ready.

    Raises:
        NothingFoundError: there is no audio file.
        BundleError: there is no such model, or it knows no labels.
        UsageError: it knows no such column, or options do not go together.
        FilesFailedError: at the end, if files failed and there is no `on_error`.
    """
    found = find_songs([songs] if isinstance(songs, str | os.PathLike) else songs)
    predictor = load_predictor(model, columns=columns, device=device, precision=precision, workers=workers)
    if threshold is not None and (seconds is None or all(head.pool == "features" for head in predictor.heads)):
        raise UsageError(
            "--threshold tells from when to when a label is heard",
            hint="it goes with --timestamps, and with a model that was trained with --pool predictions",
        )
    failures: dict[str, str] = {}
    for path, reason in found.unreadable.items():
        (on_error or failures.__setitem__)(path, reason)
    if found.passed_over:
        on_note(f"passed over {passed_over(found.passed_over)}")
    paths = [file.path for file in found.files]

    def labelled() -> Generator[LabelledSong]:
        with closing(predictor.predict(paths, seconds=seconds, stop=stop)) as outcomes:
            for song in outcomes:
                path = paths[song.index]
                if isinstance(song, Failed):
                    (on_error or failures.__setitem__)(path, song.reason)
                    continue
                if song.note is not None:
                    on_note(f"{printable(path)}: {song.note}")
                labels = {head.column: top(head, song.probabilities[head.column], count) for head in predictor.heads}
                moments = {
                    head.column: moments_of(head, song.timelines[head.column], count, threshold)
                    for head in predictor.heads
                    if song.timelines
                }
                yield LabelledSong(path, song.duration, labels, moments)
        if failures:
            raise FilesFailedError(failures)

    return labelled()


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
        raise no_head(name_or_path, "no classification head")
    chosen = choose(bundle.heads, columns, os.fspath(name_or_path))
    engine = build_engine(
        SongClassifier(bundle.network, chosen),
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        on_halved=on_halved,
    )
    return Predictor(engine, [head.config for head in chosen])


def moments_of(head: HeadConfig, timeline: Timeline, count: int, threshold: float | None) -> list[Moment]:
    """What is heard from when to when: each stretch's likeliest labels, or each label's own time."""
    if head.pool == "predictions":
        return intervals(head, timeline, THRESHOLD if threshold is None else threshold)
    stretches = zip(timeline.start.tolist(), timeline.end.tolist(), timeline.probabilities, strict=True)
    return [Moment(start, end, top(head, row, count)) for start, end, row in stretches]


def intervals(head: HeadConfig, timeline: Timeline, threshold: float) -> list[Moment]:
    """Where each label's probability reaches a threshold, stretch after stretch joined; by start, then label."""
    heard = timeline.probabilities >= threshold
    # 1 where a run of stretches begins, -1 behind its end.
    edges = np.diff(np.pad(heard.astype(np.int8), ((1, 1), (0, 0))), axis=0)
    found = []
    for label, column in enumerate(edges.T):
        for first, behind in zip(np.flatnonzero(column == 1), np.flatnonzero(column == -1), strict=True):
            peak = float(timeline.probabilities[first:behind, label].max())
            start, end = float(timeline.start[first]), float(timeline.end[behind - 1])
            found.append(Moment(start, end, [(head.labels[label], peak)]))
    return sorted(found, key=lambda moment: moment.start)
