"""musicnn (Pons & Serra 2019), as first published and as trained anew by Won et al. (2020); 16 kHz.

Two kinds of filters look at a mel spectrogram: tall ones, for timbre, whose maximum over frequency counts, and long
flat ones, for rhythm. Three residual layers over time follow, and everything so far is pooled by maximum and mean. The
two differ in the front end, in whether batch norm comes before or after the ReLU, and in how flat filters meet the
bands; the networks are put together from their checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.recipe.teachers.spectra import power_spectrum, slaney_filterbank

SAMPLE_RATE = 16_000
_N_FFT, _HOP, _N_MELS = 512, 256, 96
_SHORTEST = SAMPLE_RATE // 2  # samples; less has too few frames


@dataclass(frozen=True)
class _Layer:
    """A convolution or linear map, and the batch norm before or after its ReLU."""

    weight: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor
    norm_last: bool

    def activate(self, x: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (x.ndim - 2)
        scale, shift = self.scale.view(shape), self.shift.view(shape)
        return F.relu(x) * scale + shift if self.norm_last else F.relu(x * scale + shift)

    def over_time(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C', T)."""
        return self.activate(F.conv1d(_pad_time(x, self.weight.shape[-1]), self.weight, self.bias))

    def over_bands(self, x: Tensor, precision: torch.dtype) -> Tensor:
        """(B, 1, bands, T) -> (B, C', T), the maximum over bands; nine tenths of all the work."""
        x = _pad_time(x, self.weight.shape[-1]).to(precision, memory_format=torch.channels_last)
        # what follows rises with the filter's output or falls with it, so that the strongest band can be found before
        sign = torch.where(self.scale < 0, -1.0, 1.0)
        weight = self.weight * sign.view(-1, 1, 1, 1)
        y = F.conv2d(x, weight.to(precision, memory_format=torch.channels_last))
        strongest = F.max_pool2d(y, (y.shape[2], 1))[:, :, 0].float()
        return self.activate(strongest * sign.view(-1, 1) + self.bias.view(-1, 1))


class _Musicnn:
    """What the two have in common, from the front end's filters on.

    Args:
        precision: of the filters that look at the spectrogram; with bfloat16 all takes a third of the time, where the
            processor knows it.
    """

    sample_rate = SAMPLE_RATE
    outputs = ("penultimate", "pools", "logits")

    def __init__(self, precision: torch.dtype) -> None:
        self._precision = precision

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> dict[str, Tensor]:
        """Mono clips of one length (B, n) -> penultimate (B, 200), pools (B, 1506) and logits (B, 50)."""
        samples = F.pad(samples, (0, max(0, _SHORTEST - samples.shape[1])))
        features = [self._filters(self._mel(samples)[:, None])]
        for number, layer in enumerate(self._middle):
            y = layer.over_time(features[-1])
            features.append(y + features[-1] if number else y)
        everything = torch.cat(features, 1)
        pools = self._join(everything.amax(2), everything.mean(2))
        penultimate, logits = self._dense(pools)
        return {"penultimate": penultimate, "pools": pools, "logits": logits}

    _middle: list[_Layer]

    def _mel(self, samples: Tensor) -> Tensor:
        raise NotImplementedError

    def _filters(self, mel: Tensor) -> Tensor:
        raise NotImplementedError

    def _join(self, maximum: Tensor, mean: Tensor) -> Tensor:
        raise NotImplementedError

    def _dense(self, pools: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class PonsMusicnn(_Musicnn):
    """The first musicnn.

    Args:
        weights: of the TensorFlow checkpoint, by name.
        precision: as above.
    """

    def __init__(self, weights: Mapping[str, Tensor], precision: torch.dtype = torch.float32) -> None:
        super().__init__(precision)
        self._weights = weights
        self._slaney = slaney_filterbank(_N_MELS, _N_FFT, SAMPLE_RATE)
        self._window = torch.hann_window(_N_FFT)
        tall = [self._layer(number, (3, 2, 1, 0)) for number in (0, 1)]
        flat = [self._layer(number, (3, 2, 1, 0)) for number in (2, 3, 4)]
        self._front = [*tall, *flat]
        self._middle = [self._layer(number, (3, 1, 0, 2), squeeze=True) for number in (5, 6, 7)]

    def _layer(self, number: int, axes: tuple[int, ...], *, squeeze: bool = False) -> _Layer:
        name = f"conv2d_{number}" if number else "conv2d"
        kernel = self._weights[f"{name}/kernel"].permute(axes)
        scale, shift = self._norm(number + 1)
        bias = self._weights[f"{name}/bias"]
        return _Layer((kernel.squeeze(-1) if squeeze else kernel).contiguous(), bias, scale, shift, norm_last=True)

    def _norm(self, number: int) -> tuple[Tensor, Tensor]:
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        mean, variance, gamma, beta = (
            self._weights[f"{name}/{part}"] for part in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        scale = gamma * torch.rsqrt(variance + 0.001)
        return scale, beta - mean * scale

    def _mel(self, samples: Tensor) -> Tensor:
        power = power_spectrum(samples, self._window, _N_FFT, _HOP, padding="constant")
        scale, shift = self._norm(0)
        return torch.log10(10_000 * (self._slaney @ power) + 1) * scale + shift

    def _filters(self, mel: Tensor) -> Tensor:
        return torch.cat([layer.over_bands(mel, self._precision) for layer in self._front], 1)

    def _join(self, maximum: Tensor, mean: Tensor) -> Tensor:
        return torch.stack([maximum, mean], 2).flatten(1)

    def _dense(self, pools: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self._norm(9)
        hidden = F.relu((pools * scale + shift) @ self._weights["dense/kernel"] + self._weights["dense/bias"])
        scale, shift = self._norm(10)
        penultimate = hidden * scale + shift
        return penultimate, penultimate @ self._weights["dense_1/kernel"] + self._weights["dense_1/bias"]


class WonMusicnn(_Musicnn):
    """musicnn trained anew.

    Args:
        weights: the checkpoint's state dict.
        precision: as above.
    """

    def __init__(self, weights: Mapping[str, Tensor], precision: torch.dtype = torch.float32) -> None:
        super().__init__(precision)
        self._weights = weights
        self._front = [self._layer(f"layers.{number}") for number in range(5)]
        self._middle = [self._layer(f"layer{number}") for number in (1, 2, 3)]

    def _layer(self, name: str) -> _Layer:
        scale, shift = self._norm(f"{name}.bn")
        weight, bias = self._weights[f"{name}.conv.weight"], self._weights[f"{name}.conv.bias"]
        return _Layer(weight, bias, scale, shift, norm_last=False)

    def _norm(self, name: str) -> tuple[Tensor, Tensor]:
        scale = self._weights[f"{name}.weight"] * torch.rsqrt(self._weights[f"{name}.running_var"] + 1e-5)
        return scale, self._weights[f"{name}.bias"] - self._weights[f"{name}.running_mean"] * scale

    def _mel(self, samples: Tensor) -> Tensor:
        power = power_spectrum(samples, self._weights["spec.spectrogram.window"], _N_FFT, _HOP)
        mel = self._weights["spec.mel_scale.fb"].T @ power
        scale, shift = self._norm("spec_bn")
        return 10 * torch.log10(mel.clamp_min(1e-10)) * scale + shift

    def _filters(self, mel: Tensor) -> Tensor:
        tall = [layer.over_bands(mel, self._precision) for layer in self._front[:2]]
        average = mel.mean(2)
        return torch.cat([*tall, *(layer.over_time(average) for layer in self._front[2:])], 1)

    def _join(self, maximum: Tensor, mean: Tensor) -> Tensor:
        return torch.cat([maximum, mean], 1)

    def _dense(self, pools: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self._norm("bn")
        hidden = F.linear(pools, self._weights["dense1.weight"], self._weights["dense1.bias"])
        penultimate = F.relu(hidden * scale + shift)
        return penultimate, F.linear(penultimate, self._weights["dense2.weight"], self._weights["dense2.bias"])


def _pad_time(x: Tensor, kernel: int) -> Tensor:
    """So much that as many frames come out as went in."""
    return F.pad(x, ((kernel - 1) // 2, kernel // 2))
