"""What a study is: every option of ``poolembed compare``."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from poolembed.compare.contenders import CONTENDERS
from poolembed.nn.config import EncoderConfig, FrontendConfig, ModelConfig, PoolingConfig
from poolembed.train.config import AboveZero, Positive

Objective = Literal["classification", "supcon", "contrastive"]


class StudyConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole study.

    Attributes:
        data: a folder or table of labelled clips, as `poolembed.labels.read_labels` takes it.
        output: the study's directory.
        poolings: names of contenders.
        seeds: final runs of each.
        column: the label column.
        objective: what is trained.
        pool: what is pooled, as in `TrainConfig`.
        init: scratch, or a bundle that all runs start from.
        freeze: as in `TrainConfig`.
        model: architecture, where runs start from scratch.
        seconds: length of training crops, as in `TrainConfig`.
        epochs: of every run.
        batch_size: clips per step.
        lr: learning rate of the network.
        jobs: processes at a time, of one thread each; None for one per core.
    """

    data: str
    output: str
    poolings: tuple[str, ...] = tuple(CONTENDERS)
    seeds: Positive = 5
    column: str = "label"
    objective: Objective = "classification"
    pool: Literal["features", "predictions"] = "features"
    init: str = "scratch"
    freeze: Literal["none", "encoder"] = "none"
    model: ModelConfig | None = None
    seconds: AboveZero | None = None
    epochs: Positive = 20
    batch_size: Annotated[int, Meta(ge=2)] = 16
    lr: AboveZero = 1e-3
    jobs: Positive | None = None


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
