"""What a model is made of: the part of a bundle's config.json that the networks are built from.

Unknown keys, wrong types and impossible values are refused by `msgspec` when a config is read; so are sizes far beyond
those of any model for songs, which a damaged or hostile config would fill the memory with.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

LARGEST_SIZE = 1 << 16
"""Numbers in an embedding, and channels of frame features."""

_MOST_NUMBERS = 1 << 27
"""Of one window after a stage of the encoder: half a gigabyte of them in float32."""

Positive = Annotated[int, Meta(ge=1)]
Size = Annotated[int, Meta(ge=1, le=LARGEST_SIZE)]
PoolingKind = Literal["mean", "max", "mean+max", "softmax", "autopool", "gem", "attention", "attentive-statistics"]


class FrontendConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Log-mel front end: rates in Hz, lengths in samples; `log_floor` is the smallest mel power told apart."""

    sample_rate: Annotated[int, Meta(ge=1, le=768_000)] = 32000
    n_fft: Annotated[int, Meta(ge=2, le=1 << 16, multiple_of=2)] = 2048
    hop_length: Size = 640
    n_mels: Annotated[int, Meta(ge=1, le=4096)] = 128
    f_min: Annotated[float, Meta(ge=0, le=384_000)] = 0.0
    f_max: Annotated[float, Meta(gt=0, le=384_000)] = 16000.0
    log_floor: Annotated[float, Meta(gt=0, le=1)] = 1e-5

    def __post_init__(self) -> None:
        if self.hop_length > self.n_fft:
            raise ValueError(f"hop_length {self.hop_length} must not exceed n_fft {self.n_fft}: samples would be lost")


class EncoderConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Plain 3x3 CNN.

    Attributes:
        window_frames: mel frames the encoder sees at once.
        widths: channels of each stage; every stage halves the frequency axis.
        depth: convolutions per stage.
        time_strides: by how much each stage shortens the time axis.
        frame_features: channels C of the frame features that are pooled.
        context: whether a window is encoded with the mel frames beside it that its features depend on (the receptive
            field of the convolutions), the song's own or the silence around it. Features are then those of one pass
            over the whole song, wherever windows fall and however long they are. Without it every window is encoded
            by itself, with zeros beside it.
        low_pass_taps: of the binomial low-pass in time before every convolution that strides in time, against aliasing
            (Zhang, Making convolutional networks shift-invariant again, 2019): 3 are 1 2 1, 5 are 1 4 6 4 1, 1 is none.
    """

    window_frames: Size = 256
    widths: Annotated[tuple[Annotated[int, Meta(ge=1, le=1 << 14)], ...], Meta(min_length=1, max_length=16)] = (
        32,
        64,
        128,
        256,
    )
    depth: Annotated[int, Meta(ge=1, le=64)] = 2
    time_strides: Annotated[tuple[Size, ...], Meta(max_length=16)] = (2, 2, 2, 1)
    frame_features: Size = 768
    context: bool = False
    low_pass_taps: Literal[1, 3, 5] = 1

    def __post_init__(self) -> None:
        if len(self.time_strides) != len(self.widths):
            raise ValueError(f"time_strides {self.time_strides} must name one stride per stage of widths {self.widths}")
        if self.window_frames % self.time_reduction:
            raise ValueError(f"window_frames {self.window_frames} must be a multiple of {self.time_reduction}")

    @property
    def time_reduction(self) -> int:
        """Mel frames per frame feature."""
        product = 1
        for stride in self.time_strides:
            product *= stride
        return product

    @property
    def margins(self) -> list[tuple[int, int]]:
        """Frames of context before and after a window, in the input and in the output of each stage.

        Each counts in its own frames. Every convolution takes off either side as many frames as it reaches further; the
        last stage's output has none left. All are 0 without `context`.
        """
        before = after = 0
        margins = [(before, after)]
        for stride in reversed(self.time_strides):
            if self.context:
                before, after = before + self.depth - 1, after + self.depth - 1
                # The strided convolution, whose output i is centred on its input i * stride.
                reach = 1 + (self.low_pass_taps // 2 if stride > 1 else 0)
                before, after = before * stride + reach, max((after - 1) * stride + 1 + reach, 0)
            margins.append((before, after))
        return margins[::-1]

    @property
    def context_frames(self) -> tuple[int, int]:
        """Mel frames before and after a window that it is encoded with."""
        return self.margins[0]


class PoolingConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Temporal pooling: which, one parameter or one per channel, and where it starts.

    `alpha`, `alpha_max` and `alpha_l2` concern autopool, `p` concerns gem.
    """

    kind: PoolingKind = "autopool"
    scope: Literal["scalar", "channel"] = "channel"
    alpha: Annotated[float, Meta(ge=0)] = 1.0
    alpha_max: Annotated[float, Meta(gt=0)] | None = None
    alpha_l2: Annotated[float, Meta(ge=0)] = 0.0
    p: Annotated[float, Meta(ge=1)] = 3.0

    def __post_init__(self) -> None:
        if self.alpha_max is not None and self.alpha > self.alpha_max:
            raise ValueError(f"alpha starts at {self.alpha}, above alpha_max {self.alpha_max}")

    @property
    def outputs(self) -> int:
        """Numbers that are made of each channel."""
        return 2 if self.kind in ("mean+max", "attentive-statistics") else 1


class ModelConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole model: waveform windows in, unit vectors of `embedding_size` out.

    `mid_levels` joins the averages of every encoder stage, and `mel_statistics` mean and standard deviation of the mel
    bands, to the pooled frame features before the projection.
    """

    frontend: FrontendConfig = FrontendConfig()
    encoder: EncoderConfig = EncoderConfig()
    pooling: PoolingConfig = PoolingConfig()
    embedding_size: Size = 512
    mid_levels: bool = True
    mel_statistics: bool = True

    def __post_init__(self) -> None:
        encoder, frames, bands = self.encoder, self.encoder.window_frames, self.frontend.n_mels
        samples = (frames - 1) * self.frontend.hop_length + self.frontend.n_fft
        most = max(samples, frames * max(bands, self.frontend.n_fft))
        for width, stride in zip(encoder.widths, encoder.time_strides, strict=True):
            frames, bands = -(-frames // stride), (bands + 1) // 2
            most = max(most, frames * bands * width)
        if most > _MOST_NUMBERS:
            raise ValueError(f"one window makes {most:,} numbers, and {_MOST_NUMBERS:,} at most are meant to")

    @property
    def time_resolution(self) -> float:
        """Seconds between two frame features, which is the shortest stretch that has a vector of its own."""
        return self.encoder.time_reduction * self.frontend.hop_length / self.frontend.sample_rate

    @property
    def kernels(self) -> int:
        """Numbers in the encoder's kernels and the projection: nearly all that a model of this config has."""
        encoder, inputs, bands, count, joined = self.encoder, 1, self.frontend.n_mels, 0, self.encoder.frame_features
        for width in encoder.widths:
            count += 9 * width * (inputs + (encoder.depth - 1) * width)
            inputs, bands = width, (bands + 1) // 2
            joined += width if self.mid_levels else 0
        return count + inputs * bands * encoder.frame_features + joined * self.embedding_size


class HeadConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What a head tells.

    Attributes:
        column: the label column that it was trained on; what it is called.
        labels: names of the K classes, in the order of its outputs.
        multi_label: a clip may have several labels, or none.
        pool: features: the embedding is classified. predictions: every frame is, and the probabilities are pooled.
        pooling: of the probabilities, over K channels; exactly for ``pool = "predictions"``.
        scale: whether all classes share the factor that their cosines with the embedding have, or each has its own.
    """

    column: str
    labels: Annotated[tuple[str, ...], Meta(min_length=1)]
    multi_label: bool = False
    pool: Literal["features", "predictions"] = "features"
    pooling: PoolingConfig | None = None
    scale: Literal["head", "class"] = "head"

    def __post_init__(self) -> None:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"the labels of column {self.column!r} must differ from each other")
        if (self.pool == "predictions") != (self.pooling is not None):
            raise ValueError('a head has a pooling of its own exactly if pool is "predictions"')
        if self.scale == "class" and self.pool == "predictions":
            raise ValueError("a head on frames has no scale")
        if self.pooling is not None and self.pooling.outputs != 1:
            raise ValueError(
                f"{self.pooling.kind} gives two numbers per class, which are no probability: "
                "it pools features, not predictions"
            )
