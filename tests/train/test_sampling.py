"""Every batch is a function of the seed and the step, and the crops are what they should be."""

from __future__ import annotations

import time
from collections import Counter

import msgspec
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from poolembed.compare.config import small_model
from poolembed.errors import UsageError
from poolembed.labels import Clip
from poolembed.train.cache import MelCache, dequantise
from poolembed.train.sampling import (
    Batch,
    Crops,
    Prefetcher,
    Sampler,
    crop_windows,
    epoch_order,
    generator,
    window_starts,
)
from tests.conftest import HOP, RATE, noise, tiny_config, tiny_network
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_new_threads")

FRAMES = 32
LENGTHS = (1, 31, 32, 33, 64, 100, 320)  # mel frames of the clips


class TestGenerator:
    def test_draws_the_same_numbers_everywhere(self) -> None:
        """Golden: a resumed run may be on another machine, with another NumPy."""
        assert generator(0, "test").integers(0, 1000, 5).tolist() == [347, 436, 68, 555, 606]
        assert epoch_order(8, 3, 1).tolist() == [3, 1, 5, 7, 0, 2, 6, 4]

    def test_every_purpose_seed_and_step_has_its_own(self) -> None:
        keys: list[tuple[int, str, tuple[int, ...]]] = [
            (seed, purpose, numbers)
            for seed in (0, 1, 2**32, 2**70)
            for purpose in ("a", "b")
            for numbers in ((), (0,), (1,), (0, 0), (0, 1), (10,))
        ]
        first = {tuple(generator(s, p, *n).integers(0, 2**63, 2)) for s, p, n in keys}
        assert len(first) == len(keys)


class TestSampler:
    @given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 5), st.integers(1, 3))
    def test_an_epoch_sees_every_clip_at_most_once(self, n: int, size: int, epoch: int, views: int) -> None:
        numbers = [7 * i for i in range(n)]
        sampler = Sampler(numbers, batch_size=size, seed=1, views=views)
        seen = []
        for step in range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch):
            clips = sampler.clips(step).reshape(views, -1)
            assert (clips == clips[0]).all()
            assert clips.shape[1] == min(size, n)
            seen += clips[0].tolist()
        assert len(set(seen)) == len(seen) > n - min(size, n)
        assert set(seen) <= set(numbers)

    def test_epochs_differ_and_leave_nobody_out(self) -> None:
        sampler = Sampler(range(10), batch_size=4, seed=0)
        epochs = [np.concatenate([sampler.clips(2 * e), sampler.clips(2 * e + 1)]).tolist() for e in range(20)]
        assert len(set(map(tuple, epochs))) == 20
        assert {clip for epoch in epochs for clip in epoch} == set(range(10))
        assert Sampler(range(10), batch_size=4, seed=1).clips(0).tolist() != sampler.clips(0).tolist()

    @pytest.mark.parametrize("ranks", [1, 2, 3])
    def test_processes_share_what_one_would_have(self, ranks: int) -> None:
        labels = [["a"], ["b"]] * 20
        options = {"batch_size": 8, "seed": 5}
        whole = Sampler(range(40), views=2, partners=labels, **options)
        parts = [Sampler(range(40), views=2, partners=labels, rank=r, ranks=ranks, **options) for r in range(ranks)]
        for step in range(7):
            expected = whole.clips(step).reshape(2, -1)
            spare = np.full(16, 50)
            starts = whole.starts(step, spare).reshape(2, -1)
            for rank, part in enumerate(parts):
                clips = part.clips(step)
                np.testing.assert_array_equal(clips.reshape(2, -1), expected[:, rank::ranks])
                mine = part.starts(step, np.full(len(clips), 50))
                np.testing.assert_array_equal(mine.reshape(2, -1), starts[:, rank::ranks])

    def test_too_few_clips_for_the_processes(self) -> None:
        with pytest.raises(UsageError, match="too few for 4"):
            Sampler(range(3), batch_size=8, seed=0, ranks=4)
        with pytest.raises(UsageError):
            Sampler([], batch_size=8, seed=0)

    def test_crops_begin_anywhere_they_can(self) -> None:
        sampler = Sampler(range(4), batch_size=4, seed=0)
        spare = np.array([-3, 0, 1, 9])
        starts = np.stack([sampler.starts(step, spare) for step in range(3000)])
        assert (starts >= 0).all()
        assert (starts <= np.maximum(spare, 0)).all()
        counts = np.bincount(starts[:, 3], minlength=10)
        # Chi-square with 9 degrees of freedom; beyond 27.9 in one of a thousand seeds.
        assert ((counts - 300) ** 2 / 300).sum() < 27.9
        assert abs(starts[:, 2].mean() - 0.5) < 0.05

    def test_or_a_little_before_the_clip(self) -> None:
        sampler = Sampler(range(4), batch_size=4, seed=0)
        spare, ahead = np.array([-3, 0, 2, 9]), np.array([4, 4, 2, 0])
        starts = np.stack([sampler.starts(step, spare, ahead) for step in range(3000)])
        for column, (least, most) in enumerate(zip(-ahead, np.maximum(spare, 0), strict=True)):
            values, counts = np.unique(starts[:, column], return_counts=True)
            assert values.tolist() == list(range(least, most + 1))
            expected = 3000 / len(values)
            assert ((counts - expected) ** 2 / expected).sum() < 27.9  # as above; fewer degrees of freedom, if anything
        np.testing.assert_array_equal(sampler.starts(5, spare, 0), sampler.starts(5, spare))

    def test_views_of_a_clip_are_cropped_apart(self) -> None:
        sampler = Sampler(range(8), batch_size=8, seed=0, views=2)
        starts = sampler.starts(0, np.full(16, 1000)).reshape(2, -1)
        assert (starts[0] != starts[1]).any()
        assert (sampler.starts(1, np.full(16, 1000)) != starts.reshape(-1)).any()


class TestPartners:
    LABELS: tuple[list[str], ...] = (["a"], ["a"], ["a", "b"], ["b"], ["lonely"], [], ["a", "lonelier"])

    def pairs(self) -> Counter[tuple[int, int]]:
        sampler = Sampler([10 + i for i in range(7)], batch_size=7, seed=0, views=2, partners=self.LABELS)
        count: Counter[tuple[int, int]] = Counter()
        for step in range(400):
            first, second = sampler.clips(step).reshape(2, -1).tolist()
            count.update(zip(first, second, strict=True))
        return count

    def test_share_a_label_and_are_never_the_clip_itself_unless_it_is_alone(self) -> None:
        for (first, second), _ in self.pairs().items():
            mine, theirs = self.LABELS[first - 10], self.LABELS[second - 10]
            if first in (14, 15):
                assert first == second
            else:
                assert first != second
                assert set(mine) & set(theirs)

    def test_every_partner_is_as_likely(self) -> None:
        pairs = self.pairs()
        for first, partners in {10: (11, 12, 16), 16: (10, 11, 12)}.items():
            counts = np.array([pairs[first, second] for second in partners])
            assert counts.sum() == 400
            assert ((counts - 400 / 3) ** 2 / (400 / 3)).sum() < 13.8  # 2 degrees of freedom, one seed of a thousand

    def test_labels_are_drawn_first(self) -> None:
        """A clip of a common and a rare label has as many partners of the one as of the other."""
        pairs = self.pairs()
        assert 150 < pairs[12, 13] < 250


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> tuple[MelCache, list[int | None]]:
    """One clip of each length, and one that could not be decoded."""
    root = tmp_path_factory.mktemp("clips")
    clips = []
    for seed, frames in enumerate(LENGTHS):
        soundfile.write(root / f"{seed}.wav", noise((frames - 1) * HOP + 1, seed), RATE, subtype="FLOAT")
        clips.append(Clip(str(root / f"{seed}.wav"), str(seed), {}))
    clips.insert(2, Clip(str(root / "gone.wav"), "gone", {}))
    cache = MelCache(root / "cache", tiny_network().frontend, before=True)
    rows = cache.fill(clips, workers=2, limit_gb=1).rows
    assert [cache.frames(row) for row in rows if row is not None] == list(LENGTHS)
    return cache, rows


NUMBERS = (0, 1, 3, 4, 5, 6, 7)  # those of the clips that were decoded


def behind(mels: MelCache, row: int) -> NDArray[np.uint8]:
    """Levels of a clip with the frames after it that still reach its samples: 2, for half an FFT is 1.6 hops."""
    return mels.with_edges(row)[-(mels.frames(row) + 2) :]


def rows_of(rows: list[int | None], batch: Batch) -> list[int]:
    """Where the cache has the clips of a batch."""
    return [row for clip in batch.clips.tolist() if (row := rows[clip]) is not None]


class TestCrops:
    @pytest.mark.parametrize("windows", [1, 2, 5])
    def test_are_stretches_of_the_clips(self, cache: tuple[MelCache, list[int | None]], windows: int) -> None:
        mels, rows = cache
        crops = Crops(mels, rows, window_frames=FRAMES)
        sampler = Sampler(NUMBERS, batch_size=7, seed=0, views=2)
        length = windows * FRAMES
        begun = set()
        for step in range(20):
            batch = crops.batch(sampler, step, windows)
            assert batch.mel.shape == (14, windows, FRAMES, mels.n_mels)
            assert batch.mel.dtype == torch.uint8
            assert batch.clips.tolist() == sampler.clips(step).tolist()
            for mel, frames, row in zip(batch.mel, batch.frames, rows_of(rows, batch), strict=True):
                whole = behind(mels, row)
                assert frames == min(mels.frames(row), length)
                flat = mel.flatten(0, 1).numpy()
                (start,) = [
                    at
                    for at in range(max(1, mels.frames(row) - length + 1))
                    if np.array_equal(flat[:frames], whole[at : at + int(frames)])
                ]
                begun.add((row, start))
                tail = whole[start:][:length]
                np.testing.assert_array_equal(flat[: len(tail)], tail)
                assert not flat[len(tail) :].any()
        longest = [start for row, start in begun if row == len(LENGTHS) - 1]
        assert len(longest) > 15

    @pytest.mark.parametrize("windows", [1, 2, 5])
    def test_with_context_are_the_same_with_more_beside_them(
        self, cache: tuple[MelCache, list[int | None]], windows: int
    ) -> None:
        mels, rows = cache
        before, after = context = (FRAMES + 3, 4)
        sampler = Sampler(NUMBERS, batch_size=7, seed=0, views=2)
        plain, wide = (Crops(mels, rows, window_frames=FRAMES, context=each) for each in ((0, 0), context))
        for step in range(10):
            one, other = plain.batch(sampler, step, windows), wide.batch(sampler, step, windows)
            assert other.mel.shape == (14, 1, before + windows * FRAMES + after, mels.n_mels)
            assert torch.equal(other.mel[:, 0, before:-after], one.mel.flatten(1, 2))
            assert torch.equal(other.frames, one.frames)
            for mel, frames, heard, row in zip(
                other.mel, other.frames, other.heard.tolist(), rows_of(rows, other), strict=True
            ):
                whole, length = mels.clip(row), mels.frames(row)
                first, last = heard
                (start,) = [
                    at for at in range(length) if np.array_equal(mel[0, first:last], whole[at : at + last - first])
                ]
                assert first == 0 or start == 0, "silence before the clip, or as much of it as there is room for"
                assert last == before + windows * FRAMES + after or start + last - first == length
                assert frames == min(last - before, windows * FRAMES)
            assert one.heard.tolist() == [[0, frames] for frames in one.frames]

    @pytest.mark.parametrize("context", [False, True])
    @pytest.mark.parametrize("windows", [1, 2])
    def test_begin_before_the_clip_if_asked_to(
        self, cache: tuple[MelCache, list[int | None]], windows: int, context: bool
    ) -> None:
        """By every offset up to the shift; and what is pooled is the clip alone, however short it is."""
        mels, rows = cache
        encoder = msgspec.structs.replace(tiny_config().encoder, context=context, window_frames=FRAMES)
        network = tiny_network(msgspec.structs.replace(tiny_config(), encoder=encoder))
        crops, shift = Crops.of(mels, rows, encoder, shift=5), 5
        sampler, length = Sampler(NUMBERS, batch_size=7, seed=0, views=2), windows * FRAMES
        before = encoder.context_frames[0]
        offsets: dict[int, set[int]] = {}
        for step in range(40):
            batch = crops.batch(sampler, step, windows)
            for mel, start, frames, row in zip(batch.mel, batch.start, batch.frames, rows_of(rows, batch), strict=True):
                offsets.setdefault(mels.frames(row), set()).add(int(start))
                flat = mel.flatten(0, 1)[before:].numpy()
                if start:
                    assert frames == min(mels.frames(row), length - start)
                    np.testing.assert_array_equal(flat[start : start + frames], mels.clip(row)[:frames])
                    assert not flat[: max(start - 1, 0)].any(), "the frame before the first still reaches its samples"
            with torch.no_grad():  # which raises where nothing is left to pool
                features = network.clip_features(dequantise(batch.mel, mels.log_floor))
                state = network.fold(features, batch.start, batch.start + batch.frames)
                assert bool(network.finalize(state).isfinite().all())
        for frames, seen in offsets.items():
            most = 0 if frames < encoder.time_reduction else min(shift, length - encoder.time_reduction)
            assert max(seen) <= most
            if frames <= length:
                assert seen == set(range(most + 1))

    def test_a_shift_by_whole_strides_leaves_the_embedding_of_a_model_with_context(
        self, cache: tuple[MelCache, list[int | None]]
    ) -> None:
        mels, rows = cache
        encoder = msgspec.structs.replace(tiny_config().encoder, context=True, window_frames=4 * FRAMES)
        network = tiny_network(msgspec.structs.replace(tiny_config(), encoder=encoder))
        crops, numbers = Crops.of(mels, rows, encoder), np.array([0, 1, 3, 4])

        def embedded(start: int) -> torch.Tensor:
            batch = crops.cut(numbers, np.full(4, start), 1)
            features = network.clip_features(dequantise(batch.mel, mels.log_floor))
            return network.finalize(network.fold(features, batch.start, batch.start + batch.frames)).detach()

        for strides in (1, 2, 3):
            torch.testing.assert_close(embedded(-strides * encoder.time_reduction), embedded(0), rtol=0, atol=1e-5)

    def test_are_a_function_of_the_step(self, cache: tuple[MelCache, list[int | None]]) -> None:
        crops = Crops(*cache, window_frames=FRAMES)

        def batches(steps: list[int]) -> dict[int, NDArray[np.uint8]]:
            sampler = Sampler(NUMBERS, batch_size=3, seed=4)
            return {step: crops.batch(sampler, step, 2).mel.numpy() for step in steps}

        forwards, alone = batches([0, 1, 2, 3, 4, 5]), batches([5, 2])
        for step, mel in alone.items():
            np.testing.assert_array_equal(mel, forwards[step])

    @pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
    def test_whole_clips_are_whole(self, cache: tuple[MelCache, list[int | None]], batch_size: int) -> None:
        mels, rows = cache
        crops = Crops(mels, rows, window_frames=FRAMES)
        order = [7, 0, 3, 1, 6]
        batches = list(crops.whole(order, batch_size))
        assert all(len(batch.mel) == batch_size for batch in batches[:-1])
        assert all(batch.mel.shape[1] == 1 for batch in batches)
        clips = torch.cat([batch.clips for batch in batches])
        assert list(dict.fromkeys(clips.tolist())) == order
        for number in order:
            mine = clips == number
            frames = torch.cat([batch.frames for batch in batches])[mine]
            levels = torch.cat([batch.mel for batch in batches])[mine].flatten(0, 2).numpy()
            row = rows[number]
            assert row is not None
            assert frames[:-1].tolist() == [FRAMES] * (len(frames) - 1)
            assert frames.sum() == mels.frames(row)
            np.testing.assert_array_equal(levels[: mels.frames(row)], mels.clip(row))
            whole = behind(mels, row)
            np.testing.assert_array_equal(levels[: len(whole)], whole[: len(levels)])
            assert not levels[len(whole) :].any()

    def test_no_clips(self, cache: tuple[MelCache, list[int | None]]) -> None:
        assert list(Crops(*cache, window_frames=FRAMES).whole([], 3)) == []

    @given(st.lists(st.integers(1, 200), min_size=1), st.integers(1, 50))
    def test_window_starts(self, frames: list[int], window: int) -> None:
        clips = np.arange(len(frames))[::-1]
        numbers, starts = window_starts(clips, np.array(frames), window)
        expected = [(clip, start) for clip in clips for start in range(0, frames[clip], window)]
        assert list(zip(numbers, starts, strict=True)) == expected

    def test_moving(self, cache: tuple[MelCache, list[int | None]]) -> None:
        batch = Crops(*cache, window_frames=FRAMES).batch(Sampler(NUMBERS, batch_size=3, seed=4), 0, 1)
        moved = batch.to(torch.device("meta"))
        assert {tensor.device.type for tensor in vars(moved).values()} == {"meta"}
        assert batch.mel.device.type == "cpu"


class TestCropWindows:
    @pytest.mark.parametrize(
        ("seconds", "windows"), [(0.1, 1), (2.048, 1), (2.0484, 1), (2.049, 2), (4.096, 2), (4.0964, 2), (60.0, 30)]
    )
    def test_seconds_count_to_the_millisecond(self, seconds: float, windows: int) -> None:
        """Of `compare`'s small model a window is 2.048 s; `train` and `compare` ask here."""
        assert crop_windows(small_model(), seconds, 1) == windows

    @pytest.mark.parametrize(("longest", "windows"), [(1, 1), (64, 1), (65, 2), (320, 5), (10_000, 5)])
    def test_by_itself_a_crop_has_the_longest_clip_up_to_ten_seconds(self, longest: int, windows: int) -> None:
        assert crop_windows(small_model(), None, longest) == windows


class TestPrefetcher:
    def test_makes_everything_in_order(self) -> None:
        with Prefetcher(lambda number: number**2, range(50)) as squares:
            assert list(squares) == [number**2 for number in range(50)]
            assert list(squares) == []

    def test_an_error_comes_in_its_place(self) -> None:
        def make(number: int) -> int:
            if number == 3:
                raise ValueError("three")
            return number

        taken: list[int] = []
        with pytest.raises(ValueError, match="three"), Prefetcher(make, range(50)) as numbers:
            for number in numbers:
                taken.append(number)
        assert taken == [0, 1, 2]

    def test_keeps_only_a_few_ahead(self) -> None:
        made: list[int] = []
        with Prefetcher(made.append, range(1000), ahead=2) as things:
            next(things)
            wait_until(lambda: len(made) == 1 + 2 + 1)  # taken, waiting, in hand
            time.sleep(0.1)  # time to make one too many
            assert len(made) == 4

    @pytest.mark.parametrize("taken", [0, 1, 5])
    def test_ends_when_it_is_left(self, taken: int) -> None:
        with Prefetcher(lambda number: number, range(1000)) as numbers:
            for _ in range(taken):
                next(numbers)
        assert list(numbers) == []  # and no thread is left, which no_new_threads sees to

    def test_says_how_long_was_waited(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = iter([10.0, 12.5, 20.0, 20.25, 30.0, 30.0])
        monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
        with Prefetcher(lambda number: number, range(2)) as numbers:
            assert numbers.waited == 0
            assert next(numbers) == 0
            assert numbers.waited == 2.5
            list(numbers)
            assert numbers.waited == 2.75
