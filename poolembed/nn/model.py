"""The whole network: waveform windows to mergeable states, states to unit vectors."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from poolembed.nn.config import ModelConfig, PoolingConfig
from poolembed.nn.encoder import Encoder
from poolembed.nn.frontend import LogMel
from poolembed.nn.pooling import AttentionPool, AutoPool, GeMPool, MaxPool, MeanPool, SoftmaxPool, TemporalPool

Features = list[Tensor]
"""Per part, features ``(B, C_i, T_i)``; T_i divides the window's mel frames."""

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
        sizes = [config.encoder.frame_features]
        pools: list[nn.Module] = [build_pool(config.pooling, config.encoder.frame_features)]
        if config.mid_levels:
            sizes += config.encoder.widths
            pools += [MeanPool() for _ in config.encoder.widths]
        if config.mel_statistics:
            sizes.append(2 * n_mels)
            pools.append(MeanPool())
        self.pools = nn.ModuleList(pools)
        self._state_sizes = [
            [t.shape[-1] for t in pool.fold(torch.zeros(1, c, 1))] for pool, c in zip(self._pools, sizes, strict=True)
        ]
        self.norm = nn.BatchNorm1d(sum(sizes), affine=False)
        self.project = nn.Linear(sum(sizes), config.embedding_size)
        self.device = torch.device("cpu")
        self.dtype = torch.float32

    @property
    def _pools(self) -> list[TemporalPool[Any]]:
        return [cast("TemporalPool[Any]", pool) for pool in self.pools]

    @property
    def window_samples(self) -> int:
        """Samples of one window, context included."""
        frontend = self.config.frontend
        return (self.config.encoder.window_frames - 1) * frontend.hop_length + frontend.n_fft

    def features(self, samples: Tensor) -> Features:
        """Features of windows ``(B, window_samples)``, one tensor per part."""
        mel = self.frontend(samples)
        mel = self._normalised(mel)
        frames, levels = self.encoder(mel.to(self.dtype))
        parts = [frames]
        if self.config.mid_levels:
            # The same as level.mean(-1), which takes ten times as long on channels-last tensors on the CPU.
            parts += [nn.functional.avg_pool2d(level, (1, level.shape[-1])).squeeze(-1) for level in levels]
        if self.config.mel_statistics:
            parts.append(torch.cat([mel, mel.square()], dim=-1).transpose(1, 2))
        return parts

    def _normalised(self, mel: Tensor) -> Tensor:
        if self.training:
            return cast(Tensor, self.mel_norm(mel.transpose(1, 2))).transpose(1, 2)
        mean, variance = cast(Tensor, self.mel_norm.running_mean), cast(Tensor, self.mel_norm.running_var)
        return (mel - mean) * (variance + self.mel_norm.eps).rsqrt()

    def fold(self, features: Features, start: Tensor, stop: Tensor) -> State:
        """State of mel frames ``[start, stop)`` of each window.

        A feature belongs to the stretch that holds the first of the mel frames it stands for.

        Args:
            features: of B windows, from `features`.
            start: ``(B,)`` integers.
            stop: ``(B,)`` integers; ``stop <= start`` gives the neutral state.
        """
        state = []
        for pool, part in zip(self._pools, features, strict=True):
            reduction = self.config.encoder.window_frames // part.shape[-1]
            first = torch.arange(part.shape[-1], device=part.device) * reduction
            mask = (first >= start.unsqueeze(1)) & (first < stop.unsqueeze(1))
            state.append(tuple(pool.fold(part, mask)))
        return state

    def merge_rows(self, state: State) -> State:
        """Merge all rows of a state, which are consecutive windows of one song, into one row, pairwise in order."""
        return [_merge_rows(pool, part) for pool, part in zip(self._pools, state, strict=True)]

    def finalize(self, state: State) -> Tensor:
        """Embeddings ``(B, embedding_size)``, float32, unit length, of states of B songs.

        Raises:
            ValueError: a row without any frame.
        """
        parts = [pool.finalize(_typed(pool, part)) for pool, part in zip(self._pools, state, strict=True)]
        if self.config.mel_statistics:
            mean, mean_square = parts[-1].chunk(2, dim=-1)
            parts[-1] = torch.cat([mean, (mean_square - mean.square()).clamp_min(0).add(1e-6).sqrt()], dim=-1)
        joined = torch.cat(parts, dim=-1).to(self.project.weight.dtype)
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
        """A copy that embeds: batch norms folded, the encoder in `dtype` and channels-last, all else in float32."""
        model = copy.deepcopy(self).eval().requires_grad_(False)
        model.encoder.fold_norms_()
        model.encoder.to(dtype)
        model.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.device, model.dtype = device, dtype
        return model.to(device)


def build_pool(config: PoolingConfig, channels: int) -> TemporalPool[Any]:
    """The pooling layer that a config names, for frame features of so many channels."""
    scope = channels if config.scope == "channel" else None
    match config.kind:
        case "mean":
            return MeanPool()
        case "max":
            return MaxPool()
        case "softmax":
            return SoftmaxPool()
        case "autopool":
            return AutoPool(scope, alpha=config.alpha, alpha_max=config.alpha_max, alpha_l2=config.alpha_l2)
        case "gem":
            return GeMPool(scope, p=config.p)
        case "attention":
            return AttentionPool(channels)


def _typed(pool: TemporalPool[Any], part: tuple[Tensor, ...]) -> Any:
    return pool.State(*part)


def _merge_rows(pool: TemporalPool[Any], part: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    rows = part
    while rows[0].shape[0] > 1:
        even = rows[0].shape[0] // 2 * 2
        a, b = (_typed(pool, tuple(t[first:even:2] for t in rows)) for first in (0, 1))
        rows = tuple(
            torch.cat([merged, left[even:]]) if left.shape[0] > even else merged
            for merged, left in zip(pool.merge(a, b), rows, strict=True)
        )
    return rows
