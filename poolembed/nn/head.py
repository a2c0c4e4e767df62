"""Classifiers beside a model: from its embedding, or from its frame features with a pooling of their own.

Both give what a label column says of a clip: probabilities that sum to 1 where a clip has one label, and one
probability each, of whether the label is there, where it may have several.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from poolembed.nn.config import HeadConfig, ModelConfig
from poolembed.nn.model import build_pool
from poolembed.nn.reduction import clamp_through

SCALE = 16.0
"""Where the factor of the cosines starts: a softmax over them can be sure of a class, and is not so from the start."""


LIMIT = 12.0
"""Log-odds, or log-probability, of a frame beyond which nothing is told apart: probabilities stay 6e-6 off 0 and 1."""


class EmbeddingHead(nn.Module):
    r"""Cosine classifier: :math:`s \cos(w_k, e) + b_k` for each class k, the scale s trained, or one :math:`s_k` each.

    Directions of classes rather than a plain linear layer: the space is searched by cosine, and on unit vectors a
    layer's usual start gives logits near 0, whose gradients are small until it has grown.

    Shape:
        - input: embeddings ``(B, D)``, unit length; output: logits ``(B, K)``, float32.
    """

    def __init__(self, config: HeadConfig, embedding_size: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.randn(len(config.labels), embedding_size) / math.sqrt(embedding_size))
        self.bias = nn.Parameter(torch.zeros(len(config.labels)))
        shape = (len(config.labels),) if config.scale == "class" else ()
        self.log_scale = nn.Parameter(torch.full(shape, math.log(SCALE)))

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits ``(B, K)`` of embeddings ``(B, D)``."""
        with torch.autocast(embedding.device.type, enabled=False):
            cosines = functional.linear(embedding.to(self.weight.dtype), functional.normalize(self.weight, dim=-1))
            return cosines * self.log_scale.exp() + self.bias

    def probabilities(self, embedding: Tensor) -> Tensor:
        """Probabilities ``(B, K)`` of embeddings ``(B, D)``."""
        logits = self(embedding)
        return cast(Tensor, logits.sigmoid() if self.config.multi_label else logits.softmax(-1))


class FrameHead(nn.Module):
    """Classifies every frame and pools the probabilities over time (multiple-instance learning, McFee et al. 2018).

    So it tells when as well as whether: `frame_probabilities` is what is pooled. Mergeable as its pooling is.

    Shape:
        - input: frame features ``(B, C, T)`` and a boolean mask ``(B, T)``, True = real; output: probabilities
          ``(B, K)``, float32.
    """

    def __init__(self, config: HeadConfig, frame_features: int) -> None:
        super().__init__()
        if config.pooling is None:
            raise ValueError("a head on frames needs a pooling")
        self.config = config
        self.classify = nn.Linear(frame_features, len(config.labels))
        self.pool = build_pool(config.pooling, len(config.labels))

    def frame_probabilities(self, frames: Tensor) -> Tensor:
        """Probabilities ``(B, K, T)`` of each frame by itself.

        None is so near to 0 or 1 that its logarithm, or that of the rest, loses its gradient: a frame that is sure and
        wrong can still learn.
        """
        with torch.autocast(frames.device.type, enabled=False):
            logits = self.classify(frames.to(self.classify.weight.dtype).transpose(1, 2))
            if self.config.multi_label:
                return clamp_through(logits, -LIMIT, LIMIT).sigmoid().transpose(1, 2)
            return clamp_through(logits.log_softmax(-1), -LIMIT, 0.0).exp().transpose(1, 2)

    def fold(self, frames: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """State of the frames that the mask leaves, a tuple of ``(B, K)`` tensors."""
        return cast("tuple[Tensor, ...]", self.pool.fold(self.frame_probabilities(frames), mask))

    def merge(self, a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """State of the frames of two states together."""
        return cast("tuple[Tensor, ...]", self.pool.merge(a, b))

    def finalize(self, state: tuple[Tensor, ...]) -> Tensor:
        """Probabilities ``(B, K)`` of a state.

        Raises:
            ValueError: a row without any frame.
        """
        # Rounding, and GeM's least frame, may lead out of [0, 1]; the gradient has to lead back.
        pooled = clamp_through(self.pool.finalize(state), 0.0, 1.0)
        if self.config.multi_label:
            return pooled
        # Poolings weigh the frames of each class by themselves, so the sum need not be 1. It is at least that: none
        # gives a class less than its mean, or else (attention) all classes have the same weights.
        return pooled / pooled.sum(-1, keepdim=True)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Probabilities ``(B, K)`` of frame features ``(B, C, T)``."""
        return self.finalize(self.fold(frames, mask))


Head = EmbeddingHead | FrameHead


def build_head(config: HeadConfig, model: ModelConfig) -> Head:
    """The head that a config describes, for a model."""
    if config.pool == "features":
        return EmbeddingHead(config, model.embedding_size)
    return FrameHead(config, model.encoder.frame_features)
