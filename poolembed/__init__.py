"""Turn songs of any length into fixed-length embeddings with learned temporal pooling.

>>> import poolembed
>>> model = poolembed.load("base")
>>> model.embedding_size
512
"""

from __future__ import annotations

import importlib

from poolembed.errors import (
    AudioError,
    BundleError,
    BundleNotFoundError,
    FilesFailedError,
    LabelsError,
    NothingFoundError,
    OutputError,
    PoolembedError,
    TrainingError,
    UsageError,
    VectorsError,
)

TYPE_CHECKING = False  # typing takes longer to import than all the rest of this
if TYPE_CHECKING:
    from typing import Any

    from poolembed.embed.model import Model, load
    from poolembed.nn.pooling import AttentionPool, AutoPool, GeMPool, MaxPool, MeanPool, SoftmaxPool, TemporalPool
    from poolembed.nn.statistics import AttentiveStatisticsPool, MeanMaxPool

__version__ = "0.1.0"

# Imported when first asked for, so that `poolembed --help` does not wait for torch.
_LAZY = {
    "Model": "poolembed.embed.model",
    "load": "poolembed.embed.model",
    "TemporalPool": "poolembed.nn.pooling",
    "MeanPool": "poolembed.nn.pooling",
    "MaxPool": "poolembed.nn.pooling",
    "SoftmaxPool": "poolembed.nn.pooling",
    "AutoPool": "poolembed.nn.pooling",
    "GeMPool": "poolembed.nn.pooling",
    "AttentionPool": "poolembed.nn.pooling",
    "MeanMaxPool": "poolembed.nn.statistics",
    "AttentiveStatisticsPool": "poolembed.nn.statistics",
}

__all__ = [
    "AttentionPool",
    "AttentiveStatisticsPool",
    "AudioError",
    "AutoPool",
    "BundleError",
    "BundleNotFoundError",
    "FilesFailedError",
    "GeMPool",
    "LabelsError",
    "MaxPool",
    "MeanMaxPool",
    "MeanPool",
    "Model",
    "NothingFoundError",
    "OutputError",
    "PoolembedError",
    "SoftmaxPool",
    "TemporalPool",
    "TrainingError",
    "UsageError",
    "VectorsError",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
