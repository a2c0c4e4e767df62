from __future__ import annotations

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from poolembed.audio.resample import resample_blocks
from poolembed.errors import AudioError


@given(
    data=st.data(),
    samples=st.integers(0, 30_000),
    rates=st.tuples(*[st.sampled_from([8_000, 16_000, 22_050, 32_000, 44_100, 48_000, 192_000])] * 2),
)
def test_blocks_of_any_size_give_the_one_shot_result(data: st.DataObject, samples: int, rates: tuple[int, int]) -> None:
    signal = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    cuts = sorted(data.draw(st.lists(st.integers(0, samples), max_size=20)))
    blocks = list(resample_blocks(np.split(signal, cuts), *rates))
    expected = soxr.resample(signal, *rates, quality="HQ") if samples else signal
    np.testing.assert_array_equal(np.concatenate([*blocks, np.zeros(0, np.float32)]), expected)
    assert all(block.dtype == np.float32 and block.ndim == 1 for block in blocks)


def test_one_sample_at_a_time() -> None:
    signal = np.sin(np.arange(3_000, dtype=np.float32) / 10)
    blocks = resample_blocks(np.split(signal, len(signal)), 44_100, 32_000)
    np.testing.assert_array_equal(np.concatenate(list(blocks)), soxr.resample(signal, 44_100, 32_000, quality="HQ"))


def test_same_rate_passes_the_very_blocks_through() -> None:
    blocks: list[NDArray[np.float32]] = [np.ones(3, np.float32), np.zeros(0, np.float32)]
    out = list(resample_blocks(blocks, 32_000, 32_000))
    assert all(a is b for a, b in zip(out, blocks, strict=True))


@pytest.mark.parametrize("rate", [0, -44_100, 1, 999, 2_000_000_000])
def test_rates_that_no_music_has(rate: int) -> None:
    # A block of 65 536 samples at 1 Hz would be two thousand million samples at 32 kHz.
    with pytest.raises(AudioError, match=f"sample rate of {rate} Hz"):
        next(resample_blocks([np.ones(65_536, np.float32)], rate, 32_000))
