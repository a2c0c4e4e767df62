"""A model and its heads as one network, which the engine runs as it runs any model: probabilities for embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from poolembed.nn.head import EmbeddingHead, FrameHead, Head
from poolembed.nn.model import Features, SongModel, State


class SongClassifier(SongModel):
    """A model whose ``finalize`` gives class probabilities.

    The frame probabilities of every `FrameHead` are one more part of the features, pooled by the head's pooling, so
    that they fold, merge and travel as all parts do.

    Args:
        model: a model; its weights are copied.
        heads: its heads, which are shared.
    """

    def __init__(self, model: SongModel, heads: Sequence[Head]) -> None:
        super().__init__(model.config)
        self.load_state_dict(model.state_dict())
        self.heads = nn.ModuleList(heads)
        self._own_parts = len(self.pools)
        for head in self._heads:
            if isinstance(head, FrameHead):
                self._add_part(head.pool, len(head.config.labels), model.config.encoder.time_reduction)
        self.train(model.training)

    @property
    def _heads(self) -> list[Head]:
        return [cast(Head, head) for head in self.heads]

    def mel_features(self, mel: Tensor) -> Features:
        """As the model's, with the frame probabilities ``(B, K, T)`` of each `FrameHead` behind them."""
        parts = super().mel_features(mel)
        return parts + [head.frame_probabilities(parts[0]) for head in self._heads if isinstance(head, FrameHead)]

    def finalize(self, state: State) -> Tensor:
        """Probabilities ``(B, sum of K)`` of all classes of all heads, in their order, float32.

        Raises:
            ValueError: a row without any frame.
        """
        own, added = state[: self._own_parts], iter(state[self._own_parts :])
        # Not needed, and most of the work, where every head pools predictions.
        embedding = super().finalize(own) if any(isinstance(head, EmbeddingHead) for head in self._heads) else None
        probabilities = []
        for head in self._heads:
            if isinstance(head, FrameHead):
                probabilities.append(head.finalize(head.pool.State(*next(added))).float())
            else:
                assert embedding is not None
                probabilities.append(head.probabilities(embedding))
        return torch.cat(probabilities, dim=-1)
