"""The low-pass before a strided convolution: one convolution that does what two would do."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from poolembed.nn.encoder import ConvBlock, Encoder
from tests.conftest import tiny_config, tiny_network

TAPS = {3: [1.0, 2.0, 1.0], 5: [1.0, 4.0, 6.0, 4.0, 1.0]}

every_filter = pytest.mark.parametrize("taps", TAPS)


def convolved(block: ConvBlock, x: Tensor) -> Tensor:
    """What a block computes before its norm and its ReLU, of which the first is taken away and the second undone."""
    block.norm = nn.Identity()
    with torch.no_grad():
        made: Tensor = block(x) - block(-x)
        return made


@every_filter
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_is_the_filter_and_then_the_convolution(taps: int, stride: int) -> None:
    block = ConvBlock(3, 5, (3, 3), (stride, 2), context=True, taps=taps)
    x = torch.randn(2, 3, 41, 8, generator=torch.Generator().manual_seed(0))
    kernel = torch.tensor(TAPS[taps])
    filtered = functional.conv2d(x, (kernel / kernel.sum()).reshape(1, 1, -1, 1).expand(3, 1, -1, 1), groups=3)
    expected = functional.conv2d(filtered, block.conv.weight, stride=(stride, 2), padding=(0, 1))
    torch.testing.assert_close(convolved(block, x), expected, rtol=0, atol=1e-5)


@every_filter
def test_what_is_fastest_in_time_is_silenced_and_what_stands_still_is_left(taps: int) -> None:
    block = ConvBlock(1, 4, (3, 3), (2, 2), context=True, taps=taps)
    plain = ConvBlock(1, 4, (3, 3), (2, 2), context=True)
    plain.load_state_dict(block.state_dict())
    still = torch.randn(1, 1, 1, 8, generator=torch.Generator().manual_seed(0)).expand(1, 1, 40, 8)
    alternating = still * torch.tensor([1.0, -1.0]).repeat(20).reshape(40, 1)
    assert float(convolved(plain, alternating).abs().max()) > 0.1
    assert float(convolved(block, alternating).abs().max()) < 1e-5
    expected = convolved(plain, still)[:, :, :1].expand_as(made := convolved(block, still))
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


@every_filter
@pytest.mark.parametrize("context", [False, True])
def test_only_where_time_is_strided_and_with_the_same_weights(taps: int, context: bool) -> None:
    config = msgspec.structs.replace(tiny_config().encoder, time_strides=(2, 1), context=context)
    encoder = Encoder(msgspec.structs.replace(config, low_pass_taps=taps), 16)
    filters = [cast(Any, stage)[0].low_pass for stage in encoder.stages]
    assert filters[0].tolist() == [tap / sum(TAPS[taps]) for tap in TAPS[taps]]
    assert filters[1] is None
    assert {name: tuple(value.shape) for name, value in encoder.state_dict().items()} == {
        name: tuple(value.shape) for name, value in Encoder(config, 16).state_dict().items()
    }


@every_filter
def test_the_kernel_is_trained_through_it(taps: int) -> None:
    encoder = msgspec.structs.replace(tiny_config().encoder, low_pass_taps=taps)
    network = tiny_network(msgspec.structs.replace(tiny_config(), encoder=encoder)).train()
    frames = torch.full((4,), 32)
    network(torch.randn(4, network.window_samples), frames)[:, 0].sum().backward()
    for stage in network.encoder.stages:
        gradient = cast(Any, stage)[0].conv.weight.grad
        assert gradient.shape[2:] == (3, 3)
        assert bool((gradient != 0).any())


@pytest.mark.parametrize("taps", [0, 2, 4, 7])
def test_other_filters_there_are_none(taps: int) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"low_pass_taps": taps}, type(tiny_config().encoder))
