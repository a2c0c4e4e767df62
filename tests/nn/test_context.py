"""With context the features of a song are those of one pass over it, silence around, wherever its windows fall."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from poolembed.embed.engine import Engine
from poolembed.embed.song import Embedded
from poolembed.embed.windows import WindowShape, cut_windows
from poolembed.nn.config import EncoderConfig, ModelConfig, PoolingConfig
from poolembed.nn.encoder import Encoder
from poolembed.nn.model import Features, SongModel
from tests.conftest import HOP, POOLINGS, RATE, noise, tiny_config, tiny_network

TOLERANCE = 4e-6
"""Of the largest feature: the same few dozen products are summed in float32, in whatever order the shape of a window
makes torch choose, through up to ten convolutions, each within about 4e-7."""

STRIDES = st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=3)


def network_of(window_frames: int = 32, **encoder: Any) -> SongModel:
    """The same weights whatever the window, with context unless told otherwise."""
    plain = tiny_config()
    changed = msgspec.structs.replace(plain.encoder, **{"context": True, **encoder, "window_frames": window_frames})
    # The norms are fitted to windows of one length, so that they are the same too.
    fitted = msgspec.structs.replace(changed, window_frames=changed.time_reduction * 8, context=False)
    made = tiny_network(msgspec.structs.replace(plain, encoder=fitted))
    network = SongModel(msgspec.structs.replace(plain, encoder=changed), made.frontend.filterbank)
    network.load_state_dict(made.state_dict())
    return network.eval()


def reductions_of(network: SongModel) -> list[int]:
    """How many mel frames a feature of each part stands for."""
    frames = network.config.encoder.window_frames
    with torch.inference_mode():
        return [frames // part.shape[-1] for part in network.features(torch.zeros(1, network.window_samples))]


def song_features(network: SongModel, song: NDArray[np.float32]) -> Features:
    """Of all windows of a song, joined: parts ``(1, C_i, T_i)``."""
    with torch.inference_mode():
        windows = [
            network.features(torch.from_numpy(window.samples.copy()).unsqueeze(0))
            for window in cut_windows([song], WindowShape.of(network.config))
        ]
    return [torch.cat(parts, -1) for parts in zip(*windows, strict=True)]


def one_pass(song: NDArray[np.float32], **encoder: Any) -> Features:
    """The definition: the network without context, over the whole song at once, with so much silence around it that
    its zero padding is out of reach; the silence's own features are left out."""
    reduction = EncoderConfig(**{"widths": (1,) * len(encoder["time_strides"]), **encoder}).time_reduction
    ahead = 64 * reduction
    frames = -(-(1 + len(song) // HOP) // reduction) * reduction
    network = network_of(ahead + frames + ahead, context=False, **encoder)
    silent = np.zeros(ahead * HOP, np.float32)
    parts = song_features(network, np.concatenate([silent, song, silent]))
    return [
        part[..., ahead // stride : (ahead + frames) // stride]
        for part, stride in zip(parts, reductions_of(network), strict=True)
    ]


def near(one: Tensor, other: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance * max(float(other.abs().max()), 1))


def assert_same_features(one: Features, other: Features) -> None:
    for a, b in zip(one, other, strict=True):
        length = min(a.shape[-1], b.shape[-1])  # the last window's padding is longer in longer windows
        near(a[..., :length], b[..., :length])


@settings(deadline=None, max_examples=25)
@given(STRIDES, st.integers(1, 3), st.integers(1, 60 * HOP), st.integers(1, 6), st.sampled_from([1, 3, 5]))
@example([2, 2, 2, 1], 2, 40 * HOP, 1, 1)  # base
@example([4, 2, 1, 1], 2, 40 * HOP, 3, 1)  # tiny
@example([2, 2, 2, 1], 2, 40 * HOP, 1, 5)
@example([4], 1, 1, 1, 1)
@example([4, 4], 1, 33 * HOP, 1, 3)
def test_windows_have_the_features_of_one_pass_over_the_song(
    strides: list[int], depth: int, samples: int, windows: int, taps: int
) -> None:
    encoder = {
        "time_strides": tuple(strides),
        "widths": (3,) * len(strides),
        "depth": depth,
        "low_pass_taps": taps,
    }
    network = network_of(windows * int(np.prod(strides)), **encoder)
    song = noise(samples)
    assert_same_features(song_features(network, song), one_pass(song, **encoder))


@pytest.mark.parametrize("kind", POOLINGS)
def test_an_embedding_does_not_depend_on_the_window(kind: Any) -> None:
    """Nor do those of stretches; through the engine, whose windows of several songs share batches."""
    made = tiny_network(tiny_config(PoolingConfig(kind=kind)))
    songs = [(noise(samples, seed), RATE) for seed, samples in enumerate([1, 700, 40 * HOP, 150 * HOP + 3, 5000])]
    found: list[list[Embedded]] = []
    for window_frames in (4, 32, 152):
        encoder = msgspec.structs.replace(made.config.encoder, context=True, window_frames=window_frames)
        network = SongModel(msgspec.structs.replace(made.config, encoder=encoder), made.frontend.filterbank)
        network.load_state_dict(made.state_dict())
        network.eval()
        engine = Engine(network, network.for_inference(torch.device("cpu"), torch.float32), batch_size=3, workers=2)
        outcomes = list(engine.run(songs, seconds=0.1))
        assert all(isinstance(outcome, Embedded) for outcome in outcomes)
        found.append([outcome for outcome in outcomes if isinstance(outcome, Embedded)])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_allclose(one.embedding, two.embedding, atol=1e-5)
            assert one.segments is not None
            assert two.segments is not None
            np.testing.assert_array_equal(one.segments.times, two.segments.times)
            np.testing.assert_allclose(one.segments.embeddings, two.segments.embeddings, atol=1e-5)


@pytest.mark.parametrize("strides", [1, 3, 8, 11])
def test_a_shift_by_whole_strides_shifts_the_features(strides: int) -> None:
    network = network_of()
    song, silent = noise(100 * HOP), np.zeros(strides * network.config.encoder.time_reduction * HOP, np.float32)
    still, moved = song_features(network, song), song_features(network, np.concatenate([silent, song]))
    for a, b, reduction in zip(still, moved, reductions_of(network), strict=True):
        by = strides * network.config.encoder.time_reduction // reduction
        length = -(-101 // reduction)
        near(b[..., by : by + length], a[..., :length])


def test_without_context_they_do_depend_on_the_window() -> None:
    """The tests above could not fail otherwise."""
    song = noise(100 * HOP)
    short, long = (song_features(network_of(frames, context=False), song)[0] for frames in (32, 128))
    assert float((short[..., :25] - long[..., :25]).abs().max()) > 0.1


@pytest.mark.parametrize("taps", [1, 3, 5])
@pytest.mark.parametrize(("strides", "depth"), [((2, 2, 2, 1), 2), ((4, 2, 1, 1), 2), ((4,), 1), ((1, 2), 3)])
def test_the_context_is_what_the_features_depend_on_and_no_more(
    strides: tuple[int, ...], depth: int, taps: int
) -> None:
    network = network_of(8, time_strides=strides, widths=(4,) * len(strides), depth=depth, low_pass_taps=taps).double()
    before, after = network.config.encoder.context_frames
    mel = torch.randn(4, before + 8 + after, 16, dtype=torch.float64, requires_grad=True)
    weights = torch.linspace(1, 2, 8 // network.config.encoder.time_reduction)
    (gradient,) = torch.autograd.grad((network.encoder(mel)[0].sum((0, 1)) * weights).sum(), mel)
    reached = gradient.abs().amax((0, 2)) > 0
    # A stride can leave the very last frames unseen; the mel statistics and levels of a window have them in any case.
    assert bool(reached[0])
    assert bool(reached[-1]) or after == 0


@pytest.mark.parametrize("taps", [1, 3, 5])
@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inference_and_training_agree(dtype: torch.dtype, context: bool, taps: int) -> None:
    network = network_of(context=context, low_pass_taps=taps)
    samples = torch.from_numpy(np.stack([noise(network.window_samples, seed) for seed in range(3)]))
    with torch.inference_mode():
        plain = network.features(samples)
        folded = network.for_inference(torch.device("cpu"), dtype).features(samples)
    for one, other in zip(plain, folded, strict=True):
        near(other.float(), one, 1e-5 if dtype == torch.float32 else 0.03)


def _lengths(network: SongModel, mel: Tensor) -> list[int]:
    return [part.shape[-1] for part in network.mel_features(mel)]


@settings(deadline=None, max_examples=15)
@given(STRIDES, st.integers(1, 3), st.integers(1, 5))
def test_parts_have_the_lengths_that_a_window_without_context_has(strides: list[int], depth: int, windows: int) -> None:
    frames = int(np.prod(strides)) * windows
    encoder = {"time_strides": tuple(strides), "widths": (2,) * len(strides), "depth": depth}
    plain, network = network_of(frames, context=False, **encoder), network_of(frames, **encoder)
    before, after = network.config.encoder.context_frames
    assert _lengths(network, torch.zeros(1, before + frames + after, 16)) == _lengths(plain, torch.zeros(1, frames, 16))


def gigaflops(encoder: EncoderConfig) -> float:
    """Of the encoder, for 10 seconds of base's frames."""
    network, frames = Encoder(encoder, 128).eval(), encoder.window_frames + sum(encoder.context_frames)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, frames, 128))
    return float(counter.get_total_flops()) / encoder.window_frames * 500 / 1e9


def test_what_context_costs() -> None:
    """Base: 2.27 GFLOP per 10 s, and with context 2.52 in windows of 256 mel frames, 2.49 of 288, 2.40 of 512."""
    costs = {frames: gigaflops(EncoderConfig(window_frames=frames, context=True)) for frames in (256, 288, 512)}
    plain = gigaflops(EncoderConfig())
    assert plain == pytest.approx(2.270, abs=0.001)
    assert {frames: round(cost / plain, 3) for frames, cost in costs.items()} == {256: 1.111, 288: 1.098, 512: 1.055}
    assert costs[512] < 2.4


def test_what_the_shipped_architectures_need() -> None:
    """The receptive field of a frame feature: 75 mel frames of base's, 1.5 s; 99 of tiny's."""
    assert ModelConfig(encoder=EncoderConfig(context=True)).encoder.context_frames == (37, 30)
    assert EncoderConfig(context=True, time_strides=(4, 2, 1, 1)).context_frames == (49, 42)
    assert EncoderConfig(context=True, low_pass_taps=5).context_frames == (51, 44)
    assert EncoderConfig(low_pass_taps=5).context_frames == (0, 0)
