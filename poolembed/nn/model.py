"""The whole network: waveform windows to mergeable states, states to unit vectors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import accumulate
from operator import mul
from typing import Any, cast

import torch
from torch import Tensor, nn

from poolembed.nn.config import ModelConfig, PoolingConfig, PoolingKind
from poolembed.nn.encoder import Encoder, band_mean
from poolembed.nn.frontend import LogMel
from poolembed.nn.pooling import AttentionPool, AutoPool, GeMPool, MaxPool, MeanPool, SoftmaxPool, TemporalPool
from poolembed.nn.statistics import AttentiveStatisticsPool, MeanMaxPool

Features = list[Tensor]
"""Per part, features ``(B, C_i, T_i)``; T_i divides the mel frames that they were made of."""

State = list[tuple[Tensor, ...]]
"""Per part, the state of its pooling."""


class SongModel(nn.Module):
    """Front end, encoder, pooling and projection, composed.

    A song's embedding is ``finalize`` of the merged ``fold`` of all its windows. The parts that are pooled: the frame
    features, by the configured pooling; optionally the average of every encoder stage over frequency and time, and
    mean and standard deviation of every mel band, which are mean-pool states like any other.

    Args:
        config: sizes and kinds.
        filterbank: as for `LogMel`.
    """

    def __init__(self, config: ModelConfig, filterbank: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        n_mels = config.frontend.n_mels
        self.frontend = LogMel(config.frontend, filterbank)
        self.mel_norm = nn.BatchNorm1d(n_mels, affine=False)
        self.encoder = Encoder(config.encoder, n_mels)
        self.pools = nn.ModuleList()
        self._reductions: list[int] = []
        self._state_sizes: list[list[int]] = []
        encoder = config.encoder
        self._add_part(
            build_pool(config.pooling, encoder.frame_features), encoder.frame_features, encoder.time_reduction
        )
        joined = self._pools[0].outputs * encoder.frame_features
        if config.mid_levels:
            for width, reduction in zip(encoder.widths, accumulate(encoder.time_strides, mul), strict=True):
                self._add_part(MeanPool(), width, reduction)
                joined += width
        if config.mel_statistics:
            self._add_part(MeanPool(), 2 * n_mels, 1)
            joined += 2 * n_mels
        self.norm = nn.BatchNorm1d(joined, affine=False)
        self.project = nn.Linear(joined, config.embedding_size)
        self.device = torch.device("cpu")
        self.dtype = torch.float32

    def _add_part(self, pool: TemporalPool[Any], channels: int, reduction: int) -> None:
        """One more part: how it is pooled, its channels, and how many mel frames one of its features stands for."""
        self.pools.append(pool)
        self._reductions.append(reduction)
        self._state_sizes.append([tensor.shape[-1] for tensor in pool.fold(torch.zeros(1, channels, 1))])

    @property
    def _pools(self) -> list[TemporalPool[Any]]:
        return [cast("TemporalPool[Any]", pool) for pool in self.pools]

    @property
    def window_samples(self) -> int:
        """Samples of one window, context included."""
        frontend, encoder = self.config.frontend, self.config.encoder
        frames = encoder.window_frames + sum(encoder.context_frames)
        return (frames - 1) * frontend.hop_length + frontend.n_fft

    def features(self, samples: Tensor) -> Features:
        """Features of windows ``(B, window_samples)``, one tensor per part."""
        return self.mel_features(self.frontend(samples))

    def mel_features(self, mel: Tensor) -> Features:
        """Features of windows of log-mel ``(B, F, n_mels)``, as the front end makes it; `features` from there on.

        The context is part of the windows (`EncoderConfig.context_frames`), and has no features.
        """
        # Moments are written where they are needed: to copy them there would take a tenth of a small model's time.
        bands = mel.shape[-1]
        moments = mel.new_empty(*mel.shape[:-1], 2 * bands if self.config.mel_statistics else bands)
        mel = self._normalise(mel, moments[..., :bands])
        if self.config.mel_statistics:
            torch.square(mel, out=moments[..., bands:])  # before the encoder keeps its part for backward
        frames, levels = self.encoder(mel)
        margin, *margins = self.config.encoder.margins
        parts = [frames]
        if self.config.mid_levels:
            parts += [_between(band_mean(level), each) for level, each in zip(levels, margins, strict=True)]
        if self.config.mel_statistics:
            parts.append(_between(moments.transpose(1, 2), margin))
        return parts

    def clip_features(self, mel: Tensor) -> Features:
        """Features of clips of W windows ``(B, W, F, n_mels)``, joined along time: ``(B, C_i, W * T_i)``.

        Every window is encoded by itself, as when a song is embedded. With context a clip of any length is one window,
        for that makes no difference.
        """
        clips, windows = mel.shape[:2]
        return [
            part.reshape(clips, windows, *part.shape[1:]).transpose(1, 2).flatten(2)
            for part in self.mel_features(mel.flatten(0, 1))
        ]

    def _normalise(self, mel: Tensor, out: Tensor) -> Tensor:
        if self.mel_norm.training:
            return out.copy_(cast(Tensor, self.mel_norm(mel.transpose(1, 2))).transpose(1, 2))
        mean, variance = cast(Tensor, self.mel_norm.running_mean), cast(Tensor, self.mel_norm.running_var)
        return torch.sub(mel, mean, out=out).mul_((variance + self.mel_norm.eps).rsqrt())

    def fold(self, features: Features, start: Tensor, stop: Tensor) -> State:
        """State of mel frames ``[start, stop)`` of each window or clip.

        A feature belongs to the stretch that holds the first of the mel frames it stands for.

        Args:
            features: of B windows, from `features` or `mel_features`, or of B clips, from `clip_features`.
            start: ``(B,)`` integers.
            stop: ``(B,)`` integers; ``stop <= start`` gives the neutral state.
        """
        state = []
        for pool, part, reduction in zip(self._pools, features, self._reductions, strict=True):
            first = torch.arange(part.shape[-1], device=part.device) * reduction
            mask = (first >= start.unsqueeze(1)) & (first < stop.unsqueeze(1))
            state.append(tuple(pool.fold(part, mask)))
        return state

    def merge_rows(self, state: State) -> State:
        """Merge all rows of a state, which are consecutive windows of one song, into one row, pairwise in order."""
        return [pool_rows_merged(pool, part) for pool, part in zip(self._pools, state, strict=True)]

    def finalize(self, state: State) -> Tensor:
        """Embeddings ``(B, embedding_size)``, float32, unit length, of states of B songs.

        Pools that were added behind the model's own have no part in it; nor has their state, then.

        Raises:
            ValueError: a row without any frame.
        """
        parts = [pool.finalize(_typed(pool, part)) for pool, part in zip(self._pools, state, strict=False)]
        if self.config.mel_statistics:
            mean, mean_square = parts[-1].chunk(2, dim=-1)
            parts[-1] = torch.cat([mean, (mean_square - mean.square()).clamp_min(0).add(1e-6).sqrt()], dim=-1)
        joined = torch.cat(parts, dim=-1).to(self.project.weight.dtype)
        with torch.autocast(joined.device.type, enabled=False):
            return nn.functional.normalize(cast(Tensor, self.project(self.norm(joined))), dim=-1)

    def forward(self, samples: Tensor, frames: Tensor) -> Tensor:
        """Embeddings of one-window songs: ``(B, window_samples)`` and ``(B,)`` counts of real mel frames."""
        return self.finalize(self.fold(self.features(samples), torch.zeros_like(frames), frames))

    def pack(self, state: State) -> Tensor:
        """A state as one ``(B, state_size)`` tensor, for one copy between devices."""
        return torch.cat([tensor for part in state for tensor in part], dim=-1)

    def unpack(self, packed: Tensor) -> State:
        """Inverse of `pack`."""
        flat = list(torch.split(packed, [size for part in self._state_sizes for size in part], dim=-1))
        state = []
        for part in self._state_sizes:
            state.append(tuple(flat[: len(part)]))
            flat = flat[len(part) :]
        return state

    @property
    def state_size(self) -> int:
        """Numbers in the packed state of one window."""
        return sum(size for part in self._state_sizes for size in part)

    def for_inference(self, device: torch.device, dtype: torch.dtype) -> SongModel:
        """A copy that embeds: batch norms folded, the encoder in `dtype` and channels-last, all else in float32.

        See `Encoder.for_inference_` for what of the encoder stays in float32 too.
        """
        model = copy.deepcopy(self).eval().requires_grad_(False)
        model.encoder.for_inference_(dtype)
        cast(Any, model.encoder).to(memory_format=torch.channels_last)  # no overload of torch has it before 2.14
        model.device, model.dtype = device, dtype
        return model.to(device)


def build_pool(config: PoolingConfig, channels: int) -> TemporalPool[Any]:
    """The pooling layer that a config names, for frame features of so many channels."""
    scope = channels if config.scope == "channel" else None
    build: dict[PoolingKind, Callable[[], TemporalPool[Any]]] = {
        "mean": MeanPool,
        "max": MaxPool,
        "mean+max": MeanMaxPool,
        "softmax": SoftmaxPool,
        "autopool": lambda: AutoPool(scope, alpha=config.alpha, alpha_max=config.alpha_max, alpha_l2=config.alpha_l2),
        "gem": lambda: GeMPool(scope, p=config.p),
        "attention": lambda: AttentionPool(channels),
        "attentive-statistics": lambda: AttentiveStatisticsPool(channels),
    }
    return build[config.kind]()


def _between(part: Tensor, margin: tuple[int, int]) -> Tensor:
    """``(B, C, T)`` without the frames of context before and after."""
    before, after = margin
    return part[..., before : part.shape[-1] - after]


def _typed(pool: TemporalPool[Any], part: tuple[Tensor, ...]) -> Any:
    return pool.State(*part)


def pool_rows_merged(pool: TemporalPool[Any], part: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Merge all rows of one pooling's state into one row, pairwise in order."""
    rows = part
    while rows[0].shape[0] > 1:
        even = rows[0].shape[0] // 2 * 2
        a, b = (_typed(pool, tuple(t[first:even:2] for t in rows)) for first in (0, 1))
        rows = tuple(
            torch.cat([merged, left[even:]]) if left.shape[0] > even else merged
            for merged, left in zip(pool.merge(a, b), rows, strict=True)
        )
    return rows
