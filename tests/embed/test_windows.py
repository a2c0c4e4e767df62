"""Cutting by blocks is slicing the padded song: for every length, however the blocks fall."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from poolembed.embed.windows import WindowShape, cut_windows
from tests.conftest import noise, slow_windows, tiny_config, tiny_network

SHAPE = WindowShape(frames=4, hop_length=10, n_fft=24)
STRIDE = SHAPE.frames * SHAPE.hop_length
EDGES = sorted(
    {1, 2, 9, 10, 11, 12, 13}
    | {k * SHAPE.hop_length + d for k in range(1, 14) for d in (-1, 0, 1)}
    | {k * STRIDE + d + e for k in (1, 2, 3) for d in (-12, 0, 12, 14, 42) for e in (-1, 0, 1)}
)
"""Around every frame, every whole window, and every place where a window's last sample is there or not."""


def cut(blocks: list[NDArray[np.float32]], shape: WindowShape = SHAPE) -> list[tuple[NDArray[np.float32], int]]:
    return [(window.samples.copy(), window.frames) for window in cut_windows(blocks, shape)]


def assert_is_slicing(song: NDArray[np.float32], blocks: list[NDArray[np.float32]], shape: WindowShape = SHAPE) -> None:
    windows, expected = cut(blocks, shape), slow_windows(song, shape)
    assert [frames for _, frames in windows] == [frames for _, frames in expected]
    assert sum(frames for _, frames in windows) == (1 + len(song) // shape.hop_length if len(song) else 0)
    for (samples, _), (expected_samples, _) in zip(windows, expected, strict=True):
        np.testing.assert_array_equal(samples, expected_samples)


@pytest.mark.parametrize("length", EDGES)
@pytest.mark.parametrize("block", [1, 7, 40, 1000])
def test_every_edge_in_even_blocks(length: int, block: int) -> None:
    song = noise(length)
    assert_is_slicing(song, [song[i : i + block] for i in range(0, length, block)])


@settings(max_examples=150)
@given(st.one_of(st.sampled_from(EDGES), st.integers(0, 400)), st.lists(st.floats(0, 1), max_size=12))
@example(0, [])
@example(1, [0.0, 0.0, 1.0])
def test_any_partition_into_blocks(length: int, cuts: list[float]) -> None:
    song = noise(length)
    edges = [0, *sorted(round(c * length) for c in cuts), length]  # some of the blocks are empty
    assert_is_slicing(song, [song[a:b] for a, b in pairwise(edges)])


@pytest.mark.parametrize(("hop_length", "n_fft"), [(10, 10), (1, 2), (3, 8), (7, 16)])
def test_other_overlaps(hop_length: int, n_fft: int) -> None:
    shape = WindowShape(5, hop_length, n_fft)
    for length in range(1, 5 * hop_length * 3 + n_fft):
        song = noise(length)
        assert_is_slicing(song, [song[i : i + 6] for i in range(0, length, 6)], shape)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), st.integers(0, 12), st.integers(0, 12), st.integers(0, 400), st.integers(1, 90))
@example(1, 12, 12, 1, 90)
def test_context(frames: int, before: int, after: int, length: int, block: int) -> None:
    """More of it than of the window, too."""
    shape, song = WindowShape(frames, 10, 24, before, after), noise(length)
    assert_is_slicing(song, [song[i : i + block] for i in range(0, length, block)], shape)


def test_windows_of_a_real_shape() -> None:
    shape = WindowShape.of(tiny_config())
    assert shape == (32, 80, 256, 0, 0)
    encoder = msgspec.structs.replace(tiny_config().encoder, context=True)
    with_context = WindowShape.of(msgspec.structs.replace(tiny_config(), encoder=encoder))
    assert with_context == (32, 80, 256, *encoder.context_frames)
    assert with_context.samples == tiny_network(msgspec.structs.replace(tiny_config(), encoder=encoder)).window_samples
    for length in (1, 79, 80, 2560 - 1, 2560, 2608 - 1, 2608, 3 * 2560 + 48, 20_000):
        song = noise(length)
        assert_is_slicing(song, [song], shape)


def test_no_samples_no_windows() -> None:
    assert cut([]) == []
    assert cut([np.zeros(0, np.float32)]) == []


def test_one_buffer_serves_the_whole_song() -> None:
    addresses = {window.samples.__array_interface__["data"] for window in cut_windows([noise(2000)] * 3, SHAPE)}
    assert len(addresses) == 1


def test_a_block_is_taken_only_when_needed() -> None:
    taken = []

    def blocks() -> Iterator[NDArray[np.float32]]:
        for i in range(1000):
            taken.append(i)
            yield noise(10)

    windows = cut_windows(blocks(), SHAPE)
    next(windows)
    assert len(taken) == 5  # 12 zeros before the song, and 42 of its samples: the window is full
    next(windows)
    assert len(taken) == 9
