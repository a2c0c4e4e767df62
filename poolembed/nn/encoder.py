"""A small plain CNN: log-mel windows to frame features, with every stage's output at hand."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from poolembed.nn.config import EncoderConfig


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU; `fold_norm_` merges the norm into the convolution for inference."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if kernel == (3, 3) else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, T, F)`` to ``(B, outputs, T', F')``, non-negative."""
        return nn.functional.relu(self.norm(self.conv(x)), inplace=True)

    def fold_norm_(self) -> None:
        """Merge the batch norm into the convolution, in place; the module must be in eval mode."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class Encoder(nn.Module):
    """3x3 convolutions in stages, then frequency x channel flattened and projected to frame features.

    Each stage opens with a strided convolution. The projection is a convolution over all remaining bands at once, so
    where in frequency something sounds is kept.

    Shape:
        - input: ``(B, T, n_mels)``, normalised log-mel.
        - output: frame features ``(B, C, T / time_reduction)``, non-negative, and the stages' outputs
          ``(B, width, T_i, F_i)``.
    """

    def __init__(self, config: EncoderConfig, n_mels: int) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList()
        inputs, bands = 1, n_mels
        for width, time_stride in zip(config.widths, config.time_strides, strict=True):
            blocks = [ConvBlock(inputs, width, (3, 3), (time_stride, 2))]
            blocks += [ConvBlock(width, width, (3, 3), (1, 1)) for _ in range(config.depth - 1)]
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

    def fold_norms_(self) -> None:
        """Merge every batch norm into its convolution, in place, for inference."""
        for module in self.modules():
            if isinstance(module, ConvBlock):
                module.fold_norm_()
