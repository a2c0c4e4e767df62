"""Merging in any order gives the same bits; stretches partition the frames; segments are what they say they are."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poolembed.embed.merging import GROUP, Merger, SongMerger, Stretches
from poolembed.embed.windows import WindowShape, cut_windows
from poolembed.nn.config import PoolingConfig
from poolembed.nn.model import SongModel
from tests.conftest import HOP, POOLINGS, RATE, noise, pools_of, slow_windows, tiny_config, tiny_network

NETWORK = tiny_network()
RESOLUTION = 4 * HOP / RATE
WINDOW = 32
WINDOW_SECONDS = WINDOW * HOP / RATE
MANY = 2 * GROUP + 13
"""Windows of a song that needs more than two groups."""


def window_states(network: SongModel, length: int, stretches: Stretches) -> tuple[Tensor, list[list[int]]]:
    """Packed states ``(windows, slots, state_size)`` of a song of so many samples, and the bounds of their slots."""
    windows = [
        (torch.from_numpy(window.samples.copy()), window.frames)
        for window in cut_windows([noise(length)], WindowShape.of(network.config))
    ]
    bounds = [stretches.bounds(number, frames) for number, (_, frames) in enumerate(windows)]
    edges = torch.tensor(bounds)
    with torch.inference_mode():
        features = network.features(torch.stack([samples for samples, _ in windows]))
        slots = [network.pack(network.fold(features, edges[:, i], edges[:, i + 1])) for i in range(stretches.slots)]
    return torch.stack(slots, dim=1), bounds


def merge(
    network: SongModel, stretches: Stretches, states: Tensor, bounds: list[list[int]], order: Sequence[int]
) -> SongMerger:
    merger = SongMerger(network, stretches)
    assert not merger.end(len(order))
    for place, window in enumerate(order):
        assert merger.add(window, states[window], bounds[window]) == (place == len(order) - 1)
    return merger


def bits(merger: SongMerger) -> tuple[bytes, ...]:
    with torch.inference_mode():
        segments = merger.segments()
        vectors = [merger.embedding().numpy().tobytes()]
    return (*vectors, *((segments.embeddings.tobytes(), segments.times.tobytes()) if segments else ()))


class TestOrder:
    @pytest.mark.hypothesis
    @pytest.mark.parametrize("seconds", [None, 0.5])
    @pytest.mark.parametrize("windows", [1, 2, GROUP - 1, GROUP, GROUP + 1, MANY])
    def test_any_order_gives_the_same_bits(self, windows: int, seconds: float | None) -> None:
        stretches = Stretches(NETWORK, seconds)
        states, bounds = window_states(NETWORK, windows * WINDOW * HOP - 1, stretches)
        assert len(states) == windows
        expected = bits(merge(NETWORK, stretches, states, bounds, range(windows)))

        @settings(max_examples=4)
        @given(st.randoms(use_true_random=False))
        def check(random: object) -> None:
            order = list(range(windows))
            random.shuffle(order)  # type: ignore[attr-defined]
            assert bits(merge(NETWORK, stretches, states, bounds, order)) == expected

        check()
        assert bits(merge(NETWORK, stretches, states, bounds, range(windows)[::-1])) == expected

    @pytest.mark.parametrize("round", range(2))
    def test_several_threads_at_once(self, round: int) -> None:
        stretches = Stretches(NETWORK, 0.5)
        states, bounds = window_states(NETWORK, MANY * WINDOW * HOP - 1, stretches)
        expected = bits(merge(NETWORK, stretches, states, bounds, range(MANY)))
        order = np.random.default_rng(round).permutation(MANY).tolist()
        merger = SongMerger(NETWORK, stretches)
        completed: list[bool] = []
        together = threading.Barrier(5)

        def add(windows: list[int]) -> None:
            together.wait()
            for window in windows:
                completed.append(merger.add(window, states[window], bounds[window]))

        def end() -> None:
            together.wait()
            completed.append(merger.end(MANY))

        threads = [threading.Thread(target=add, args=(order[i::4],)) for i in range(4)]
        threads.append(threading.Thread(target=end))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert completed.count(True) == 1  # the song is finished by exactly one thread
        assert bits(merger) == expected

    def test_the_end_is_told_last(self) -> None:
        stretches = Stretches(NETWORK, None)
        states, bounds = window_states(NETWORK, 3 * WINDOW * HOP - 1, stretches)
        merger = SongMerger(NETWORK, stretches)
        assert not any(merger.add(window, states[window], bounds[window]) for window in (2, 0, 1))
        assert merger.end(3)

    @pytest.mark.parametrize("kind", POOLINGS)
    def test_groups_merge_to_what_all_windows_merge_to(self, kind: str) -> None:
        network = tiny_network(tiny_config(PoolingConfig(kind=kind)))  # type: ignore[arg-type]
        states, _ = window_states(network, MANY * WINDOW * HOP - 1, Stretches(network, None))
        merger = Merger(network)
        with torch.inference_mode():
            for state in states[:, 0]:
                merger.add(state)
            whole = network.finalize(network.merge_rows(network.unpack(states[:, 0].double())))[0]
            torch.testing.assert_close(merger.embedding(), whole, rtol=0, atol=1e-7)


def frames_of(length: int) -> int:
    return 1 + length // HOP


stretch_seconds = st.one_of(
    st.floats(RESOLUTION, 3.0),
    st.sampled_from([RESOLUTION, WINDOW_SECONDS, WINDOW_SECONDS / 2, 2 * WINDOW_SECONDS, 0.1, 1 / 3, 5.0, 1e6, 1e300]),
)


class TestStretches:
    @settings(max_examples=200)
    @given(stretch_seconds, st.integers(1, 500))
    def test_bounds_partition_the_frames(self, seconds: float, frames: int) -> None:
        stretches = Stretches(NETWORK, seconds)
        owner: list[int] = []
        for window in range(math.ceil(frames / WINDOW)):
            inside = min(WINDOW, frames - window * WINDOW)
            bounds = stretches.bounds(window, inside)
            assert len(bounds) == stretches.slots + 1
            assert bounds[0] == 0
            assert bounds[-1] == inside
            assert sorted(bounds) == bounds
            first = stretches.first(window)
            for slot in range(stretches.slots):
                owner += [first + slot] * (bounds[slot + 1] - bounds[slot])
        assert len(owner) == frames
        assert owner == sorted(owner)
        if owner[-1] < frames:  # every stretch is at least a feature long, so none may be left out
            assert set(owner) == set(range(owner[-1] + 1))
        for frame, stretch in enumerate(owner):
            centre = frame * HOP / RATE
            assert stretch * seconds - 1e-6 <= centre <= (stretch + 1) * seconds + 1e-6

    def test_no_seconds_is_one_stretch(self) -> None:
        stretches = Stretches(NETWORK, None)
        assert (stretches.slots, stretches.first(7), stretches.bounds(7, 5)) == (1, 0, [0, 5])

    def test_rounding_does_not_move_a_bound(self) -> None:
        assert 25 * (0.044 * RATE / HOP) > 110  # by the last bit
        stretches = Stretches(NETWORK, 0.044)
        first = stretches.first(3)  # window 3 holds the frames 96 to 127
        bounds = stretches.bounds(3, WINDOW)
        assert bounds[25 - first] == 110 - 96

    def test_a_stretch_far_into_a_long_song(self) -> None:
        seconds, window = 0.1, 10**7  # 37 days
        stretches = Stretches(NETWORK, seconds)
        assert stretches.first(window) == window * WINDOW // 10
        assert stretches.bounds(window, WINDOW) == [0, 10, 20, 30, 32, 32][: stretches.slots + 1]


def brute_force_segments(network: SongModel, length: int, seconds: Fraction) -> dict[int, Tensor]:
    """Stretch -> its vector, from the features of all windows in one piece, in float64."""
    shape = WindowShape.of(network.config)
    windows = slow_windows(noise(length), shape)
    with torch.inference_mode():
        per_window = [network.features(torch.from_numpy(samples).unsqueeze(0)) for samples, _ in windows]
        parts = [torch.cat(list(pieces), dim=-1).double() for pieces in zip(*per_window, strict=True)]
        total = frames_of(length)
        vectors: dict[int, torch.Tensor] = {}
        stretches = math.ceil(total * HOP / RATE / seconds) + 1
        bounds = [math.ceil(stretch * seconds * RATE / HOP) for stretch in range(stretches + 1)]
        for stretch in range(stretches):
            state, empty = [], False
            for pool, part in zip(pools_of(network), parts, strict=True):
                reduction = len(windows) * shape.frames // part.shape[-1]
                frame = torch.arange(part.shape[-1]) * reduction
                real = (frame >= bounds[stretch]) & (frame < min(bounds[stretch + 1], total))
                empty = empty or not bool(real.any())
                state.append(tuple(pool.fold(part[..., real])))
            # The frame that is centred on the song's end is no stretch of its own.
            alone = min(bounds[stretch + 1], total) - bounds[stretch] == 1 and len(vectors) > 0
            if not empty and not alone:
                vectors[stretch] = network.finalize(state)[0]
    return vectors


@pytest.mark.parametrize("kind", POOLINGS)
@pytest.mark.parametrize("seconds", ["0.04", "0.1", "0.32", "0.37", "1000"])
def test_segments_are_the_stretches_embedded_alone(kind: str, seconds: str) -> None:
    network = tiny_network(tiny_config(PoolingConfig(kind=kind)))  # type: ignore[arg-type]
    for length in (1, 8000, 12_123):
        stretches = Stretches(network, float(seconds))
        states, bounds = window_states(network, length, stretches)
        with torch.inference_mode():
            segments = merge(network, stretches, states, bounds, range(len(states))).segments()
        assert segments is not None
        expected = brute_force_segments(network, length, Fraction(seconds))
        np.testing.assert_allclose(segments.times, [stretch * float(seconds) for stretch in expected], rtol=1e-12)
        # A standard deviation over four mel frames, of squares that were summed in float32, loses a digit.
        np.testing.assert_allclose(segments.embeddings, torch.stack(list(expected.values())).numpy(), rtol=0, atol=5e-6)
        assert segments.embeddings.dtype == np.float32
        assert segments.times.dtype == np.float64


@pytest.mark.parametrize("kind", POOLINGS)
def test_the_song_is_the_same_with_and_without_stretches(kind: str) -> None:
    network = tiny_network(tiny_config(PoolingConfig(kind=kind)))  # type: ignore[arg-type]
    embeddings = []
    for seconds in (None, RESOLUTION, 0.37, 1000.0):
        stretches = Stretches(network, seconds)
        states, bounds = window_states(network, (GROUP + 3) * WINDOW * HOP + 1234, stretches)
        with torch.inference_mode():
            merger = merge(network, stretches, states, bounds, range(len(states)))
            embeddings.append(merger.embedding().numpy())
            assert (merger.segments() is None) == (seconds is None)
    for embedding in embeddings[1:]:
        np.testing.assert_allclose(embedding, embeddings[0], rtol=0, atol=1e-6)


def test_one_stretch_that_holds_the_song_is_the_song() -> None:
    stretches = Stretches(NETWORK, 1000.0)
    states, bounds = window_states(NETWORK, 5000, stretches)
    with torch.inference_mode():
        merger = merge(NETWORK, stretches, states, bounds, range(len(states)))
        segments, embedding = merger.segments(), merger.embedding()
    assert segments is not None
    assert segments.times.tolist() == [0.0]
    np.testing.assert_array_equal(segments.embeddings[0], embedding.numpy())
