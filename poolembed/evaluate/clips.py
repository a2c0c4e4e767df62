"""Labelled clips, whole files and stretches of files, to one vector each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poolembed.audio.excerpt import read_excerpts
from poolembed.audio.source import Source
from poolembed.embed.engine import Engine
from poolembed.embed.song import Embedded
from poolembed.errors import AudioError
from poolembed.labels import Clip


@dataclass(frozen=True)
class ClipVectors:
    """Vectors of those clips that could be read.

    Attributes:
        rows: the clips' indices, ascending.
        matrix: ``(len(rows), D)`` float32.
        seconds: decoded audio of each.
        failures: by the clip's key, why there is no vector of it.
        notes: by the clip's key, what was wrong with a file that was read all the same.
    """

    rows: list[int]
    matrix: NDArray[np.float32]
    seconds: list[float]
    failures: dict[str, str]
    notes: dict[str, str]


def embed_clips(engine: Engine, clips: Sequence[Clip], on_clip: Callable[[], None] = lambda: None) -> ClipVectors:
    """Embed clips as ``poolembed embed`` would; a stretch of a file is embedded as if it were a file.

    Args:
        engine: of the model.
        clips: what to embed.
        on_clip: called when a clip is done.
    """
    failures: dict[int, str] = {}
    order: list[int] = []
    found: dict[int, Embedded] = {}

    def sources() -> Iterator[Source]:
        for index, source in clip_sources(clips, engine.head.config.frontend.sample_rate, failures):
            order.append(index)
            yield source

    with closing(engine.run(sources(), ordered=False)) as outcomes:
        for outcome in outcomes:
            index = order[outcome.index]
            if isinstance(outcome, Embedded):
                found[index] = outcome
            else:
                failures[index] = outcome.reason
            on_clip()
    rows = sorted(found)
    size = engine.head.config.embedding_size
    return ClipVectors(
        rows=rows,
        matrix=np.array([found[row].embedding for row in rows], np.float32).reshape(len(rows), size),
        seconds=[found[row].duration for row in rows],
        failures={clips[index].key: failures[index] for index in sorted(failures)},
        notes={clips[row].key: note for row in rows if (note := found[row].note) is not None},
    )


def clip_sources(clips: Sequence[Clip], sample_rate: int, failures: dict[int, str]) -> Iterator[tuple[int, Source]]:
    """What the engine reads for each clip, with the clip's index: whole files by path, stretches as samples.

    A file that several clips are cut from is decoded once. Whole files come first.

    Args:
        clips: in any order.
        sample_rate: of the samples, in Hz.
        failures: takes, by index, the reason why a stretch cannot be cut.
    """
    stretches: dict[str, list[int]] = {}
    for index, clip in enumerate(clips):
        if clip.start == 0 and clip.end is None:
            yield index, clip.path
        else:
            stretches.setdefault(clip.path, []).append(index)
    for path, indices in stretches.items():
        left = set(indices)
        try:
            spans = [(clips[index].start, clips[index].end) for index in indices]
            for number, samples in read_excerpts(path, sample_rate, spans):
                left.discard(indices[number])
                yield indices[number], (samples, sample_rate)
        except AudioError as error:
            failures.update(dict.fromkeys(left, error.message))
