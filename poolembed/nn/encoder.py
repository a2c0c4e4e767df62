"""A small plain CNN: log-mel windows to frame features, with every stage's output at hand."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from poolembed.nn.config import EncoderConfig


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU; `fold_` merges the norm, and a low-pass, into the convolution for inference.

    Args:
        inputs: channels.
        outputs: channels.
        kernel: frames and bands; (3, 3), or all bands at once.
        stride: frames and bands.
        context: the input has the frames beside it that the kernel reaches; otherwise it is padded with zeros.
        taps: of a binomial low-pass in time before the convolution. Both are one convolution with a longer kernel.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        *,
        context: bool = False,
        taps: int = 1,
    ) -> None:
        super().__init__()
        padding = (0 if context else 1 + taps // 2, 1) if kernel == (3, 3) else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.rounds_to: torch.dtype | None = None
        self.low_pass: Tensor | None
        self.register_buffer("low_pass", _binomial(taps) if taps > 1 else None, persistent=False)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, T, F)`` to ``(B, outputs, T', F')``, non-negative."""
        x = functional.relu(self.norm(self._convolved(x)), inplace=True)
        return x if self.rounds_to is None else x.to(self.rounds_to)

    def _convolved(self, x: Tensor) -> Tensor:
        if self.low_pass is not None:
            return cast(Tensor, self.conv._conv_forward(x, self._low_passed(), None))
        kernel = self.conv.weight.shape[2:]
        if not self.training or kernel[0] > 1 or kernel[1] < x.shape[-1]:
            return cast(Tensor, self.conv(x))
        # All bands at once are a matrix product. On the CPU the backward pass of the convolution takes six times as
        # long; embedding keeps the convolution, so that what it gives does not depend on how a model was trained.
        rows = x.permute(0, 2, 3, 1).flatten(2)
        return functional.linear(rows, self.conv.weight.permute(0, 2, 3, 1).flatten(1)).transpose(1, 2).unsqueeze(-1)

    def _low_passed(self) -> Tensor:
        """The kernel ``(outputs, inputs, 3 + taps - 1, 3)`` that filters and convolves at once."""
        assert self.low_pass is not None
        weight, reach = self.conv.weight, len(self.low_pass) - 1
        padded = functional.pad(weight, (0, 0, reach, reach))
        shifted = [padded[:, :, first : first + 3 + reach] for first in range(reach + 1)]
        return torch.stack([tap * kernel for tap, kernel in zip(self.low_pass, shifted, strict=True)]).sum(0)

    def fold_(self) -> None:
        """Merge low-pass and batch norm into the convolution, in place; the module must be in eval mode."""
        if self.low_pass is not None:
            self.conv.weight = nn.Parameter(self._low_passed().detach(), requires_grad=False)
            self.low_pass = None
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


def _binomial(taps: int) -> Tensor:
    """A row of Pascal's triangle that sums to 1: 1 2 1 over 4, 1 4 6 4 1 over 16."""
    row = torch.tensor([float(math.comb(taps - 1, place)) for place in range(taps)])
    return row / row.sum()


class Encoder(nn.Module):
    """3x3 convolutions in stages, then frequency x channel flattened and projected to frame features.

    Each stage opens with a strided convolution. The projection is a convolution over all remaining bands at once, so
    where in frequency something sounds is kept.

    Shape:
        - input: ``(B, before + T + after, n_mels)``, normalised log-mel with its context, if the config has any.
        - output: frame features ``(B, C, T / time_reduction)``, non-negative, and the stages' outputs
          ``(B, width, before_i + T_i + after_i, F_i)`` with what is left of the context (`EncoderConfig.margins`).
    """

    def __init__(self, config: EncoderConfig, n_mels: int) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList()
        inputs, bands = 1, n_mels
        for width, time_stride in zip(config.widths, config.time_strides, strict=True):
            taps = config.low_pass_taps if time_stride > 1 else 1
            blocks = [ConvBlock(inputs, width, (3, 3), (time_stride, 2), context=config.context, taps=taps)]
            blocks += [ConvBlock(width, width, (3, 3), (1, 1), context=config.context) for _ in range(config.depth - 1)]
            self.stages.append(nn.Sequential(*blocks))
            inputs, bands = width, (bands + 1) // 2
        self.project = ConvBlock(inputs, config.frame_features, (1, bands), (1, 1))

    def forward(self, mel: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Frame features and the outputs of the stages."""
        x = mel.unsqueeze(1)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return self.project(x).squeeze(-1), levels

    def for_inference_(self, dtype: torch.dtype) -> None:
        """Merge norms and low-passes into the convolutions and compute in `dtype`, in place; the input stays float32.

        The first convolution does too. Its input is the one that is far from zero, and its few weights, rounded to
        bfloat16, make nine tenths of all the difference that bfloat16 makes; in float32 it takes no longer.
        """
        first, *others = (module for module in self.modules() if isinstance(module, ConvBlock))
        first.fold_()
        first.rounds_to = dtype
        for block in others:
            block.fold_()
            block.to(dtype)


class _BandMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, level: Tensor) -> Tensor:
        ctx.bands = level.shape[-1]
        # The same as level.mean(-1), which takes ten times as long on channels-last tensors on the CPU.
        return functional.avg_pool2d(level, (1, level.shape[-1])).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        each: Tensor = (gradients[0] / ctx.bands).transpose(1, 2).contiguous().transpose(1, 2)
        return each.unsqueeze(-1).expand(-1, -1, -1, ctx.bands)


def band_mean(level: Tensor) -> Tensor:
    """Mean over frequency, ``(B, C, T, F)`` to ``(B, C, T)``.

    Its gradient is one value for all bands, in the layout of a channels-last level and never written out: that of
    torch's pooling fills a tensor as large as the level, and torch's sum of it with the gradient from the next stage
    copies one of them into the layout of the other, an eighth of the time of a training step on the CPU.
    """
    return cast(Tensor, cast(Any, _BandMean).apply(level))  # torch 2.14 has a type for it, those before it none
