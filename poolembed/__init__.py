"""Turn songs of any length into fixed-length embeddings with learned temporal pooling.

>>> import poolembed
>>> model = poolembed.load("base")
>>> model.embedding_size
512
"""

from __future__ import annotations

import importlib
import sys

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
    from poolembed.embed.model import Model, load
    from poolembed.embed.predict import LabelledSong, predict
    from poolembed.evaluate.run import evaluate
    from poolembed.nn.pooling import AttentionPool, AutoPool, GeMPool, MaxPool, MeanPool, SoftmaxPool, TemporalPool
    from poolembed.nn.statistics import AttentiveStatisticsPool, MeanMaxPool
    from poolembed.search.answers import Hit
    from poolembed.search.songs import Songs
    from poolembed.search.songs import open_songs as open
    from poolembed.train.config import TrainConfig
    from poolembed.train.run import train

__version__ = "0.1.0"

# Imported when first asked for, so that `poolembed --help` does not wait for torch.
_LAZY = {
    "Hit": "poolembed.search.answers",
    "LabelledSong": "poolembed.embed.predict",
    "Model": "poolembed.embed.model",
    "Songs": "poolembed.search.songs",
    "TrainConfig": "poolembed.train.config",
    "evaluate": "poolembed.evaluate.run",
    "load": "poolembed.embed.model",
    "open": "poolembed.search.songs:open_songs",
    "predict": "poolembed.embed.predict",
    "train": "poolembed.train.run",
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
    "Hit",
    "LabelledSong",
    "LabelsError",
    "MaxPool",
    "MeanMaxPool",
    "MeanPool",
    "Model",
    "NothingFoundError",
    "OutputError",
    "PoolembedError",
    "SoftmaxPool",
    "Songs",
    "TemporalPool",
    "TrainConfig",
    "TrainingError",
    "UsageError",
    "VectorsError",
    "evaluate",
    "load",
    "open",
    "predict",
    "train",
]


if not TYPE_CHECKING:  # lest a type checker takes any name for one of this package

    def __getattr__(name: str) -> object:
        if name in _LAZY:
            module, _, own_name = _LAZY[name].partition(":")
            return getattr(importlib.import_module(module), own_name or name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])


class _Package(type(sys)):  # type: ignore[misc]
    """This package, where `train` and `evaluate` are functions, whichever of the folders so called are imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _LAZY and isinstance(value, type(sys))):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
