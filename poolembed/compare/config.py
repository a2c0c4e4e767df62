"""What a study is: every option of ``poolembed compare``."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from poolembed.compare.contenders import CONTENDERS
from poolembed.nn.config import EncoderConfig, FrontendConfig, ModelConfig, PoolingConfig
from poolembed.train.config import (
    LEARNING,
    BatchSize,
    Column,
    Epochs,
    Flag,
    Freeze,
    Init,
    Pool,
    Positive,
    Rate,
    Seconds,
)

Objective = Literal["classification", "supcon", "contrastive"]


class StudyConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole study; the flags say what its keys are, and those that `TrainConfig` has too are its.

    Attributes:
        data: a folder or table of labelled clips, as `poolembed.labels.read_labels` takes it.
        output: the study's directory.
        model: architecture, where runs start from scratch.
        jobs: processes, of one thread each.
    """

    data: str
    output: str
    poolings: Annotated[
        tuple[str, ...], Flag("Some of them, with commas between.", metavar="NAMES", default="all twelve")
    ] = tuple(CONTENDERS)
    seeds: Annotated[Positive, Flag("Final runs of each pooling.")] = 5
    column: Column = "label"
    objective: Annotated[Objective, Flag("What is trained, as in train.", LEARNING)] = "classification"
    pool: Pool = "features"
    init: Init = "scratch"
    freeze: Freeze = "none"
    model: ModelConfig | None = None
    seconds: Seconds = None
    epochs: Epochs = 20
    batch_size: BatchSize = 16
    lr: Rate = 1e-3
    jobs: Annotated[Positive | None, Flag("Runs at a time.", default="one per core")] = None


def small_model(width: int = 16, time_strides: tuple[int, int, int, int] = (2, 2, 2, 1)) -> ModelConfig:
    """An encoder that trains in seconds, with nothing beside the pooled frame features.

    The averages of other layers and of the mel bands, which models have otherwise, would hide what a pooling loses.

    Args:
        width: channels of the first stage; each of the three others has twice as many as the one before.
        time_strides: by how much each stage shortens the time axis.
    """
    return ModelConfig(
        frontend=FrontendConfig(sample_rate=16000, n_fft=1024, hop_length=512, n_mels=64, f_max=8000.0, log_floor=1e-6),
        encoder=EncoderConfig(
            window_frames=64,
            widths=(width, 2 * width, 4 * width, 8 * width),
            depth=1,
            time_strides=time_strides,
            frame_features=8 * width,
        ),
        pooling=PoolingConfig(kind="mean"),
        embedding_size=8 * width,
        mid_levels=False,
        mel_statistics=False,
    )
