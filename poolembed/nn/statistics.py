r"""Poolings that give two numbers a channel, ``(B, C, T)`` to ``(B, 2 C)``; all else as in `poolembed.nn.pooling`.

References:
    Attentive statistics: Okabe, Koshinaka, Shinoda, "Attentive statistics pooling for deep speaker embedding",
    Interspeech 2018. Merging of variances: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances", COMPSTAT 1982.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from poolembed.nn.pooling import TemporalPool
from poolembed.nn.reduction import (
    at_least,
    count,
    frames,
    linear_scores,
    relative_weights,
    require_channels,
    require_frames,
    share,
)


class MeanMaxState(NamedTuple):
    """Number, sum and largest of the frames seen so far; ``(B, C)`` each."""

    n: Tensor
    total: Tensor
    peak: Tensor


class StatisticsState(NamedTuple):
    """Weighted sum of the frames and of their squared distances from their weighted mean; ``(B, C)`` each.

    Weights are relative to the highest score so far, `peak`.
    """

    peak: Tensor
    weight: Tensor
    total: Tensor
    spread: Tensor


class MeanMaxPool(TemporalPool[MeanMaxState]):
    r"""Average and largest frame beside each other, :math:`y = [\frac1n \sum_t x_t, \max_t x_t]`.

    >>> MeanMaxPool()(torch.tensor([[[1.0, 2.0, 6.0]]])).tolist()
    [[3.0, 6.0]]
    """

    State = MeanMaxState
    outputs = 2

    def fold(self, x: Tensor, mask: Tensor | None = None) -> MeanMaxState:
        x, real = frames(x, mask)
        return MeanMaxState(count(x, real), x.sum(-1), (x if real is None else x + real.log()).amax(-1))

    def merge(self, a: MeanMaxState, b: MeanMaxState) -> MeanMaxState:
        return MeanMaxState(a.n + b.n, a.total + b.total, torch.maximum(a.peak, b.peak))

    def finalize(self, state: MeanMaxState) -> Tensor:
        require_frames(state.n > 0)
        return torch.cat([state.total / state.n, state.peak], dim=-1)


class AttentiveStatisticsPool(TemporalPool[StatisticsState]):
    r"""Average and standard deviation under the weights of `AttentionPool` (Okabe et al. 2018).

    .. math:: w = \mathrm{softmax}_t(v^\top x_t), \quad \mu = \sum_t w_t x_t, \quad
              \sigma = \sqrt{\max(\textstyle\sum_t w_t (x_t - \mu)^2, \epsilon)}, \quad y = [\mu, \sigma]

    The score is linear, where the paper's has a hidden layer, so that the standard deviation is all that tells this
    pooling from `AttentionPool`. A zero scorer, which is where training starts, is mean and standard deviation.

    Args:
        channels: C, required: the scorer has one weight per channel.
        eps: least variance: the square root has no slope at 0.

    Raises:
        ValueError: `eps` is not positive.

    >>> AttentiveStatisticsPool(1)(torch.tensor([[[1.0, 1.0, 5.0, 5.0]]])).tolist()
    [[3.0, 2.0]]
    """

    State = StatisticsState
    outputs = 2

    def __init__(self, channels: int, *, eps: float = 1e-6) -> None:
        super().__init__(channels)
        if not 0 < eps < math.inf:
            raise ValueError(f"eps must be a positive number, got {eps}")
        self.eps = float(eps)
        # Softmax would cancel a bias. Nothing is drawn at random, so that later layers start alike with any pooling.
        self.scorer = nn.Linear(channels, 1, bias=False, device="meta").to_empty(device="cpu")
        nn.init.zeros_(self.scorer.weight)

    def fold(self, x: Tensor, mask: Tensor | None = None) -> StatisticsState:
        require_channels(self.channels, x)
        x, real = frames(x, mask)
        peak, weights = relative_weights(linear_scores(x, self.scorer.weight), real, torch.exp)
        total = (x * weights).sum(-1)
        weight = weights.sum(-1).expand_as(total)
        distance = x - _mean(total, weight).unsqueeze(-1)
        return StatisticsState(peak.expand_as(total), weight, total, (distance.square() * weights).sum(-1))

    def merge(self, a: StatisticsState, b: StatisticsState) -> StatisticsState:
        peak = torch.maximum(a.peak, b.peak)
        share_a, share_b = (share(each.peak, each.weight, peak, torch.exp) for each in (a, b))
        weight_a, weight_b = a.weight * share_a, b.weight * share_b
        weight = weight_a + weight_b
        # Distances from either mean become distances from the common one; the difference of a mean of squares and a
        # squared mean would be all rounding where the frames are much alike.
        apart = (_mean(a.total, a.weight) - _mean(b.total, b.weight)).square() * _mean(weight_a * weight_b, weight)
        spread = a.spread * share_a + b.spread * share_b + apart
        return StatisticsState(peak, weight, a.total * share_a + b.total * share_b, spread)

    def finalize(self, state: StatisticsState) -> Tensor:
        require_frames(state.weight != 0)
        variance = state.spread / state.weight
        return torch.cat([state.total / state.weight, at_least(variance, self.eps).sqrt()], dim=-1)

    def extra_repr(self) -> str:
        """What `repr` says besides the scorer."""
        return f"channels={self.channels}, eps={self.eps}"


def _mean(total: Tensor, weight: Tensor) -> Tensor:
    """``total / weight``; 0 where there is no weight."""
    return total / weight.masked_fill(weight == 0, 1)
