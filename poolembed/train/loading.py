"""The batches of training steps, and outputs for whole clips, from the cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from poolembed.errors import TrainingError
from poolembed.nn.frontend import LogMel
from poolembed.nn.model import Features, State
from poolembed.train.augment import WhiteNoise, augment, mixup
from poolembed.train.cache import dequantise
from poolembed.train.config import AugmentConfig
from poolembed.train.features import FeatureBatch, FeatureCache
from poolembed.train.module import HeadedModel, Inputs
from poolembed.train.objectives.base import Mix, Outputs
from poolembed.train.sampling import Batch, Crops, Prefetcher, Sampler

WINDOWS = 32
"""Windows that whole clips are encoded by at a time."""


class Loader:
    """The batches of training steps: augmented crops of log-mels, or features of a frozen encoder as they are.

    Args:
        source: cuts the batches.
        sampler: says which.
        windows: W of a crop.
        config: strengths of the augmentation.
        device: that trains.
        frontend: that the log-mels are of.
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
        frontend: LogMel,
        rank: int,
    ) -> None:
        self.steps_per_epoch = sampler.steps_per_epoch
        self._source, self._sampler, self._windows = source, sampler, windows
        self._config, self._device, self._rank = config, device, rank
        self._floor = frontend.config.log_floor
        self._noise = WhiteNoise(frontend) if config.noise else None

    def prefetch(self, first: int, last: int) -> Prefetcher[Batch | FeatureBatch]:
        """The batches of steps ``[first, last)``, cut ahead of time in a thread of their own."""

        def cut(step: int) -> Batch | FeatureBatch:
            batch = self._source.batch(self._sampler, step, self._windows)
            return batch.pinned() if self._device.type == "cuda" else batch

        return Prefetcher(cut, range(first, last))

    def inputs(self, batch: Batch | FeatureBatch, step: int) -> Inputs:
        """What the network is given of a batch, on the device."""
        clips = batch.clips
        batch = batch.to(self._device)
        if isinstance(batch, FeatureBatch):
            return Inputs(batch.parts(), batch.frames, clips)
        place = {"seed": self._sampler.seed, "step": step, "rank": self._rank}
        mel = dequantise(batch.mel, self._floor)
        first, last = batch.heard.unbind(1)
        mel = augment(mel, last - first, self._config, log_floor=self._floor, first=first, noise=self._noise, **place)
        if not self._config.mixup:
            return Inputs(mel, batch.frames, clips, start=batch.start)
        mixed = mixup(mel, batch.frames, self._config.mixup, log_floor=self._floor, start=batch.start, **place)
        return Inputs(mixed.mel, mixed.frames, clips, Mix(mixed.partner, mixed.share), mixed.start)


class WholeClips:
    """Runs the network over whole clips, of any length, as embedding songs does: every window by itself, states merged.

    Args:
        source: log-mels of the run's table, or the features of a frozen encoder.
        device: that the model is on.
        log_floor: of the log-mels.
    """

    def __init__(self, source: Crops | FeatureCache, *, device: torch.device, log_floor: float) -> None:
        self._source, self._device, self._floor = source, device, log_floor

    @torch.no_grad()
    def outputs(self, headed: HeadedModel, clips: Sequence[int]) -> Outputs:
        """Embeddings and scores of clips, in their order, on the CPU; the model must be in eval mode."""
        done: list[Outputs] = []
        waiting: list[State] = []  # of whole clips
        parts: list[State] = []  # of the clip in hand
        current = -1
        for batch in self._source.whole(clips, WINDOWS):
            state, numbers = self._fold(headed, batch), batch.clips.tolist()
            starts = [i for i in range(len(numbers)) if i == 0 or numbers[i] != numbers[i - 1]]
            for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True):
                if numbers[start] != current and parts:
                    waiting.append(_merged(headed, parts))
                    parts = []
                current = numbers[start]
                parts.append([tuple(t[start:stop] for t in part) for part in state])
            if len(waiting) >= WINDOWS:
                done.append(self._finalized(headed, waiting))
                waiting = []
        if parts:
            waiting.append(_merged(headed, parts))
        if waiting:
            done.append(self._finalized(headed, waiting))
        scores = {column: torch.cat([rows.scores[column] for rows in done]) for column in done[0].scores}
        embeddings = torch.cat([rows.embeddings for rows in done])
        if not all(bool(numbers.isfinite().all()) for numbers in (embeddings, *scores.values())):
            raise TrainingError(
                "the network gives NaN or infinite numbers for whole clips", hint="lower --lr, or --precision fp32"
            )
        return Outputs(torch.tensor(clips), embeddings, scores)

    @torch.no_grad()
    def halves(self, headed: HeadedModel, clips: Sequence[int]) -> Tensor:
        """Embeddings ``(2, N, D)`` of the first and the second half of each clip, on the CPU."""
        return torch.stack([self._halves(headed, clip) for clip in clips], 1)

    def _halves(self, headed: HeadedModel, clip: int) -> Tensor:
        batches = [batch.to(self._device) for batch in self._source.whole([clip], WINDOWS)]
        total = sum(int(batch.frames.sum()) for batch in batches)
        parts: tuple[list[State], list[State]] = ([], [])
        before = 0
        for batch in batches:
            frames = batch.frames
            first = before + frames.cumsum(0) - frames
            middle = (total // 2 - first).clamp_min(0).minimum(frames)
            features = self._features(headed, batch)
            parts[0].append(headed.model.fold(features, torch.zeros_like(frames), middle))
            parts[1].append(headed.model.fold(features, middle, frames))
            before += int(frames.sum())
        rows = [headed.model.merge_rows(_joined(half)) for half in parts]
        return headed.model.finalize(_joined(rows)).cpu()

    def _fold(self, headed: HeadedModel, batch: Batch | FeatureBatch) -> State:
        batch = batch.to(self._device)
        return headed.fold(self._features(headed, batch), batch.frames)

    def _features(self, headed: HeadedModel, batch: Batch | FeatureBatch) -> Features:
        if isinstance(batch, FeatureBatch):
            return batch.parts()
        return headed.features(dequantise(batch.mel, self._floor), batch.frames)

    def _finalized(self, headed: HeadedModel, states: list[State]) -> Outputs:
        rows = headed.finalize(_joined(states), torch.zeros(0))
        scores = {column: each.cpu() for column, each in rows.scores.items()}
        return Outputs(rows.clips, rows.embeddings.cpu(), scores)


def _joined(states: list[State]) -> State:
    """The rows of several states, one after the other."""
    return [tuple(torch.cat(tensors) for tensors in zip(*part, strict=True)) for part in zip(*states, strict=True)]


def _merged(headed: HeadedModel, parts: list[State]) -> State:
    return headed.merge_rows(parts[0] if len(parts) == 1 else _joined(parts))
