"""The composed model: clips of windows are pooled as songs are embedded; what training relies on."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poolembed.embed.merging import Merger
from poolembed.embed.windows import WindowShape, cut_windows
from poolembed.nn.config import PoolingConfig, PoolingKind
from poolembed.nn.model import SongModel, build_pool
from poolembed.nn.pooling import TemporalPool
from tests.conftest import HOP, POOLINGS, noise, pools_of, tiny_config, tiny_network

NETWORK = tiny_network()
WINDOW = NETWORK.config.encoder.window_frames
BANDS = NETWORK.config.frontend.n_mels

every_pooling = pytest.mark.parametrize("kind", POOLINGS)


def network_of(kind: Any, **parts: Any) -> SongModel:
    return tiny_network(tiny_config(PoolingConfig(kind=kind), **parts))


def song_windows(network: SongModel, samples: int) -> tuple[Tensor, list[int]]:
    """Waveform windows ``(W, window_samples)`` of a song, and the mel frames of each."""
    windows = [
        (torch.from_numpy(window.samples.copy()), window.frames)
        for window in cut_windows([noise(samples)], WindowShape.of(network.config))
    ]
    return torch.stack([window for window, _ in windows]), [frames for _, frames in windows]


def log_mel(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(*shape, BANDS, generator=torch.Generator().manual_seed(seed)) - 5


def test_the_poolings_of_the_tests_are_all_there_are() -> None:
    assert set(POOLINGS) == set(get_args(PoolingKind))


@every_pooling
@pytest.mark.parametrize("scope", ["scalar", "channel"])
def test_a_config_is_built(kind: Any, scope: Any) -> None:
    pool = build_pool(PoolingConfig(kind=kind, scope=scope, alpha=2.0, alpha_max=4.0, alpha_l2=0.5, p=5.0), 6)
    assert pool(torch.rand(2, 6, 9)).shape == (2, 6 * pool.outputs)
    assert pool.outputs == (2 if kind in ("mean+max", "attentive-statistics") else 1)
    values = {name: (tuple(p.shape), sorted(set(p.detach().flatten().tolist()))) for name, p in pool.named_parameters()}
    shape = (6,) if scope == "channel" else ()
    expected: dict[str, Any] = {"autopool": {"alpha": (shape, [2.0])}, "gem": {"p": (shape, [5.0])}}
    if kind in ("attention", "attentive-statistics"):
        expected[kind] = {"scorer.weight": ((1, 6), [0.0])}
    assert values == expected.get(kind, {})


@every_pooling
@pytest.mark.parametrize("parts", [{}, {"mid_levels": False}, {"mel_statistics": False}])
def test_states_travel_in_one_piece(kind: Any, parts: dict[str, Any]) -> None:
    network = network_of(kind, **parts)
    state = network.fold(network.features(torch.randn(3, network.window_samples)), torch.zeros(3), torch.full((3,), 20))
    packed = network.pack(state)
    assert packed.shape == (3, network.state_size)
    for part, again in zip(state, network.unpack(packed), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(part, again, strict=True))


def test_mel_features_are_the_features_behind_the_front_end() -> None:
    samples = torch.from_numpy(noise(NETWORK.window_samples)).unsqueeze(0)
    behind = NETWORK.mel_features(NETWORK.frontend(samples))
    assert all(torch.equal(a, b) for a, b in zip(NETWORK.features(samples), behind, strict=True))


def test_windows_of_a_clip_are_encoded_by_themselves_and_joined_in_order() -> None:
    mel = log_mel(2, 3, WINDOW)
    joined = NETWORK.clip_features(mel)
    for clip in range(2):
        for window in range(3):
            alone = NETWORK.mel_features(mel[clip, window].unsqueeze(0))
            for part, expected in zip(joined, alone, strict=True):
                length = expected.shape[-1]
                found = part[clip : clip + 1, :, window * length : (window + 1) * length]
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert [part.shape[-1] for part in joined] == [3 * WINDOW // 4, 3 * WINDOW // 2, 3 * WINDOW // 4, 3 * WINDOW]


@every_pooling
@pytest.mark.parametrize("samples", [1, 5 * HOP, 3 * WINDOW * HOP - 1, 3 * WINDOW * HOP + 7 * HOP])
def test_a_clip_is_embedded_as_the_engine_embeds_a_song(kind: Any, samples: int) -> None:
    network = network_of(kind)
    windows, frames = song_windows(network, samples)
    with torch.inference_mode():
        features = network.clip_features(network.frontend(windows).unsqueeze(0))
        state = network.fold(features, torch.zeros(1), torch.tensor([sum(frames)]))
        whole = network.finalize([tuple(tensor.double() for tensor in part) for part in state])[0]
        merger = Merger(network)
        for window, count in zip(windows, frames, strict=True):
            state = network.fold(network.features(window.unsqueeze(0)), torch.zeros(1), torch.tensor([count]))
            merger.add(network.pack(state)[0])
        torch.testing.assert_close(whole, merger.embedding(), rtol=0, atol=2e-6)


@every_pooling
def test_what_stands_behind_a_clip_does_not_matter(kind: Any) -> None:
    network = network_of(kind)
    frames = torch.tensor([WINDOW, 2 * WINDOW])  # ends of windows: the encoder sees no padding beside a frame
    mel = log_mel(2, 3, WINDOW)
    other = mel.clone()
    other[0, 1:], other[1, 2:] = 9.0, -11.0
    with torch.inference_mode():
        one, two = (network.finalize(network.fold(network.clip_features(m), 0 * frames, frames)) for m in (mel, other))
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


@settings(max_examples=20)
@given(st.integers(1, 4), st.sampled_from([4, 16, 28, WINDOW]), st.data())
def test_a_feature_belongs_to_its_first_frame_whatever_the_length(
    windows: int, length: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, windows * length - 1))
    stop = data.draw(st.integers(start + 1, windows * length))
    features = NETWORK.clip_features(log_mel(1, windows, length))
    state = NETWORK.fold(features, torch.tensor([start]), torch.tensor([stop]))
    for pool, part, found, reduction in zip(pools_of(NETWORK), features, state, (4, 2, 4, 1), strict=True):
        assert part.shape[-1] * reduction == windows * length
        inside = [i for i in range(part.shape[-1]) if start <= i * reduction < stop]
        for a, b in zip(found, pool.fold(part[..., inside]), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_mel_norm_has_a_mode_of_its_own() -> None:
    network = tiny_network()
    network.train()
    network.mel_norm.eval()
    before = {key: value.clone() for key, value in network.mel_norm.state_dict().items()}
    mel = log_mel(2, 1, WINDOW)
    trained = network.clip_features(mel)[-1]
    network.eval()
    assert torch.equal(network.clip_features(mel)[-1], trained)
    for key, value in network.mel_norm.state_dict().items():
        assert torch.equal(value, before[key]), key


@every_pooling
def test_training_under_autocast(kind: Any) -> None:
    """Embeddings stay float32 and of unit length, and every parameter gets a gradient that is a number."""
    network = network_of(kind).train()
    frames = torch.tensor([WINDOW, 5, 2 * WINDOW - 3, 40])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = network.clip_features(log_mel(4, 2, WINDOW))
        embeddings = network.finalize(network.fold(features, torch.zeros_like(frames), frames))
    assert features[0].dtype == torch.bfloat16
    assert embeddings.dtype == torch.float32
    np.testing.assert_allclose(embeddings.detach().norm(dim=1).numpy(), 1, atol=1e-6)
    loss = (embeddings * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))).sum()
    names, parameters = zip(*network.named_parameters(), strict=True)
    for name, gradient in zip(names, torch.autograd.grad(loss, parameters), strict=True):
        assert bool(gradient.isfinite().all()), name
        assert bool((gradient != 0).any()), name


def test_poolings_are_found_among_the_modules() -> None:
    found = [module for module in NETWORK.modules() if isinstance(module, TemporalPool)]
    assert [type(pool).__name__ for pool in found] == ["AutoPool", "MeanPool", "MeanPool", "MeanPool"]
