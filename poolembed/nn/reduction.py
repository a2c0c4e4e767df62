"""What the pooling layers share: checking and masking frames, counting them, parameters that stay in their range."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def frames(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Checked frames in float32 or float64 with 0 at masked ones, and the mask as ``(B, 1, T)`` of 0 and 1."""
    if x.dim() != 3:
        raise ValueError(f"frames must be (batch, channels, time), got shape {tuple(x.shape)}")
    if not x.dtype.is_floating_point:
        raise ValueError(f"frames must be floating point, got {x.dtype}")
    if mask is not None and (mask.shape != (x.shape[0], x.shape[2]) or mask.dtype != torch.bool):
        raise ValueError(
            f"mask must be boolean {(x.shape[0], x.shape[2])} for frames {tuple(x.shape)}, "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if x.shape[-1] == 0:  # no frame at all is one masked frame: amax needs something to look at
        x = x.new_zeros(*x.shape[:2], 1)
        mask = torch.zeros(x.shape[0], 1, dtype=torch.bool, device=x.device)
    if mask is None or (mask.device.type == "cpu" and bool(mask.all())):  # elsewhere to ask would be to wait
        return x, None
    real = mask.unsqueeze(1)
    # Not masked_fill, which lays its result out anew: sums would run in another order than those of unmasked frames.
    return torch.where(real, x, 0), real.to(x.dtype)


def count(x: Tensor, real: Tensor | None) -> Tensor:
    """Number of real frames of each row, as ``(B, C)`` in x's dtype."""
    if real is None:
        return x.new_full(x.shape[:2], x.shape[-1])
    return real.sum(-1).expand(x.shape[:2])


def require_frames(seen: Tensor) -> None:
    """Raise unless every row of the ``(B, C)`` truth values is True."""
    rows = seen.all(-1)
    if not bool(rows.all()):
        empty = torch.nonzero(~rows).flatten().tolist()
        raise ValueError(f"no real frame to pool in row(s) {empty}: the mask is False everywhere")


def require_channels(channels: int | None, x: Tensor) -> None:
    """Raise unless `x` has the channels that a layer has parameters for, if it has them per channel."""
    if channels is not None and x.dim() == 3 and x.shape[1] != channels:
        raise ValueError(f"this layer has parameters for {channels} channels, got frames of shape {tuple(x.shape)}")


def initial(channels: int | None, value: float) -> Tensor:
    """The start of a parameter, scalar or per channel."""
    return torch.full(() if channels is None else (channels,), float(value))


def per_channel(parameter: Tensor, like: Tensor) -> Tensor:
    """A scalar or ``(C,)`` parameter shaped to broadcast along dimension 1 of `like`, in its dtype."""
    return parameter.to(like.dtype).reshape(-1, *[1] * (like.dim() - 2))


def at_least(x: Tensor, low: float) -> Tensor:
    """`x`, or `low` where it is below; at the bound the gradient is that of `x`, where torch's clamps do not agree.

    The gradient of `clamp` at its bound is 1 up to torch 2.13 and 0 from 2.14 on.
    """
    return torch.where(x < low, low, x)


def clamp_through(parameter: Tensor, low: float, high: float) -> Tensor:
    """Clamp whose gradient passes through, so that a parameter pushed out of its range can find back."""
    inside = (parameter >= low) & (parameter <= high)
    return torch.where(inside, parameter, with_gradient(parameter.detach().clamp(low, high), parameter))


def with_gradient(value: Tensor, source: Tensor) -> Tensor:
    """`value`, with the gradient of `source`."""
    return value + (source - source.detach()).nan_to_num()  # 0; inf - inf is no number


def relative_weights(scores: Tensor, real: Tensor | None, decay: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Highest score ``(B, C)`` of the real frames, detached, and each frame's weight ``decay(score - highest)``.

    Args:
        scores: ``(B, C, T)`` or ``(B, 1, T)``.
        real: as `frames` gives it; masked frames get weight 0.
        decay: weight in [0, 1] for a gap <= 0; dimension 1 of the gap is the channel.
    """
    if real is None:
        peak = scores.detach().amax(-1, keepdim=True)
        return peak.squeeze(-1), decay(scores - peak)
    peak = (scores.detach() + real.log()).amax(-1, keepdim=True)
    # A masked frame may score above the peak. Its weight is made finite first, then 0, so that there is no NaN in the
    # gradient. The peak itself keeps its gradient, which a clamp at 0 would leave to torch's version.
    return peak.squeeze(-1), decay(torch.where(real > 0, scores - peak, 0)) * real


def share(peak: Tensor, weight: Tensor, highest: Tensor, decay: Callable[[Tensor], Tensor]) -> Tensor:
    """By what weights relative to `peak` shrink when they become relative to `highest`; 0 where there are none."""
    empty = weight == 0
    return decay((peak - highest).masked_fill(empty, 0)).masked_fill(empty, 0)


def linear_scores(x: Tensor, weight: Tensor) -> Tensor:
    """One score ``(B, 1, T)`` a frame, under weights of any shape that has C elements."""
    # Not a matrix product: those round differently for different numbers of frames, and on CUDA to TF32.
    return (x * weight.to(x.dtype).reshape(-1, 1)).sum(1, keepdim=True)
