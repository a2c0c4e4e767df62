"""What the encoder does otherwise in training is faster, and the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from poolembed.nn.encoder import ConvBlock, band_mean


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kernel", [(1, 4), (3, 3), (1, 2)], ids=["all bands", "some", "half of them"])
def test_a_block_in_training_is_its_convolution_norm_and_relu(kernel: tuple[int, int]) -> None:
    block = ConvBlock(3, 5, kernel, (1, 1)).double().train()
    x, plain = noise(2, 3, 6, 4).requires_grad_(), noise(2, 3, 6, 4).requires_grad_()
    y = block(x)
    weight = noise(*y.shape, seed=1)
    (y * weight).sum().backward()
    norm = nn.BatchNorm2d(5).double().train()
    kernel_weight = block.conv.weight.detach().clone().requires_grad_()
    padding = (1, 1) if kernel == (3, 3) else (0, 0)
    expected = norm(nn.functional.conv2d(plain, kernel_weight, padding=padding)).relu()
    (expected * weight).sum().backward()
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(x.grad, plain.grad)
    torch.testing.assert_close(block.conv.weight.grad, kernel_weight.grad)


def test_a_block_that_embeds_is_its_convolution() -> None:
    """To the bit, for two ways to multiply would round otherwise."""
    block = ConvBlock(3, 5, (1, 4), (1, 1))
    x = noise(2, 3, 6, 4).float()
    convolved: list[Tensor] = []
    block.conv.register_forward_hook(lambda module, inputs, output: convolved.append(output))
    block.train()(x)
    assert not convolved
    y = block.eval()(x)
    assert torch.equal(y, block.norm(convolved[0]).relu())


def test_the_mean_over_bands_and_its_gradient() -> None:
    level = noise(2, 3, 5, 4).requires_grad_()
    torch.testing.assert_close(band_mean(level), level.mean(-1))
    assert torch.autograd.gradcheck(band_mean, level)


def test_the_gradient_of_the_mean_over_bands_is_not_written_out_and_lies_as_the_level_does() -> None:
    """So that its sum with the gradient from the next stage copies neither."""
    level = noise(2, 3, 5, 4).to(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(band_mean(level), level, noise(2, 3, 5))
    assert gradient.stride(3) == 0
    total = gradient + torch.ones_like(level)
    assert total.is_contiguous(memory_format=torch.channels_last)
