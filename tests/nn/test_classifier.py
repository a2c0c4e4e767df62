"""A model and its heads as one network give what each head gives by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from poolembed.nn.classifier import SongClassifier
from poolembed.nn.config import HeadConfig, PoolingConfig
from poolembed.nn.head import EmbeddingHead, FrameHead, Head, build_head
from tests.conftest import tiny_network

NETWORK = tiny_network()


def heads(*pools: str) -> list[Head]:
    torch.manual_seed(3)
    made = []
    for number, pool in enumerate(pools):
        pooling = None if pool == "features" else PoolingConfig(kind=pool)  # type: ignore[arg-type]
        config = HeadConfig(
            column=f"c{number}",
            labels=tuple("abcdef"[: 2 + number]),
            multi_label=number % 2 == 1,
            pool="features" if pooling is None else "predictions",
            pooling=pooling,
        )
        made.append(build_head(config, NETWORK.config).eval())
    return made


@pytest.mark.parametrize(
    "pools",
    [["features"], ["autopool"], ["gem", "features"], ["features", "max", "features", "attention"]],
    ids=" ".join,
)
def test_every_head_says_what_it_says_alone(pools: Any) -> None:
    chosen = heads(*pools)
    network = SongClassifier(NETWORK, chosen)
    samples, stop = torch.randn(4, network.window_samples), torch.tensor([32, 7, 1, 20])
    start = torch.zeros_like(stop)
    with torch.inference_mode():
        features = NETWORK.features(samples)
        mask = torch.arange(features[0].shape[-1]) * 4 < stop.unsqueeze(1)
        packed = network.pack(network.fold(network.features(samples), start, stop))
        assert packed.shape == (4, network.state_size)
        own = NETWORK.pack(NETWORK.fold(features, start, stop))
        for dtype in (torch.float32, torch.float64):
            embedding = NETWORK.finalize(NETWORK.unpack(own.to(dtype)))
            expected = [
                head.probabilities(embedding) if isinstance(head, EmbeddingHead) else head(features[0], mask)
                for head in chosen
            ]
            found = network.finalize(network.unpack(packed.to(dtype)))
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, torch.cat(expected, dim=1), rtol=0, atol=1e-6)


def test_windows_merge_to_the_song() -> None:
    chosen = heads("features", "autopool", "gem")
    network = SongClassifier(NETWORK, chosen)
    mel = torch.randn(1, 5, 32, 16)
    with torch.inference_mode():
        whole = network.finalize(network.fold(network.clip_features(mel), torch.zeros(1), torch.tensor([150])))
        rows = network.fold(network.mel_features(mel[0]), torch.zeros(5), torch.tensor([32, 32, 32, 32, 22]))
        torch.testing.assert_close(network.finalize(network.merge_rows(rows)), whole, rtol=0, atol=1e-6)


def test_in_half_precision_probabilities_stay_close_and_in_range() -> None:
    network = SongClassifier(NETWORK, heads("features", "autopool"))
    half = network.for_inference(torch.device("cpu"), torch.bfloat16)
    samples, stop = torch.randn(4, network.window_samples), torch.full((4,), 32)
    with torch.inference_mode():
        one, two = (each.finalize(each.fold(each.features(samples), 0 * stop, stop)) for each in (network, half))
    assert two.dtype == torch.float32
    torch.testing.assert_close(two, one, rtol=0, atol=0.03)


def test_the_model_is_left_alone() -> None:
    before = {key: value.clone() for key, value in NETWORK.state_dict().items()}
    chosen = heads("features", "max")
    network = SongClassifier(NETWORK, chosen)
    assert not network.training
    assert [type(head) for head in network.heads] == [EmbeddingHead, FrameHead]
    with torch.no_grad():
        for parameter in network.encoder.parameters():
            parameter.zero_()
    for key, value in NETWORK.state_dict().items():
        assert torch.equal(value, before[key]), key
