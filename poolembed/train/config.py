"""What a training run is made of: every option of ``poolembed train``, and of the ``run.toml`` that repeats it.

Unknown keys, wrong types and impossible values are refused by `msgspec` when a config is read.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from poolembed.nn.config import ModelConfig, PoolingKind

Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[float, Meta(ge=0)]
AboveZero = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, lt=1)]

ObjectiveKind = Literal["classification", "supcon", "contrastive", "distill"]


class ObjectiveConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One term of the loss.

    Attributes:
        kind: classification (softmax, or sigmoid where clips have several labels), supcon (clips of one label belong
            together), contrastive (two crops of one clip belong together), distill (towards target vectors).
        weight: what its loss is multiplied by.
        column: the column of the table that classification and supcon read their labels from.
        targets: distill: a directory that ``poolembed embed`` wrote, of any model.
        temperature: supcon, contrastive: what cosines are divided by.
    """

    kind: ObjectiveKind = "classification"
    weight: AboveZero = 1.0
    column: str = "label"
    targets: str | None = None
    temperature: AboveZero = 0.1

    def __post_init__(self) -> None:
        if (self.kind == "distill") != (self.targets is not None):
            raise ValueError("targets belong to the objective distill, which needs them")


class AugmentConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Augmentation of training crops, all on the log-mel spectrogram; 0 switches one off. A frozen encoder sees none.

    All are off: for a few hundred clips, from the model base, none helps (`tests/benchmarks/results/augmentation.md`).
    To train from scratch on many hours is another matter; see `models/recipe/base.toml`.

    Attributes:
        gain_db: largest change of level, in dB, either way.
        equalizer_db: largest change of level of any part of the spectrum, in dB, either way (after Nam et al. 2022).
        low_pass: share of crops that lose what is above a random frequency, as low bitrates and low rates lose it.
        time_mask: longest masked stretch, as a share of the crop (SpecAugment, Park et al. 2019).
        band_mask: largest number of masked mel bands, as a share of all.
        mixup: parameter of the Beta distribution that two clips are mixed by, in power (Zhang et al. 2018).
        resized_crop: largest change of speed and of band position, as a share (Niizumi et al. 2021).
        shift: most seconds that a crop may begin before its clip, in whole mel frames. The network samples time at one
            frame in several (`Model.time_resolution`); so clips that are no longer than a crop, too, are heard at
            any offset from that grid, and both views of a clip, or a student and its teacher, do not share theirs.
    """

    gain_db: NotNegative = 0.0
    equalizer_db: NotNegative = 0.0
    low_pass: Share = 0.0
    time_mask: Share = 0.0
    band_mask: Share = 0.0
    mixup: NotNegative = 0.0
    resized_crop: Share = 0.0
    shift: NotNegative = 0.0


class TrainConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole run. Paths are kept as given.

    Attributes:
        data: a folder of ``<label>/**`` clips, or a table (CSV, TSV, JSONL, Parquet) of labelled clips.
        output: the directory that the bundle, its checkpoints and its report go to.
        init: base (or any bundle's name or path) to go on from, or scratch.
        freeze: encoder trains pooling, projection and heads alone.
        model: architecture, for ``init = "scratch"``; otherwise the bundle's own.
        pooling: replaces the model's pooling; None keeps it.
        pooling_scope: one parameter for all channels, or one each.
        alpha: where AutoPool starts.
        alpha_max: bound of alpha (CAP).
        alpha_l2: penalty on alpha (RAP).
        p: where GeM starts.
        pool: features pools frame features to the embedding that is classified; predictions pools the class
            probabilities of every frame (multiple-instance learning), which also tells when.
        pooling_lr: learning rate of the pooling parameters, as a multiple of `lr`; None for 10 x a scalar, 100 x one
            per channel.
        objectives: the terms of the loss.
        nested: how many of an embedding's first numbers, brought back to unit length, are to be embeddings too; the
            loss of embeddings is the mean over them and the whole (Matryoshka).
        seconds: length of a training crop; None for the longest clip, up to about ten seconds.
        epochs: passes over the training clips.
        batch_size: clips per step, over all processes.
        lr: peak learning rate of AdamW.
        weight_decay: of weight matrices and kernels; norms, biases and pooling parameters have none.
        warmup: share of all steps in which the learning rate climbs, before it falls along a cosine.
        clip_norm: largest norm of the gradient.
        ema: decay per step of the moving average of the weights, which is what is validated and kept; 0 for none.
        patience: epochs without a better validation metric before the run ends; 0 never ends early.
        balance: classes count alike in the loss, however many clips they have.
        valid: share of the clips that is held out, where the table names no split.
        valid_fold: the fold that is held out.
        seed: of everything random.
        device: auto, cpu, cuda or mps.
        precision: what the network is trained in, by autocast: auto, fp32, bf16 or fp16.
        workers: threads that decode; None for one per core.
        cache: directory of the log-mel cache; None for ``output/cache``.
        cache_limit: largest size of the cache in GB.
        augment: augmentation of the training crops.
    """

    data: str
    output: str
    init: str = "base"
    freeze: Literal["none", "encoder"] = "none"
    model: ModelConfig | None = None
    pooling: PoolingKind | None = None
    pooling_scope: Literal["scalar", "channel"] | None = None
    alpha: NotNegative | None = None
    alpha_max: AboveZero | None = None
    alpha_l2: NotNegative | None = None
    p: Annotated[float, Meta(ge=1)] | None = None
    pool: Literal["features", "predictions"] = "features"
    pooling_lr: NotNegative | None = None
    objectives: tuple[ObjectiveConfig, ...] = (ObjectiveConfig(),)
    nested: tuple[Positive, ...] = ()
    seconds: AboveZero | None = None
    epochs: Positive = 30
    batch_size: Annotated[int, Meta(ge=2)] = 32
    lr: AboveZero = 1e-3
    weight_decay: NotNegative = 0.05
    warmup: Share = 0.1
    clip_norm: AboveZero = 1.0
    ema: Share = 0.99
    patience: Annotated[int, Meta(ge=0)] = 10
    balance: bool = True
    valid: Annotated[float, Meta(gt=0, lt=1)] = 0.15
    valid_fold: str | None = None
    seed: Annotated[int, Meta(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    workers: Positive | None = None
    cache: str | None = None
    cache_limit: AboveZero = 20.0
    augment: AugmentConfig = AugmentConfig()
