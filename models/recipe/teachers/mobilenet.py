"""EfficientAT's mn04_as (Schmid et al. 2023): a MobileNetV3 of width 0.4, trained on AudioSet; 32 kHz.

The network is put together from the shapes in the checkpoint; what shapes do not tell (strides, activations) is here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from models.recipe.teachers.spectra import kaldi_filterbank, power_spectrum

SAMPLE_RATE = 32_000
_N_FFT, _WINDOW, _HOP, _N_MELS = 1024, 800, 320, 128
_HALVING = (0, 2, 4, 7, 13)  # these layers have stride 2
_FIRST_HARDSWISH_BLOCK = 7
_LAST_BLOCK = 15
_TAPPED = (5, 11, 13, 15)  # blocks whose averages serve as embedding, as in the authors' entry to HEAR
_EPSILON = 0.001  # of the batch norms


class MobileNetTeacher:
    """The trained network; call it with clips.

    Args:
        weights: the checkpoint's state dict.
    """

    sample_rate = SAMPLE_RATE
    outputs = ("penultimate", "blocks", "logits")

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights
        self._folded = {
            name.removesuffix(".0.weight"): _fold(weights, name.removesuffix(".0.weight"))
            for name in weights
            if name.endswith(".0.weight") and f"{name.removesuffix('.0.weight')}.1.running_mean" in weights
        }
        self._window = torch.hann_window(_WINDOW, periodic=False)
        self._filters = kaldi_filterbank(_N_MELS, _N_FFT, SAMPLE_RATE, 0.0, SAMPLE_RATE / 2 - 1000)

    def mel(self, samples: Tensor) -> Tensor:
        """Log-mel frames, (B, n) -> (B, 128, T)."""
        emphasised = samples[:, 1:] - 0.97 * samples[:, :-1]
        power = power_spectrum(emphasised, self._window, _N_FFT, _HOP)
        return ((self._filters @ power + 1e-5).log() + 4.5) / 5.0

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> dict[str, Tensor]:
        """Mono clips of one length (B, n) -> penultimate (B, 384), blocks and mel bands averaged (B, 320), logits."""
        mel = self.mel(samples)
        x = F.hardswish(self._convolve(mel[:, None], "features.0", stride=2))
        averages = []
        for number in range(1, _LAST_BLOCK + 1):
            x = self._block(x, number)
            if number in _TAPPED:
                averages.append(x.mean((2, 3)))
        x = F.hardswish(self._convolve(x, f"features.{_LAST_BLOCK + 1}"))
        penultimate = x.mean((2, 3))
        hidden = F.hardswish(self._linear(penultimate, "classifier.2"))
        blocks = torch.cat([*averages, mel.mean(2)], 1)
        return {"penultimate": penultimate, "blocks": blocks, "logits": self._linear(hidden, "classifier.5")}

    def _block(self, x: Tensor, number: int) -> Tensor:
        """Expand, filter each channel, weigh the channels, project: as far as the checkpoint has the layer."""
        activation = F.hardswish if number >= _FIRST_HARDSWISH_BLOCK else F.relu
        prefix = f"features.{number}.block"
        layers = sorted({int(name.removeprefix(prefix + ".").split(".")[0]) for name in self._names(prefix)})
        stride = 2 if number in _HALVING else 1
        y = x
        for layer in layers:
            name = f"{prefix}.{layer}"
            if name not in self._folded:  # squeeze and excitation
                name += ".conc_se_layers.0"
                scale = self._linear(F.relu(self._linear(y.mean((2, 3)), f"{name}.fc1")), f"{name}.fc2")
                y = y * torch.sigmoid(scale)[:, :, None, None]
            else:
                depthwise = self._folded[name][0].shape[-1] > 1
                y = self._convolve(y, name, stride if depthwise else 1)
                if layer != layers[-1]:
                    y = activation(y)
        return x + y if x.shape == y.shape else y

    def _names(self, prefix: str) -> list[str]:
        return [name for name in self._weights if name.startswith(prefix + ".")]

    def _convolve(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel, bias = self._folded[name]
        return F.conv2d(x, kernel, bias, stride, kernel.shape[-1] // 2, groups=x.shape[1] // kernel.shape[1])

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])


def _fold(weights: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """A convolution without bias and the batch norm after it, as one convolution with bias."""
    scale = weights[f"{name}.1.weight"] * torch.rsqrt(weights[f"{name}.1.running_var"] + _EPSILON)
    bias = weights[f"{name}.1.bias"] - weights[f"{name}.1.running_mean"] * scale
    return weights[f"{name}.0.weight"] * scale[:, None, None, None], bias
