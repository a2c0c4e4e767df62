"""A model of two numbers whose tags are points of the compass: what it hears in a vector can be told by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from poolembed.bundle import load_bundle
from poolembed.nn.config import HeadConfig
from poolembed.nn.head import EmbeddingHead
from tests.conftest import tiny_heads

COMPASS = {"East": 0.0, "North": 90.0, "West": 180.0}
"""Tag -> the direction, in degrees, in which it is most probable; of the column ``compass``."""
HALVES = {"north": 90.0, "South": 270.0}
"""Likewise, of the column ``halves``."""
SCALES = (2.0, 4.0, 8.0)
BIAS = -1.0


def compass_heads() -> list[EmbeddingHead]:
    """``compass``, with a scale of each class, and ``halves``, with one for both."""
    heads = []
    for column, tags, scale in (("compass", COMPASS, "class"), ("halves", HALVES, "head")):
        config = HeadConfig(column=column, labels=tuple(tags), multi_label=True, scale=scale)  # type: ignore[arg-type]
        head = EmbeddingHead(config, 2)
        angles = torch.tensor(list(tags.values())).deg2rad()
        head.weight.data = torch.stack([angles.cos(), angles.sin()], 1)
        head.bias.data.fill_(BIAS)
        scales = torch.tensor(SCALES if scale == "class" else SCALES[1])
        head.log_scale.data = scales.log()
        heads.append(head)
    return heads


def heard(tag: str, degrees: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """The probability of a tag of `COMPASS` in the direction `degrees`, by its definition."""
    scale = SCALES[list(COMPASS).index(tag)]
    return np.asarray(1 / (1 + np.exp(-scale * np.cos(np.radians(degrees - COMPASS[tag])) - BIAS)))


def compass(root: Path, save_tiny: Callable[..., Path]) -> tuple[Path, str]:
    """A bundle called m below a folder, and its fingerprint. It has a head on frames besides, which no vector feeds."""
    bundle = save_tiny(root, "m", embedding_size=2, heads=[tiny_heads()[1], *compass_heads()])
    return bundle, load_bundle(bundle).fingerprint
