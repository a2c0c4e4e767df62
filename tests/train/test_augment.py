"""Augmentation: nothing at strength 0, what it says otherwise, and silence after a clip's end whatever it does."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poolembed.train.augment import (
    WhiteNoise,
    add_noise,
    augment,
    change_gain,
    equalize,
    mask_stretches,
    mixup,
    resized_crop,
)
from poolembed.train.config import AugmentConfig
from tests.conftest import HOP, noise, tiny_network

FRONTEND = tiny_network().frontend
FLOOR = FRONTEND.config.log_floor
SILENCE = math.log(FLOOR)
EVERYTHING = AugmentConfig(
    gain_db=6, equalizer_db=6, low_pass=0.5, time_mask=0.3, band_mask=0.3, mixup=0.4, resized_crop=0.3
)
NOTHING = AugmentConfig()
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def crops(rows: int = 6, windows: int = 2, length: int = 20, bands: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Log-mels of clips of different lengths, the first of them whole, padded with silence."""
    random = np.random.default_rng(seed)
    mel = torch.from_numpy(random.normal(0, 3, (rows, windows * length, bands))).float().clamp_min(SILENCE)
    frames = torch.from_numpy(random.integers(1, windows * length + 1, rows))
    frames[0] = windows * length
    mel[torch.arange(windows * length) >= frames.unsqueeze(1)] = SILENCE
    return mel.unflatten(1, (windows, length)), frames  # type: ignore[no-untyped-call]


def padding(mel: Tensor, frames: Tensor) -> Tensor:
    flat = mel.flatten(1, 2)
    return flat[torch.arange(flat.shape[1]) >= frames.unsqueeze(1)]


def draw(rows: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((rows, 4))).float()


class TestAll:
    def test_strength_0_is_the_very_same(self) -> None:
        mel, frames = crops()
        assert augment(mel, frames, NOTHING, seed=0, step=0, log_floor=FLOOR) is mel
        mixed = mixup(mel, frames, 0, seed=0, step=0, log_floor=FLOOR)
        assert mixed.mel is mel
        assert mixed.frames is frames
        assert mixed.partner.tolist() == list(range(6))
        assert mixed.share.tolist() == [1] * 6

    @settings(max_examples=50)
    @given(
        st.floats(0, 30), st.floats(0, 0.99), st.floats(0, 0.99), st.floats(0, 0.99), st.integers(1, 4), st.integers(0)
    )
    def test_padding_stays_silent_and_nothing_is_below_silence(
        self, gain: float, time: float, band: float, crop: float, windows: int, seed: int
    ) -> None:
        config = AugmentConfig(gain_db=gain, time_mask=time, band_mask=band, resized_crop=crop)
        mel, frames = crops(windows=windows, seed=seed % 1000)
        before = mel.clone()
        made = augment(mel, frames, config, seed=seed, step=3, log_floor=FLOOR)
        assert made.shape == mel.shape
        assert made.dtype == mel.dtype
        assert bool(made.isfinite().all())
        assert torch.equal(padding(made, frames), torch.full_like(padding(made, frames), SILENCE))
        assert float(made.min()) >= SILENCE - 1e-5
        torch.testing.assert_close(mel, before, rtol=0, atol=0)

    def test_is_a_function_of_seed_step_and_rank(self) -> None:
        mel, frames = crops()

        def run(seed: int = 1, step: int = 2, rank: int = 0) -> tuple[Tensor, Tensor]:
            mixed = mixup(mel, frames, 1.0, seed=seed, step=step, rank=rank, log_floor=FLOOR)
            return augment(mel, frames, EVERYTHING, seed=seed, step=step, rank=rank, log_floor=FLOOR), mixed.mel

        for one, same in zip(run(), run(), strict=True):
            assert torch.equal(one, same)
        for other in (run(seed=2), run(step=3), run(rank=1)):
            for one, another in zip(run(), other, strict=True):
                assert not torch.equal(one, another)

    def test_rows_do_not_depend_on_each_other(self) -> None:
        mel, frames = crops()
        changed = mel.clone()
        changed[1:] += 1
        one, same = (augment(crop, frames, EVERYTHING, seed=0, step=0, log_floor=FLOOR)[0] for crop in (mel, changed))
        torch.testing.assert_close(one, same)

    @pytest.mark.parametrize("first", [1, 7, 20])
    def test_a_clip_that_begins_later_is_changed_as_it_would_be(self, first: int) -> None:
        """The frames before it, too, stay silent."""
        mel, frames = crops()
        later = torch.cat([torch.full((6, first, 12), SILENCE), mel.flatten(1, 2)], 1)
        expected = augment(mel, frames, EVERYTHING, seed=0, step=0, log_floor=FLOOR).flatten(1, 2)
        begins = torch.full_like(frames, first)
        made = augment(later.unsqueeze(1), frames, EVERYTHING, seed=0, step=0, log_floor=FLOOR, first=begins)[:, 0]
        assert torch.equal(made[:, :first], later[:, :first])
        # The places that a resized crop is taken from are of another grid: 1e-6 of 60 frames, times differences of 10.
        torch.testing.assert_close(made[:, first:], expected, rtol=0, atol=2e-3)

    @pytest.mark.parametrize("device", DEVICES)
    def test_every_device_computes_the_same(self, device: str) -> None:
        mel, frames = crops()
        expected = augment(mel, frames, EVERYTHING, seed=0, step=0, log_floor=FLOOR)
        made = augment(mel.to(device), frames.to(device), EVERYTHING, seed=0, step=0, log_floor=FLOOR)
        assert made.device.type == device
        torch.testing.assert_close(made.cpu(), expected, rtol=1e-4, atol=1e-3)
        mixed = mixup(mel, frames, 1.0, seed=0, step=0, log_floor=FLOOR)
        there = mixup(mel.to(device), frames.to(device), 1.0, seed=0, step=0, log_floor=FLOOR)
        for one, other in zip(mixed, there, strict=True):
            torch.testing.assert_close(one, other.cpu(), rtol=1e-5, atol=1e-5)


class TestGain:
    @settings(max_examples=40)
    @given(st.floats(-20, 20), st.integers(0, 5))
    def test_is_that_of_the_sound(self, gain: float, seed: int) -> None:
        samples = torch.from_numpy(noise(31 * HOP + 256, seed)).unsqueeze(0)
        samples[0, : 15 * HOP] = 0  # digital silence
        mel = FRONTEND(samples)
        expected = FRONTEND(samples * 10 ** (gain / 20))
        made = change_gain(mel.unsqueeze(1), torch.tensor([gain]), FLOOR)[:, 0]
        known = (mel > SILENCE + 1e-3) | (FRONTEND(samples * 1e6) <= SILENCE)
        assert known.float().mean() > 0.9
        torch.testing.assert_close(made[known], expected[known], rtol=0, atol=1e-3)
        assert bool((made[:, :10] == SILENCE).all())

    def test_0_changes_nothing(self) -> None:
        mel, _ = crops()
        assert torch.equal(change_gain(mel, torch.zeros(6), FLOOR), mel)

    def test_is_as_strong_as_it_is_said_to_be(self) -> None:
        mel = torch.zeros(500, 1, 2, 3)
        made = augment(mel, torch.full((500,), 2), AugmentConfig(gain_db=6), seed=0, step=0, log_floor=FLOOR)
        decibels = 10 / math.log(10) * made
        assert bool((decibels == decibels[:, :1, :1, :1]).all())
        assert 5.9 < float(decibels.max()) <= 6.0
        assert -6.0 <= float(decibels.min()) < -5.9
        assert abs(float(decibels.mean())) < 0.5


class TestEqualizer:
    def test_levels_that_are_all_the_same_are_a_gain(self) -> None:
        mel, _ = crops()
        made = equalize(mel, 8, torch.full((6, 4), 0.75), FLOOR)
        torch.testing.assert_close(made, change_gain(mel, torch.full((6,), 4.0), FLOOR))

    def test_is_a_line_through_the_levels(self) -> None:
        drawn = torch.tensor([[0.0, 0.5, 1.0], [1.0, 0.75, 0.0]])
        made = 10 / math.log(10) * equalize(torch.zeros(2, 3, 4, 9), 12, drawn, FLOOR)
        for row, levels in enumerate(([-12, 0, 12], [12, 6, -12])):
            expected = torch.from_numpy(np.interp(np.arange(9), [0, 4, 8], levels)).float()
            torch.testing.assert_close(made[row], expected.expand(3, 4, 9))

    def test_is_as_strong_as_it_is_said_to_be(self) -> None:
        mel = torch.zeros(500, 1, 2, 32)
        config = AugmentConfig(equalizer_db=9)
        made = 10 / math.log(10) * augment(mel, torch.full((500,), 2), config, seed=0, step=0, log_floor=FLOOR)
        assert 8.9 < float(made.max()) <= 9.001
        assert -9.001 <= float(made.min()) < -8.9
        assert float((made.amax(-1) - made.amin(-1)).mean()) > 6  # each row a curve of its own, not a gain


class TestLowPass:
    def test_what_is_above_a_band_is_silent_and_the_rest_untouched(self) -> None:
        mel = torch.ones(400, 2, 3, 20)
        config = AugmentConfig(low_pass=0.3)
        made = augment(mel, torch.full((400,), 6), config, seed=0, step=0, log_floor=FLOOR)
        lost = (made == SILENCE)[:, 0, 0]
        assert torch.equal(made, torch.where(lost[:, None, None], SILENCE, mel))
        counts = lost.sum(1)
        assert bool((lost.int().diff() >= 0).all())  # the upper ones
        assert int(counts.max()) == 7  # of 20, less than 0.4 of which are lost
        assert 0.2 < float((counts > 0).float().mean()) < 0.4


class TestNoise:
    NOISE = WhiteNoise(FRONTEND)

    def test_it_is_that_of_the_waveform(self) -> None:
        """A tone, and the tone with white noise 20 dB below: the power that noise adds to each band, on average."""
        rate = FRONTEND.config.sample_rate
        random = np.random.default_rng(1)
        tone = 0.5 * np.sin(2 * np.pi * 0.11 * np.arange(4 * rate))
        hiss = random.normal(0, 0.5 / math.sqrt(2) / 10, len(tone))
        plain, both = (FRONTEND(torch.from_numpy(x).float().unsqueeze(0)) for x in (tone, tone + hiss))
        drawn = torch.tensor([[0.0, 0.5, 0.0, 0.3]])
        made = add_noise(plain.unsqueeze(1), torch.tensor([plain.shape[1]]), 0.5, drawn, self.NOISE)
        quiet = plain[0].mean(0) < math.log(1e-3)
        assert int(quiet.sum()) >= 4
        expected, found = (mel.reshape(-1, mel.shape[-1]).exp().mean(0)[quiet].log() for mel in (both, made))
        assert found.numpy() == pytest.approx(expected.numpy(), abs=0.5)  # 2 dB

    def test_a_share_of_the_clips_and_nothing_beside_them(self) -> None:
        mel, frames = crops(rows=200, bands=FRONTEND.config.n_mels)
        first = torch.full_like(frames, 3)
        mel = torch.cat([torch.full_like(mel[:, :, :3], SILENCE), mel], 2)
        made = augment(
            mel, frames, AugmentConfig(noise=0.3), seed=0, step=0, log_floor=FLOOR, first=first, noise=self.NOISE
        )
        changed = (made != mel).flatten(1).any(1)
        assert 0.2 < float(changed.float().mean()) < 0.4
        time = torch.arange(mel.shape[1] * mel.shape[2])
        beside = (time < 3) | (time >= (first + frames).unsqueeze(1))
        assert torch.equal(made.flatten(1, 2)[beside], mel.flatten(1, 2)[beside])
        assert bool((made >= mel - 1e-5).all())


class TestMasks:
    def masked(self, time: float, band: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """What was masked, ``(R, frames, bands)``; the crops are noise, in which no value is the mean."""
        mel, frames = crops(rows=200, seed=seed)
        made = mask_stretches(mel, frames, time, band, draw(200, seed))
        changed = made != mel
        for row, count in enumerate(frames.tolist()):
            mean = mel[row].flatten(0, 1)[:count].mean()
            torch.testing.assert_close(made[row][changed[row]], mean.expand(int(changed[row].sum())))
        return changed.flatten(1, 2), frames, mel

    def test_one_stretch_of_time(self) -> None:
        changed, frames, _ = self.masked(0.5, 0)
        assert bool((changed == changed[:, :, :1]).all())  # all bands or none
        lengths = []
        for row, count in zip(changed[:, :, 0], frames.tolist(), strict=True):
            where = row.nonzero().flatten().tolist()
            assert where == list(range(where[0], where[0] + len(where))) if where else True
            assert len(where) <= count / 2
            assert not where or where[-1] < count
            lengths.append(len(where) / count)
        assert max(lengths) > 0.45
        assert min(lengths) == 0
        assert 0.15 < float(np.mean(lengths)) < 0.3

    def test_one_stretch_of_bands(self) -> None:
        changed, frames, _ = self.masked(0, 0.25)
        touched = []
        for row, count in zip(changed, frames.tolist(), strict=True):
            assert bool((row[:count] == row[:1]).all())
            assert not row[count:].any()
            where = row[0].nonzero().flatten().tolist()
            assert where == list(range(where[0], where[0] + len(where))) if where else True
            touched.append(len(where))
        assert set(touched) == {0, 1, 2, 3}  # of 12

    def test_both_cross(self) -> None:
        both, _, _ = self.masked(0.5, 0.25)
        time, _, _ = self.masked(0.5, 0)
        band, _, _ = self.masked(0, 0.25)
        assert torch.equal(both, time | band)


def slow_crop(mel: Tensor, frames: Tensor, strength: float, drawn: Tensor) -> Tensor:
    """Value by value, from the definition."""

    def source(index: int, size: float, length: float, place: float) -> float:
        scale = 1 + strength * (2 * length - 1)
        return (index + 0.5) * scale + place * size * (1 - scale) - 0.5

    flat = mel.flatten(1, 2).double().numpy()
    rows, _, bands = flat.shape
    made = np.full_like(flat, SILENCE)
    for row in range(rows):
        count, (t_length, t_place, b_length, b_place) = int(frames[row]), drawn[row].double().tolist()

        def value(t: int, b: int, row: int = row, count: int = count) -> float:
            return float(flat[row, t, b]) if 0 <= t < count and 0 <= b < bands else SILENCE

        for t in range(count):
            x = source(t, count, t_length, t_place)
            for b in range(bands):
                y = source(b, bands, b_length, b_place)
                t0, b0 = math.floor(x), math.floor(y)
                made[row, t, b] = sum(
                    (1 - abs(x - at)) * (1 - abs(y - bt)) * value(at, bt) for at in (t0, t0 + 1) for bt in (b0, b0 + 1)
                )
    return torch.from_numpy(made).reshape(mel.shape)


class TestResizedCrop:
    @settings(max_examples=20)
    @given(st.floats(0.01, 0.95), st.integers(0, 1000))
    def test_is_bilinear(self, strength: float, seed: int) -> None:
        mel, frames = crops(rows=3, length=9, bands=7, seed=seed)
        drawn = draw(3, seed)
        made = resized_crop(mel, frames, strength, drawn, FLOOR)
        torch.testing.assert_close(made.double(), slow_crop(mel, frames, strength, drawn), rtol=0, atol=2e-3)

    def test_no_change_of_scale_changes_nothing(self) -> None:
        mel, frames = crops()
        made = resized_crop(mel, frames, 0.5, torch.full((6, 4), 0.5), FLOOR)
        torch.testing.assert_close(made, mel, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("place", [0.0, 0.3, 1.0])
    def test_half_the_clip_takes_all_its_time(self, place: float) -> None:
        ramp = torch.arange(40.0).reshape(1, 2, 20, 1).expand(-1, -1, -1, 5)
        drawn = torch.tensor([[0.0, place, 0.5, 0.0]])
        made = resized_crop(ramp, torch.tensor([40]), 0.5, drawn, FLOOR).flatten(1, 2)[0, :, 2]
        expected = (torch.arange(40) + 0.5) / 2 + 20 * place - 0.5
        torch.testing.assert_close(made[1:-1], expected[1:-1], rtol=0, atol=1e-4)

    def test_a_faster_clip_lies_between_silences(self) -> None:
        loud = torch.full((1, 2, 20, 6), 3.0)
        made = resized_crop(loud, torch.tensor([40]), 0.5, torch.tensor([[1.0, 0.5, 0.5, 0.0]]), FLOOR)
        heard = (made.flatten(1, 2)[0, :, 3] > 2.9).nonzero().flatten()
        assert abs(len(heard) - 40 / 1.5) <= 2
        assert abs(float(heard.float().mean()) - 19.5) < 1


class TestMixup:
    def test_adds_the_powers(self) -> None:
        mel, frames = crops()
        mixed = mixup(mel, frames, 0.7, seed=1, step=2, log_floor=FLOOR)
        assert sorted(mixed.partner.tolist()) == list(range(6))
        share = mixed.share.reshape(-1, 1, 1, 1).double()
        power = share * mel.double().exp() + (1 - share) * mel[mixed.partner].double().exp()
        torch.testing.assert_close(mixed.mel.double(), power.log(), rtol=0, atol=1e-4)
        assert mixed.frames.tolist() == torch.maximum(frames, frames[mixed.partner]).tolist()
        assert bool((padding(mixed.mel, mixed.frames) - SILENCE).abs().max() < 1e-5)
        assert float(mixed.mel.min()) >= SILENCE - 1e-6

    @pytest.mark.parametrize("strength", [0.05, 0.4, 5.0])
    def test_shares(self, strength: float) -> None:
        mel, frames = crops(rows=2000, windows=1, length=1, bands=1)
        share = mixup(mel, frames, strength, seed=0, step=0, log_floor=FLOOR).share.double().numpy()
        assert share.min() >= 0.5
        assert share.max() <= 1
        # The larger half of a symmetric Beta(a, a), whose variance is 1 / (4 (2 a + 1)).
        assert np.mean((share - 0.5) ** 2) == pytest.approx(1 / (4 * (2 * strength + 1)), rel=0.1)
        # All of the sound is one clip's when the share is 1, to the bit.
        alone = torch.logaddexp(mel, mel - torch.inf)
        assert torch.equal(alone, mel)

    def test_mixing_a_clip_with_itself_changes_nothing(self) -> None:
        mel, frames = crops(rows=1)
        mixed = mixup(mel, frames, 1.0, seed=0, step=0, log_floor=FLOOR)
        torch.testing.assert_close(mixed.mel, mel, rtol=0, atol=1e-5)


@pytest.mark.parametrize("change", [lambda mel: mel[..., :1], lambda mel: mel[:, :, :1]])
def test_one_band_and_one_frame(change: Callable[[Tensor], Tensor]) -> None:
    mel = change(crops()[0])
    frames = torch.full((6,), mel.shape[1] * mel.shape[2])
    assert augment(mel, frames, EVERYTHING, seed=0, step=0, log_floor=FLOOR).shape == mel.shape
