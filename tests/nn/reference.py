"""The pooling equations as they are written in the papers, in plain float64 numpy, one song at a time.

Every function takes ``x (C, T)``, T >= 1, and gives ``(C,)`` unless it says otherwise. The only licence taken is what
keeps the equations from overflowing and changes no value: the softmax subtracts its maximum, the power mean divides by
it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def mean(x: Array) -> Array:
    """``1/n · sum x``."""
    return np.asarray(x.mean(axis=-1))


def maximum(x: Array) -> Array:
    """``max x``."""
    return np.asarray(x.max(axis=-1))


def autopool(x: Array, alpha: float | Array) -> Array:
    """``sum x·w``, ``w = softmax(alpha·x)`` over time (McFee, Salamon, Bello 2018, equation 8)."""
    sharpness = np.broadcast_to(np.asarray(alpha, dtype=np.float64), x.shape[:1])
    pooled = maximum(x)
    for c in np.flatnonzero(np.isfinite(sharpness)):
        weights = np.exp(sharpness[c] * (x[c] - x[c].max()))
        pooled[c] = (x[c] * weights).sum() / weights.sum()
    return pooled


def gem(x: Array, p: float | Array, eps: float) -> Array:
    """``(1/n · sum max(x, eps)^p)^(1/p)`` (Radenovic, Tolias, Chum 2018, equation 3)."""
    power = np.broadcast_to(np.asarray(p, dtype=np.float64), x.shape[:1])
    clamped = np.maximum(x, eps)
    pooled = maximum(clamped)
    for c in np.flatnonzero(np.isfinite(power)):
        pooled[c] *= ((clamped[c] / pooled[c]) ** power[c]).mean() ** (1 / power[c])
    return pooled


def attention(x: Array, weight: Array, bias: float) -> Array:
    """``sum x·softmax(weight·x + bias)``: one score a frame, the same weights for every channel."""
    weights = _softmax(weight @ x + bias)
    return np.asarray((x * weights).sum(axis=-1))


def mean_and_max(x: Array) -> Array:
    """``[mean, maximum]``, ``(2 C,)``."""
    return np.concatenate([mean(x), maximum(x)])


def attentive_statistics(x: Array, weight: Array, eps: float) -> Array:
    """``[mu, sigma]`` under the weights of `attention` (Okabe, Koshinaka, Shinoda 2018, equations 5 and 6)."""
    weights = _softmax(weight @ x)
    average = (x * weights).sum(axis=-1)
    variance = ((x - average[:, None]) ** 2 * weights).sum(axis=-1)
    return np.concatenate([average, np.sqrt(np.maximum(variance, eps))])


def _softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())
