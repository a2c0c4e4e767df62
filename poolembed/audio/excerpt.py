"""Stretches of one file, decoded in one pass."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from poolembed.audio.faults import costing_the_song
from poolembed.audio.source import open_source
from poolembed.errors import AudioError

Span = tuple[float, float | None]
"""Where a stretch starts and ends, in seconds; None is the end of the file."""


def read_excerpts(
    path: str | os.PathLike[str], sample_rate: int, spans: Sequence[Span]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Decode a file once, and no further than needed, and cut any number of stretches out of it.

    The samples are those of the whole song at the rate wanted: a stretch of it has no edges of its own from resampling.
    In memory are one block of the file and those stretches that are begun and not yet whole.

    Args:
        path: the file.
        sample_rate: the rate wanted, in Hz.
        spans: in any order; they may overlap. They begin at 0 or later, and end after they begin.

    Yields:
        Each span's index and its samples, 1-D mono float32, ``round(start * rate)`` to ``round(end * rate)``, at least
        one of them; spans in the order in which they end. One that the end of the file cuts short has what there is.

    Raises:
        AudioError: the file cannot be decoded, or some spans start past its end. It is raised last: the spans that are
            not yielded by then are those that it is the reason for.
    """
    first = [round(start * sample_rate) for start, _ in spans]
    last = [
        None if end is None else max(round(end * sample_rate), begin + 1)
        for begin, (_, end) in zip(first, spans, strict=True)
    ]
    waiting = sorted(range(len(spans)), key=first.__getitem__, reverse=True)  # the next to begin is the last
    begun: dict[int, list[NDArray[np.float32]]] = {}
    done = 0  # samples decoded
    with costing_the_song(os.fsdecode(path)), open_source(path, sample_rate) as song:
        for block in song.blocks():
            end_of_block = done + len(block)
            while waiting and first[waiting[-1]] < end_of_block:
                begun[waiting.pop()] = []
            ended = []
            for index, pieces in begun.items():
                end = last[index]
                pieces.append(block[max(first[index] - done, 0) : None if end is None else end - done])
                if end is not None and end <= end_of_block:
                    ended.append((end, index))
            for _, index in sorted(ended):
                yield index, np.concatenate(begun.pop(index))
            done = end_of_block
            if not waiting and not begun:
                return
        for index in sorted(begun):
            yield index, np.concatenate(begun.pop(index))
        if waiting:
            note = f" ({song.note})" if song.note else ""
            raise AudioError(f"starts past the end: there are {done / sample_rate:.2f} s of audio in it{note}")
