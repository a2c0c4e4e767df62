"""What a training run is made of: every option of ``poolembed train``, and of the ``run.toml`` that repeats it.

An option is stated here alone: its type and bounds, its default, and, by a `Flag`, how it stands on the command line.
What has no flag is a key of the file, and of ``--set``. Unknown keys, wrong types and impossible values are refused by
`msgspec` when a config is read.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

from poolembed.nn.config import ModelConfig, PoolingKind


class Flag(NamedTuple):
    """How a key stands on the command line.

    Attributes:
        help: what it is.
        group: the heading that it is listed under.
        metavar: what its value is called in the help.
        default: what the help says of the default, where the default itself says too little.
        name: of the flag; the key's where empty.
    """

    help: str
    group: str = ""
    metavar: str | None = None
    default: str = ""
    name: str = ""


MODEL, LEARNING, LOOP = "Model and pooling", "What is learned", "How it is trained"
CLIPS, AUGMENT, MACHINE = "Clips", "Augmentation of training clips; 0 is off", "Machine"

Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[float, Meta(ge=0)]
AboveZero = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, lt=1)]

Init = Annotated[str, Flag("Start from this model, or from scratch.", MODEL, "MODEL")]
Freeze = Annotated[Literal["none", "encoder"], Flag("What is left as it is.", MODEL)]
Pool = Annotated[
    Literal["features", "predictions"],
    Flag(
        "features: of frames, to an embedding that is classified. predictions: the classes of every frame, which also "
        "tells when.",
        MODEL,
    ),
]
Column = Annotated[str, Flag("The table's column of labels.", LEARNING, "COLUMN", name="label-column")]
Epochs = Annotated[Positive, Flag("Passes over the clips.", LOOP)]
BatchSize = Annotated[int, Meta(ge=2), Flag("Clips per step.", LOOP)]
Rate = Annotated[AboveZero, Flag("Peak learning rate of AdamW.", LOOP)]
Seconds = Annotated[AboveZero | None, Flag("Length of a training crop.", CLIPS, "S", "the longest clip, up to 10")]

ObjectiveKind = Literal["classification", "supcon", "contrastive", "distill"]


class ObjectiveConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One term of the loss.

    Attributes:
        kind: classification (softmax, or sigmoid where clips have several labels), supcon (clips of one label belong
            together), contrastive (two crops of one clip belong together), distill (towards target vectors).
        weight: what its loss is multiplied by.
    """

    kind: ObjectiveKind = "classification"
    weight: AboveZero = 1.0
    column: Column = "label"
    targets: Annotated[
        str | None,
        Flag("distill: what `poolembed embed` wrote with any model, one for each distill.", LEARNING, "DIR"),
    ] = None
    temperature: Annotated[AboveZero, Flag("supcon, contrastive: what cosines are divided by.", LEARNING)] = 0.1

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
        noise: share of crops that noise is laid over, white to pink, 5 to 35 dB below them.
        time_mask: longest masked stretch, as a share of the crop (SpecAugment, Park et al. 2019).
        band_mask: largest number of masked mel bands, as a share of all.
        mixup: parameter of the Beta distribution that two clips are mixed by, in power (Zhang et al. 2018).
        resized_crop: largest change of speed and of band position, as a share (Niizumi et al. 2021).
        shift: most seconds that a crop may begin before its clip, in whole mel frames. The network samples time at one
            frame in several (`Model.time_resolution`); so clips that are no longer than a crop, too, are heard at
            any offset from that grid, and both views of a clip, or a student and its teacher, do not share theirs.
    """

    gain_db: Annotated[NotNegative, Flag("Louder or quieter by up to this.", AUGMENT, "DB", name="gain")] = 0.0
    equalizer_db: Annotated[NotNegative, Flag("Parts of the spectrum, likewise.", AUGMENT, "DB", name="equalizer")] = (
        0.0
    )
    low_pass: Annotated[Share, Flag("How many crops lose their highs.", AUGMENT, "SHARE")] = 0.0
    noise: Annotated[Share, Flag("How many crops noise is laid over.", AUGMENT, "SHARE")] = 0.0
    time_mask: Share = 0.0
    band_mask: Share = 0.0
    mixup: Annotated[NotNegative, Flag("Mix two clips; parameter of Beta.", AUGMENT, "BETA")] = 0.0
    resized_crop: Annotated[Share, Flag("Largest change of speed and of the bands' place.", AUGMENT, "SHARE")] = 0.0
    shift: Annotated[NotNegative, Flag("Crops begin up to so much early.", AUGMENT, "SECONDS")] = 0.0


class TrainConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole run; the flags say what its keys are. Paths are kept as given.

    Attributes:
        data: a folder of ``<label>/**`` clips, or a table (CSV, TSV, JSONL, Parquet) of labelled clips.
        output: the directory that the bundle, its checkpoints and its report go to.
        model: architecture, for ``init = "scratch"``; otherwise the bundle's own.
        pooling: replaces the model's pooling; None keeps it.
        nested: the loss of embeddings is the mean over these first numbers, brought back to unit length, and the whole
            (Matryoshka).
        batch_size: over all processes.
        weight_decay: of weight matrices and kernels; norms, biases and pooling parameters have none.
        warmup: share of all steps in which the learning rate climbs, before it falls along a cosine.
        clip_norm: largest norm of the gradient.
        ema: decay per step of the moving average of the weights, which is what is validated and kept; 0 for none.
        precision: by autocast.
    """

    data: str
    output: str
    init: Init = "base"
    freeze: Freeze = "none"
    model: ModelConfig | None = None
    pooling: Annotated[PoolingKind | None, Flag("How frames become one vector.", MODEL, default="the model's")] = None
    pooling_scope: Annotated[
        Literal["scalar", "channel"] | None, Flag("One alpha or p for all, or one each.", MODEL, default="channel")
    ] = None
    alpha: Annotated[NotNegative | None, Flag("autopool: where alpha starts.", MODEL, default="1.0")] = None
    alpha_max: Annotated[AboveZero | None, Flag("autopool: bound of alpha (CAP).", MODEL, default="none")] = None
    alpha_l2: Annotated[NotNegative | None, Flag("autopool: penalty on alpha (RAP).", MODEL, default="0.0")] = None
    p: Annotated[Annotated[float, Meta(ge=1)] | None, Flag("gem: where p starts.", MODEL, default="3.0")] = None
    pool: Pool = "features"
    pooling_lr: Annotated[
        NotNegative | None,
        Flag(
            "Learning rate of alpha or p, as a multiple of --lr.",
            MODEL,
            "TIMES",
            "10 for a scalar, 100 per channel",
        ),
    ] = None
    objectives: Annotated[
        tuple[ObjectiveConfig, ...],
        Flag(
            "classification, supcon (clips of a label belong together), contrastive (two crops of a clip do) or "
            "distill (towards --targets); again for several together.",
            LEARNING,
            "NAME[:WEIGHT]",
            "classification",
            "objective",
        ),
    ] = (ObjectiveConfig(),)
    nested: Annotated[
        tuple[Positive, ...],
        Flag(
            "So many of an embedding's first numbers are to be embeddings too: 64,128,256.", LEARNING, "SIZES", "none"
        ),
    ] = ()
    balance: Annotated[bool, Flag("Classes count alike, however many clips they have.", LEARNING)] = True
    seconds: Seconds = None
    epochs: Epochs = 30
    patience: Annotated[
        int, Meta(ge=0), Flag("End after so many epochs without a better one; 0 never does.", LOOP, "EPOCHS")
    ] = 10
    batch_size: BatchSize = 32
    lr: Rate = 1e-3
    weight_decay: NotNegative = 0.05
    warmup: Share = 0.1
    clip_norm: AboveZero = 1.0
    ema: Share = 0.99
    seed: Annotated[int, Meta(ge=0), Flag("Of everything random.", LOOP)] = 0
    valid: Annotated[
        float, Meta(gt=0, lt=1), Flag("Held out to measure on, where the table has no split.", CLIPS, "SHARE")
    ] = 0.15
    valid_fold: Annotated[str | None, Flag("Hold out this fold instead.", CLIPS, "FOLD")] = None
    cache: Annotated[str | None, Flag("Where decoded clips are kept.", CLIPS, "DIR", "DIR/cache")] = None
    cache_limit: Annotated[AboveZero, Flag("Its largest size.", CLIPS, "GB")] = 20.0
    augment: AugmentConfig = AugmentConfig()
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Flag("Where the network runs.", MACHINE)] = "auto"
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], Flag("What it computes in.", MACHINE)] = "auto"
    workers: Annotated[Positive | None, Flag("Threads that decode.", MACHINE, default="one per core")] = None
