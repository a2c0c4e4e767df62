"""What a model is made of: the part of a bundle's config.json that the networks are built from.

Unknown keys, wrong types and impossible values are refused by `msgspec` when a config is read.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Positive = Annotated[int, Meta(ge=1)]
PoolingKind = Literal["mean", "max", "mean+max", "softmax", "autopool", "gem", "attention", "attentive-statistics"]


class FrontendConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Log-mel front end: rates in Hz, lengths in samples; `log_floor` is the smallest mel power told apart."""

    sample_rate: Positive = 32000
    n_fft: Annotated[int, Meta(ge=2, multiple_of=2)] = 2048
    hop_length: Positive = 640
    n_mels: Positive = 128
    f_min: Annotated[float, Meta(ge=0)] = 0.0
    f_max: Annotated[float, Meta(gt=0)] = 16000.0
    log_floor: Annotated[float, Meta(gt=0)] = 1e-5

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

    window_frames: Positive = 256
    widths: Annotated[tuple[Positive, ...], Meta(min_length=1)] = (32, 64, 128, 256)
    depth: Positive = 2
    time_strides: tuple[Positive, ...] = (2, 2, 2, 1)
    frame_features: Positive = 768
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


class ModelConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole model: waveform windows in, unit vectors of `embedding_size` out.

    `mid_levels` joins the averages of every encoder stage, and `mel_statistics` mean and standard deviation of the mel
    bands, to the pooled frame features before the projection.
    """

    frontend: FrontendConfig = FrontendConfig()
    encoder: EncoderConfig = EncoderConfig()
    pooling: PoolingConfig = PoolingConfig()
    embedding_size: Positive = 512
    mid_levels: bool = True
    mel_statistics: bool = True
