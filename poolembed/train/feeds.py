"""From the cache to what a step is given, and to every window of whole clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from poolembed.errors import TrainingError
from poolembed.nn.model import Features, State
from poolembed.train.augment import augment, mixup
from poolembed.train.cache import dequantise
from poolembed.train.config import AugmentConfig
from poolembed.train.features import FeatureBatch, FeatureCache
from poolembed.train.learner import Student
from poolembed.train.loop import Item
from poolembed.train.objectives import Mix, Rows
from poolembed.train.sampling import Batch, Crops, Prefetcher, Sampler

B = TypeVar("B")

WINDOWS = 32
"""Windows that whole clips are encoded by at a time."""


class Steps(Generic[B]):
    """The items of consecutive steps; iterate once, then `close`.

    Args:
        make: makes the batch of a step, ahead of time, in a thread of its own.
        finish: makes the item of it, in the thread that trains.
        first: the first step.
        last: the step after the last.
    """

    def __init__(self, make: Callable[[int], B], finish: Callable[[B, int], Item], first: int, last: int) -> None:
        self._prefetcher = Prefetcher(make, range(first, last))
        self._finish = finish
        self._first = first

    @property
    def waited(self) -> float:
        """Seconds that were waited for batches since this was last set."""
        return self._prefetcher.waited

    @waited.setter
    def waited(self, seconds: float) -> None:
        self._prefetcher.waited = seconds

    def __iter__(self) -> Iterator[Item]:
        for step, batch in enumerate(self._prefetcher, self._first):
            yield self._finish(batch, step)

    def close(self) -> None:
        """Stop making batches."""
        self._prefetcher.close()


class StepFeed:
    """What steps are given: augmented crops of log-mels, or features of a frozen encoder as they are.

    Args:
        source: cuts the batches.
        sampler: says which.
        windows: W of a crop.
        config: strengths of the augmentation.
        device: that trains.
        log_floor: of the log-mels.
        rank: number of the process.
    """

    def __init__(
        self,
        source: Crops | FeatureCache,
        sampler: Sampler,
        *,
        windows: int,
        config: AugmentConfig,
        device: torch.device,
        log_floor: float,
        rank: int,
    ) -> None:
        self.steps_per_epoch = sampler.steps_per_epoch
        self._source, self._sampler, self._windows = source, sampler, windows
        self._config, self._device, self._floor, self._rank = config, device, log_floor, rank

    def items(self, first: int, last: int) -> Steps[Batch | FeatureBatch]:
        """What steps ``[first, last)`` are given."""
        return Steps(self._make, self._finish, first, last)

    def _make(self, step: int) -> Batch | FeatureBatch:
        batch = self._source.batch(self._sampler, step, self._windows)
        return batch.pinned() if self._device.type == "cuda" else batch

    def _finish(self, batch: Batch | FeatureBatch, step: int) -> Item:
        clips = batch.clips
        batch = batch.to(self._device)
        if isinstance(batch, FeatureBatch):
            return Item(batch.parts(), batch.frames, clips, None)
        place = {"seed": self._sampler.seed, "step": step, "rank": self._rank}
        mel = dequantise(batch.mel, self._floor)
        first, last = batch.heard.unbind(1)
        mel = augment(mel, last - first, self._config, log_floor=self._floor, first=first, **place)
        if not self._config.mixup:
            return Item(mel, batch.frames, clips, None, batch.start)
        mixed = mixup(mel, batch.frames, self._config.mixup, log_floor=self._floor, start=batch.start, **place)
        return Item(mixed.mel, mixed.frames, clips, Mix(mixed.partner, mixed.share), mixed.start)


class Reader:
    """Embeds whole clips, of any length, as embedding songs does: every window by itself, states merged.

    Args:
        source: log-mels of the run's table, or the features of a frozen encoder.
        device: that the student is on.
        log_floor: of the log-mels.
    """

    def __init__(self, source: Crops | FeatureCache, *, device: torch.device, log_floor: float) -> None:
        self._source, self._device, self._floor = source, device, log_floor

    @torch.no_grad()
    def rows(self, student: Student, clips: Sequence[int]) -> Rows:
        """Embeddings and scores of clips, in their order, on the CPU; the student must be in eval mode."""
        done: list[Rows] = []
        waiting: list[State] = []  # of whole clips
        parts: list[State] = []  # of the clip in hand
        current = -1
        for batch in self._source.whole(clips, WINDOWS):
            state, numbers = self._fold(student, batch), batch.clips.tolist()
            starts = [i for i in range(len(numbers)) if i == 0 or numbers[i] != numbers[i - 1]]
            for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True):
                if numbers[start] != current and parts:
                    waiting.append(_merged(student, parts))
                    parts = []
                current = numbers[start]
                parts.append([tuple(t[start:stop] for t in part) for part in state])
            if len(waiting) >= WINDOWS:
                done.append(self._finalized(student, waiting))
                waiting = []
        if parts:
            waiting.append(_merged(student, parts))
        if waiting:
            done.append(self._finalized(student, waiting))
        scores = {column: torch.cat([rows.scores[column] for rows in done]) for column in done[0].scores}
        embeddings = torch.cat([rows.embeddings for rows in done])
        if not all(bool(numbers.isfinite().all()) for numbers in (embeddings, *scores.values())):
            raise TrainingError(
                "the network gives NaN or infinite numbers for whole clips", hint="lower --lr, or --precision fp32"
            )
        return Rows(torch.tensor(clips), embeddings, scores)

    @torch.no_grad()
    def halves(self, student: Student, clip: int) -> Tensor:
        """Embeddings ``(2, D)`` of the first and the second half of a clip, which belong together."""
        batches = [batch.to(self._device) for batch in self._source.whole([clip], WINDOWS)]
        total = sum(int(batch.frames.sum()) for batch in batches)
        parts: tuple[list[State], list[State]] = ([], [])
        before = 0
        for batch in batches:
            frames = batch.frames
            first = before + frames.cumsum(0) - frames
            middle = (total // 2 - first).clamp_min(0).minimum(frames)
            features = self._features(student, batch)
            parts[0].append(student.model.fold(features, torch.zeros_like(frames), middle))
            parts[1].append(student.model.fold(features, middle, frames))
            before += int(frames.sum())
        rows = [student.model.merge_rows(_joined(half)) for half in parts]
        return student.model.finalize(_joined(rows)).cpu()

    def _fold(self, student: Student, batch: Batch | FeatureBatch) -> State:
        batch = batch.to(self._device)
        return student.fold(self._features(student, batch), batch.frames)

    def _features(self, student: Student, batch: Batch | FeatureBatch) -> Features:
        if isinstance(batch, FeatureBatch):
            return batch.parts()
        return student.features(dequantise(batch.mel, self._floor), batch.frames)

    def _finalized(self, student: Student, states: list[State]) -> Rows:
        rows = student.finalize(_joined(states), torch.zeros(0))
        scores = {column: each.cpu() for column, each in rows.scores.items()}
        return Rows(rows.clips, rows.embeddings.cpu(), scores)


def _joined(states: list[State]) -> State:
    """The rows of several states, one after the other."""
    return [tuple(torch.cat(tensors) for tensors in zip(*part, strict=True)) for part in zip(*states, strict=True)]


def _merged(student: Student, parts: list[State]) -> State:
    return student.merge_rows(parts[0] if len(parts) == 1 else _joined(parts))
