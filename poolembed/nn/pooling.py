r"""Temporal pooling as a mergeable reduction: frames ``(B, C, T)`` to one vector ``(B, C)``.

Every layer here is three functions, and calling the layer is their composition:

    fold      frames and a mask -> a small state, a tuple of ``(B, C)`` tensors
    merge     two states        -> the state of both sets of frames together (associative, commutative)
    finalize  a state           -> the pooled vector

so ``pool(x) == finalize(fold(x))`` in training, and a song of any length streams through fixed windows in constant
memory with the same result: ``finalize(merge(fold(a), fold(b))) == pool(concat(a, b))``.

Conventions: the mask is boolean ``(B, T)``, True = real frame; what stands at masked frames (NaN included) never
matters. float16 and bfloat16 are reduced and returned in float32, float64 in float64, under autocast as well. A row
without any real frame folds to the neutral element of `merge`; only `finalize` refuses it, with a ValueError.

References:
    AutoPool, CAP, RAP: McFee, Salamon, Bello, "Adaptive pooling operators for weakly labeled sound event detection",
    IEEE/ACM TASLP 26(11), 2018. GeM: Radenović, Tolias, Chum, "Fine-tuning CNN image retrieval with no human
    annotation", IEEE TPAMI 41(7), 2018. Attention: Ilse, Tomczak, Welling, "Attention-based deep multiple instance
    learning", ICML 2018. `poolembed.nn.statistics` has the layers that give two numbers a channel.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from poolembed.nn.reduction import (
    at_least,
    clamp_through,
    count,
    frames,
    initial,
    linear_scores,
    per_channel,
    relative_weights,
    require_channels,
    require_frames,
    share,
    with_gradient,
)


class MeanState(NamedTuple):
    """Number and sum of the frames seen so far; ``(B, C)`` each."""

    n: Tensor
    total: Tensor


class MaxState(NamedTuple):
    """Largest frame seen so far, -inf before the first; ``(B, C)``."""

    peak: Tensor


class WeightedState(NamedTuple):
    """Softmax-weighted sum, with weights relative to the highest score so far; ``(B, C)`` each."""

    peak: Tensor
    weight: Tensor
    total: Tensor


class GeMState(NamedTuple):
    """Sum of p-th powers of ``frame / peak``; ``(B, C)`` each."""

    n: Tensor
    peak: Tensor
    weight: Tensor


S = TypeVar("S", bound=tuple[Tensor, ...])


class TemporalPool(nn.Module, ABC, Generic[S]):
    """Base of the pooling layers.

    Args:
        channels: None trains one parameter for all channels, C one per channel; layers without parameters ignore it.

    Shape:
        - x: ``(B, C, T)``; mask: boolean ``(B, T)`` or None for all real; output: ``(B, outputs * C)``.

    Raises:
        ValueError: shapes or mask dtype do not fit, or (in `finalize`) a row has no real frame.
    """

    State: type[S]
    """The NamedTuple that `fold` returns."""

    outputs: int = 1
    """Numbers that come of one channel; of several, the first of all channels stand before the second."""

    def __init__(self, channels: int | None = None) -> None:
        super().__init__()
        self.channels = channels

    @abstractmethod
    def fold(self, x: Tensor, mask: Tensor | None = None) -> S:
        """Reduce frames ``(B, C, T)`` to a state of ``(B, C)`` tensors."""

    @abstractmethod
    def merge(self, a: S, b: S) -> S:
        """Combine the states of two disjoint sets of frames of the same rows."""

    @abstractmethod
    def finalize(self, state: S) -> Tensor:
        """Turn a state into the pooled ``(B, outputs * C)``."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool ``(B, C, T)`` to ``(B, outputs * C)``."""
        return self.finalize(self.fold(x, mask))

    def penalty(self) -> Tensor:
        """The layer's term of the training loss, a scalar; zero for all but a regularised `AutoPool`."""
        return torch.zeros(())

    @torch.no_grad()
    def project_(self) -> None:
        """Put the parameters back into their range, in place; call it after each optimizer step."""


class MeanPool(TemporalPool[MeanState]):
    r"""Average of the frames, :math:`y = \frac1n \sum_t x_t`.

    >>> MeanPool()(torch.tensor([[[1.0, 2.0, 6.0]]])).item()
    3.0
    """

    State = MeanState

    def fold(self, x: Tensor, mask: Tensor | None = None) -> MeanState:
        x, real = frames(x, mask)
        return MeanState(count(x, real), x.sum(-1))

    def merge(self, a: MeanState, b: MeanState) -> MeanState:
        return MeanState(a.n + b.n, a.total + b.total)

    def finalize(self, state: MeanState) -> Tensor:
        require_frames(state.n > 0)
        return state.total / state.n


class MaxPool(TemporalPool[MaxState]):
    r"""Largest frame, :math:`y = \max_t x_t`.

    >>> MaxPool()(torch.tensor([[[1.0, 2.0, 6.0]]])).item()
    6.0
    """

    State = MaxState

    def fold(self, x: Tensor, mask: Tensor | None = None) -> MaxState:
        x, real = frames(x, mask)
        return MaxState((x if real is None else x + real.log()).amax(-1))

    def merge(self, a: MaxState, b: MaxState) -> MaxState:
        return MaxState(torch.maximum(a.peak, b.peak))

    def finalize(self, state: MaxState) -> Tensor:
        require_frames(state.peak != -math.inf)
        return state.peak


class _WeightedPool(TemporalPool[WeightedState]):
    """Average under weights that decay with a score's distance from the highest score of the row.

    The highest score is subtracted before the exponential, so nothing overflows; it cancels in the result, which is
    why it is detached from the gradient.
    """

    State = WeightedState

    @abstractmethod
    def _scores(self, x: Tensor) -> Tensor:
        """Scores ``(B, C, T)`` or ``(B, 1, T)`` of the frames."""

    @abstractmethod
    def _decay(self, gap: Tensor) -> Tensor:
        """Weight in [0, 1] for ``gap = score - peak <= 0``; dimension 1 of `gap` is the channel."""

    def fold(self, x: Tensor, mask: Tensor | None = None) -> WeightedState:
        x, real = frames(x, mask)
        with torch.autocast(x.device.type, enabled=False):
            peak, weights = relative_weights(self._scores(x), real, self._decay)
            total = (x * weights).sum(-1)
            return WeightedState(peak.expand_as(total), weights.sum(-1).expand_as(total), total)

    def merge(self, a: WeightedState, b: WeightedState) -> WeightedState:
        peak = torch.maximum(a.peak, b.peak)
        share_a, share_b = (share(each.peak, each.weight, peak, self._decay) for each in (a, b))
        return WeightedState(peak, a.weight * share_a + b.weight * share_b, a.total * share_a + b.total * share_b)

    def finalize(self, state: WeightedState) -> Tensor:
        require_frames(state.weight != 0)
        return state.total / state.weight


class SoftmaxPool(_WeightedPool):
    r"""Average weighted by the softmax of the frames themselves; AutoPool at :math:`\alpha = 1`."""

    def _scores(self, x: Tensor) -> Tensor:
        return x

    def _decay(self, gap: Tensor) -> Tensor:
        return gap.exp()


class AutoPool(_WeightedPool):
    r"""Average weighted by :math:`\mathrm{softmax}(\alpha x)` over time, :math:`\alpha` trained (McFee et al. 2018).

    .. math:: y = \sum_t x_t \frac{e^{\alpha x_t}}{\sum_s e^{\alpha x_s}}

    :math:`\alpha = 0` is the mean, 1 softmax pooling, inf the maximum; each exactly so.

    Args:
        channels: None trains one :math:`\alpha`, C one per channel.
        alpha: where it starts, in [0, alpha_max].
        alpha_max: upper bound of :math:`\alpha` (constrained AutoPool, CAP); None for inf.
        alpha_l2: weight :math:`\lambda` of the penalty :math:`\lambda \|\alpha\|^2` (regularised AutoPool, RAP).

    Raises:
        ValueError: `alpha` outside its range, or a negative `alpha_l2`.

    >>> AutoPool(alpha=0.0)(torch.tensor([[[1.0, 2.0, 6.0]]])).item()
    3.0
    """

    def __init__(
        self,
        channels: int | None = None,
        *,
        alpha: float = 1.0,
        alpha_max: float | None = None,
        alpha_l2: float = 0.0,
    ) -> None:
        super().__init__(channels)
        self.alpha_max = math.inf if alpha_max is None else float(alpha_max)
        if not 0 <= alpha <= self.alpha_max:
            raise ValueError(f"alpha must lie in [0, {self.alpha_max}], got {alpha}")
        if not 0 <= alpha_l2 < math.inf:
            raise ValueError(f"alpha_l2 must be a number >= 0, got {alpha_l2}")
        self.alpha_l2 = float(alpha_l2)
        self.alpha = nn.Parameter(initial(channels, alpha))

    def _scores(self, x: Tensor) -> Tensor:
        require_channels(self.channels, x)
        return x

    def _decay(self, gap: Tensor) -> Tensor:
        alpha = self._steepness(gap)
        # inf * 0 is no number, and a finite factor leaves something of the least gaps: an infinite alpha looks at the
        # gap's sign alone, and has no gradient, for nothing but the peak counts.
        endless = alpha.isinf()
        steepest = endless.to(gap.dtype) * torch.finfo(gap.dtype).max
        return torch.addcmul(alpha.masked_fill(endless, 0) * gap, steepest, gap.detach().sign()).exp()

    def finalize(self, state: WeightedState) -> Tensor:
        y = super().finalize(state)
        # The average of several equal peaks would be rounded.
        return torch.where(self._steepness(y).isinf(), with_gradient(state.peak, y), y)

    def _steepness(self, like: Tensor) -> Tensor:
        return per_channel(clamp_through(self.alpha, 0.0, self.alpha_max), like)

    def penalty(self) -> Tensor:
        if self.alpha_l2 == 0:
            return super().penalty()
        return self.alpha_l2 * self.alpha.square().sum()

    @torch.no_grad()
    def project_(self) -> None:
        self.alpha.clamp_(0.0, self.alpha_max)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, alpha_max={self.alpha_max}, alpha_l2={self.alpha_l2}"


class AttentionPool(_WeightedPool):
    r"""Average weighted by the softmax over time of a learned linear score, one score a frame.

    .. math:: y = \sum_t x_t \, \mathrm{softmax}_t(w^\top x_t)

    A zero scorer, which is where training starts, is the mean.

    Args:
        channels: C, required: the scorer has one weight per channel.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        # Softmax would cancel a bias. Nothing is drawn at random, so that later layers start alike with any pooling.
        self.scorer = nn.Linear(channels, 1, bias=False, device="meta").to_empty(device="cpu")
        nn.init.zeros_(self.scorer.weight)

    def _scores(self, x: Tensor) -> Tensor:
        require_channels(self.channels, x)
        return linear_scores(x, self.scorer.weight)

    def _decay(self, gap: Tensor) -> Tensor:
        return gap.exp()


class GeMPool(TemporalPool[GeMState]):
    r"""Generalised mean with a trained exponent (Radenović et al. 2018).

    .. math:: y = \Big(\frac1n \sum_t \max(x_t, \epsilon)^p\Big)^{1/p}

    p = 1 is the mean (of frames >= eps), inf the maximum. It wants non-negative frames: end the encoder in a ReLU.

    Args:
        channels: None trains one p, C one per channel.
        p: where it starts, in [1, inf].
        eps: frames below it count as eps.

    Raises:
        ValueError: `p` below 1 or `eps` not positive.

    >>> GeMPool(p=1.0)(torch.tensor([[[1.0, 2.0, 6.0]]])).item()
    3.0
    """

    State = GeMState

    def __init__(self, channels: int | None = None, *, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__(channels)
        if not p >= 1:
            raise ValueError(f"p must lie in [1, inf], got {p}")
        if not 0 < eps < math.inf:
            raise ValueError(f"eps must be a positive number, got {eps}")
        self.eps = float(eps)
        self.p = nn.Parameter(initial(channels, p))

    def fold(self, x: Tensor, mask: Tensor | None = None) -> GeMState:
        require_channels(self.channels, x)
        x, real = frames(x, mask)
        x = at_least(x, self.eps)
        peak = (x if real is None else x * real).detach().amax(-1)
        # Powers of x / peak cannot overflow: the quotient of a frame and a larger one, correctly rounded, is at most 1,
        # and no clamp is there to take the peak's gradient. The peak cancels, which is why it is detached. The powers
        # are never 0 here, so logarithms have gradients; exp and log take a fifth of the time of pow.
        with torch.autocast(x.device.type, enabled=False):
            ratio = x / peak.clamp_min(self.eps).unsqueeze(-1)
            powers = (ratio.log() * self._exponent(ratio)).exp()
        if real is not None:
            powers = powers * real
        return GeMState(count(x, real), peak, powers.sum(-1))

    def merge(self, a: GeMState, b: GeMState) -> GeMState:
        peak = torch.maximum(a.peak, b.peak)
        scale = peak.clamp_min(self.eps)
        weight = a.weight * self._power(a.peak / scale) + b.weight * self._power(b.peak / scale)
        return GeMState(a.n + b.n, peak, weight)

    def finalize(self, state: GeMState) -> Tensor:
        require_frames(state.n > 0)
        return state.peak * (state.weight / state.n) ** (1 / self._exponent(state.peak))

    def _power(self, ratio: Tensor) -> Tensor:
        """``ratio ** p`` for ratios in [0, 1], channel in dimension 1."""
        with torch.autocast(ratio.device.type, enabled=False):
            return ratio ** self._exponent(ratio)

    def _exponent(self, like: Tensor) -> Tensor:
        # Two floats that differ at all differ by 1e-16 of their size: 1e18 has the result of inf, in float64 too.
        return per_channel(clamp_through(self.p, 1.0, math.inf), like).clamp_max(1e18)

    @torch.no_grad()
    def project_(self) -> None:
        self.p.clamp_(min=1.0)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, eps={self.eps}"
