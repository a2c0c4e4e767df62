"""What is trained: the model and its heads, which are kept, and the modules that the objectives add."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from poolembed.nn.head import EmbeddingHead, FrameHead, Head
from poolembed.nn.model import Features, SongModel, State, pool_rows_merged
from poolembed.train.objectives.base import Mix, Objective, Outputs
from poolembed.train.optim import pools_of


class HeadedModel(nn.Module):
    """A model and its heads: what is kept of a run.

    Args:
        model: makes embeddings.
        heads: classifiers, at most one per label column.
        precision: what the encoder computes in; all else is float32.
    """

    def __init__(self, model: SongModel, heads: Sequence[Head], precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.model = model
        self.heads = nn.ModuleList(heads)
        self.precision = precision

    def features(self, mel: Tensor, stop: Tensor) -> Features:
        """Features of clips' log-mels ``(R, W, F, n_mels)``, each part ``(R, C_i, W T_i)``.

        Windows that are all padding are not encoded, and their features are 0: beside clips of up to a minute they
        would be half of the work, and half of what batch norm takes its statistics from.

        Args:
            mel: log-mels.
            stop: ``(R,)`` the mel frame of each at which padding begins.
        """
        clips, windows = mel.shape[:2]
        length = mel.shape[2] - sum(self.model.config.encoder.context_frames)
        half = self.precision != torch.float32
        with torch.autocast(mel.device.type, self.precision if half else None, enabled=half):
            real = torch.arange(windows, device=mel.device) * length < stop.unsqueeze(1)
            if bool(real.all()):
                return self.model.clip_features(mel)
            parts = []
            for part in self.model.mel_features(mel[real]):
                placed = part.new_zeros(clips, windows, *part.shape[1:])
                placed[real] = part
                parts.append(placed.transpose(1, 2).flatten(2))
            return parts

    def fold(self, features: Features, frames: Tensor, start: Tensor | None = None) -> State:
        """State of R clips or windows: that of the model, then one of each head that pools frames.

        Where there is such a head the encoder learns from it alone: the embedding follows what the encoder has
        learned, on features that carry no gradient.

        Args:
            features: from `features`.
            frames: ``(R,)`` real mel frames of each.
            start: ``(R,)`` the first of them; None: the first of all.
        """
        start = torch.zeros_like(frames) if start is None else start
        mask = self.mask(features[0], start, start + frames)
        heads = [tuple(head.fold(features[0], mask)) for head in self.frame_heads]
        if heads:
            features = [part.detach() for part in features]
        return self.model.fold(features, start, start + frames) + heads

    def merge_rows(self, state: State) -> State:
        """Merge all rows of a state, consecutive windows of one clip, into one row."""
        heads = zip(self.frame_heads, state[len(state) - len(self.frame_heads) :], strict=True)
        merged = self.model.merge_rows(state[: len(state) - len(self.frame_heads)])
        return merged + [pool_rows_merged(head.pool, part) for head, part in heads]

    def finalize(self, state: State, clips: Tensor, mix: Mix | None = None) -> Outputs:
        """Embeddings and scores from the states of R clips."""
        heads = state[len(state) - len(self.frame_heads) :]
        embeddings = self.model.finalize(state[: len(state) - len(self.frame_heads)])
        scores = {
            h.config.column: h.finalize(h.pool.State(*part)) for h, part in zip(self.frame_heads, heads, strict=True)
        }
        scores |= {h.config.column: h(embeddings) for h in self.embedding_heads}
        return Outputs(clips, embeddings, scores, mix)

    @property
    def frame_heads(self) -> list[FrameHead]:
        """The heads that classify frames."""
        return [head for head in self.heads if isinstance(head, FrameHead)]

    @property
    def embedding_heads(self) -> list[EmbeddingHead]:
        """The heads that classify embeddings."""
        return [head for head in self.heads if isinstance(head, EmbeddingHead)]

    def mask(self, frame_features: Tensor, start: Tensor, stop: Tensor) -> Tensor:
        """Which frame features ``(R, C, T)`` are real, ``(R, T)``, of clips of mel frames ``[start, stop)``."""
        first = torch.arange(frame_features.shape[-1], device=stop.device) * self.model.config.encoder.time_reduction
        return (first >= start.unsqueeze(1)) & (first < stop.unsqueeze(1))


@dataclass(frozen=True)
class Inputs:
    """What the network is given in a training step.

    Attributes:
        features: log-mels ``(R, W, F, n_mels)``, or the stored features of a frozen encoder.
        frames: ``(R,)`` real mel frames.
        clips: ``(R,)`` numbers of the clips, on the CPU.
        mix: how rows were mixed.
        start: ``(R,)`` the first real mel frame; None: the first of all.
    """

    features: Tensor | Features
    frames: Tensor
    clips: Tensor
    mix: Mix | None = None
    start: Tensor | None = None


class TrainingModule(nn.Module):
    """A model with its heads, and the loss that it learns by.

    Args:
        headed: what is kept.
        objectives: of the run.
        frozen: the encoder and the front end stay as they are.
    """

    def __init__(self, headed: HeadedModel, objectives: Sequence[Objective], *, frozen: bool) -> None:
        super().__init__()
        self.headed = headed
        self.own = nn.ModuleList(objective.own for objective in objectives)
        self.objectives = tuple(objectives)
        self.weights = [objective.weight for objective in objectives for _ in objective.parts]
        self.frozen = frozen
        # The front end is a fixed map, and the mel bands' statistics are set once, from real frames only: a batch's
        # own would depend on how much of it is padding.
        headed.model.frontend.requires_grad_(False)
        cast(Any, headed.model.encoder).to(memory_format=torch.channels_last)  # see SongModel.for_inference
        if frozen:
            headed.model.encoder.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> TrainingModule:
        """Train or evaluate; what is fixed stays in evaluation mode."""
        super().train(mode)
        self.headed.model.mel_norm.eval()
        if self.frozen:
            self.headed.model.encoder.eval()
        return self

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """The loss of a batch, and its parts ``(P,)``, those of all objectives, before they are weighted."""
        stop = inputs.frames if inputs.start is None else inputs.start + inputs.frames
        features = inputs.features
        if isinstance(features, Tensor):
            features = self.headed.features(features, stop)
        state = self.headed.fold(features, inputs.frames, inputs.start)
        outputs = self.headed.finalize(state, inputs.clips, inputs.mix)
        losses = torch.stack([loss for objective in self.objectives for loss in objective.losses(outputs)])
        loss = (losses * losses.new_tensor(self.weights)).sum()
        for _, pool in pools_of(self.headed):
            loss = loss + pool.penalty().to(loss.device)
        return loss, losses.detach()


def average_of(headed: HeadedModel) -> HeadedModel:
    """A copy to hold the moving average of the weights; it is never trained."""
    return copy.deepcopy(headed).eval().requires_grad_(False)


@torch.no_grad()
def update_average(average: HeadedModel, headed: HeadedModel, decay: float) -> None:
    """Move the average one step: ``decay`` of itself and the rest of the model; buffers are the model's."""
    for mean, new in zip(average.parameters(), headed.parameters(), strict=True):
        mean.lerp_(new.detach(), 1 - decay)
    for kept, buffer in zip(average.buffers(), headed.buffers(), strict=True):
        kept.copy_(buffer)
