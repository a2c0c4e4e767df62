"""The cache holds what embedding computes, and holds it whatever happens to it."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from poolembed.embed.windows import WindowShape
from poolembed.errors import OutputError
from poolembed.labels import Clip
from poolembed.nn.config import FrontendConfig
from poolembed.nn.frontend import LogMel
from poolembed.train import cache as cache_module
from poolembed.train import decoding, shards
from poolembed.train.cache import STEP, Filled, MelCache, dequantise, quantise
from poolembed.train.sampling import Crops
from tests.conftest import HOP, RATE, noise, slow_windows, tiny_network

pytestmark = pytest.mark.usefixtures("no_new_threads")

FRONTEND = tiny_network().frontend
CONFIG = FRONTEND.config
FLOOR = CONFIG.log_floor
N_FFT = CONFIG.n_fft
EDGE = 256 * HOP  # samples of one chunk
LENGTHS = (1, HOP - 1, HOP, N_FFT, 32 * HOP - 1, 32 * HOP, EDGE - HOP, EDGE - 1, EDGE, EDGE + N_FFT // 2, 3 * EDGE + 77)


def clip(path: Path | str, start: float = 0.0, end: float | None = None, key: str | None = None) -> Clip:
    name = key or f"{Path(path).name}#{start},{end}"
    return Clip(path=str(path), key=name, labels={}, start=start, end=end)


def fill(cache: MelCache, clips: Sequence[Clip], **options: Any) -> Filled:
    return cache.fill(clips, **{"workers": 2, "limit_gb": 1.0, **options})


def write(path: Path, samples: NDArray[np.float32], rate: int = RATE) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("songs")
    return [write(root / f"{seed}.wav", noise(length, seed)) for seed, length in enumerate(LENGTHS)]


def expected_levels(samples: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The definition: every frame of the padded song in one window."""
    frames = 1 + len(samples) // HOP
    padded = np.concatenate([np.zeros(N_FFT // 2), samples, np.zeros(N_FFT)])[: (frames - 1) * HOP + N_FFT]
    levels: NDArray[np.uint8] = quantise(FRONTEND(torch.from_numpy(padded).float()[None])[0], FLOOR).numpy()
    return levels


def assert_close(levels: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """Equal but for the few values that rounding pushes over the edge of a level."""
    assert levels.shape == expected.shape
    difference = np.abs(levels.astype(int) - expected.astype(int))
    assert difference.max(initial=0) <= 1
    assert np.count_nonzero(difference) <= 1e-3 * difference.size


class TestLevels:
    @given(st.lists(st.floats(-40, 40), min_size=1), st.sampled_from([1e-5, 1e-10, 0.5]))
    def test_half_a_step_at_most_is_lost(self, values: list[float], floor: float) -> None:
        log_mel = torch.tensor(values, dtype=torch.float64)
        reached = log_mel.clamp(np.log(floor), np.log(floor) + 255 * STEP)
        restored = dequantise(quantise(log_mel, floor), floor).double()
        torch.testing.assert_close(restored, reached, rtol=0, atol=STEP / 2 + 1e-5)

    def test_silence_is_level_0_and_level_0_is_silence(self) -> None:
        assert quantise(torch.tensor(np.log(1e-5)), 1e-5) == 0
        assert dequantise(torch.tensor(0, dtype=torch.uint8), 1e-5) == torch.tensor(float(np.log(1e-5)))

    def test_every_level_comes_back(self) -> None:
        levels = torch.arange(256, dtype=torch.uint8)
        torch.testing.assert_close(quantise(dequantise(levels, 1e-5), 1e-5), levels)

    def test_infinite_values_stay_in_range(self) -> None:
        assert quantise(torch.tensor([-torch.inf, torch.inf]), 1e-5).tolist() == [0, 255]


class TestFrames:
    def test_are_those_of_the_song(self, songs: list[Path], tmp_path: Path) -> None:
        cache = MelCache(tmp_path, FRONTEND)
        filled = fill(cache, [clip(song) for song in songs])
        assert not filled.failed
        for row, seconds, seed, length in zip(filled.rows, filled.seconds, range(99), LENGTHS, strict=False):
            assert row is not None
            assert seconds == length / RATE
            assert cache.frames(row) == 1 + length // HOP
            assert_close(cache.clip(row), expected_levels(noise(length, seed)))

    @pytest.mark.parametrize("context", [(0, 0), (1, 0), (7, 5), (40, 50)])
    def test_windows_cut_from_it_are_those_that_embedding_sees(
        self, songs: list[Path], tmp_path: Path, context: tuple[int, int]
    ) -> None:
        """What is beside a clip included: what an encoder sees there is what it will see when embedding."""
        cache = MelCache(tmp_path, FRONTEND, before=any(context))
        filled = fill(cache, [clip(song) for song in songs])
        crops = Crops(cache, filled.rows, window_frames=32, context=context)
        for number, length in enumerate(LENGTHS):
            expected = slow_windows(noise(length, number), WindowShape(32, HOP, N_FFT, *context))
            batches = list(crops.whole([number], 3))
            mel = torch.cat([batch.mel for batch in batches])
            assert torch.cat([batch.frames for batch in batches]).tolist() == [frames for _, frames in expected]
            samples = torch.from_numpy(np.stack([samples for samples, _ in expected]))
            assert_close(mel[:, 0].numpy(), quantise(FRONTEND(samples), FLOOR).numpy())

    def test_of_a_file_at_another_rate_in_stereo(self, tmp_path: Path) -> None:
        stereo = np.stack([noise(30_000, 5), noise(30_000, 6)], axis=1)
        soundfile.write(tmp_path / "stereo.flac", stereo, 44_100)
        cache = MelCache(tmp_path / "cache", FRONTEND)
        (row,) = fill(cache, [clip(tmp_path / "stereo.flac")]).rows
        assert row is not None
        assert abs(cache.frames(row) - (1 + 30_000 * RATE // 44_100 // HOP)) <= 1
        assert cache.clip(row).std() > 5

    def test_an_excerpt_is_a_song_of_its_own(self, songs: list[Path], tmp_path: Path) -> None:
        song, samples = songs[-1], noise(LENGTHS[-1], len(LENGTHS) - 1)
        spans = [(0.5, 1.25), (0.0, 0.01), (2.0, None), (0.5, 1.25), (1.0, 99.0), (0.0, 2.0)]
        cache = MelCache(tmp_path / "cache", FRONTEND)
        filled = fill(cache, [clip(song, *span) for span in spans])
        for (start, end), row in zip(spans, filled.rows, strict=True):
            assert row is not None
            part = samples[round(start * RATE) : None if end is None else round(end * RATE)]
            assert_close(cache.clip(row), expected_levels(part))
        assert filled.rows[0] == filled.rows[3]
        assert "ends early: 6.7 s of 98.0 s" in filled.notes[clip(song, 1.0, 99.0).key]
        assert len(filled.notes) == 1

    def test_long_excerpts_alone_and_short_ones_together_are_the_same(
        self, songs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clips = [clip(songs[-1], start, start + 0.3) for start in (0.0, 0.1, 0.33, 2.0, 7.5)]
        together = fill(MelCache(tmp_path / "a", FRONTEND), clips)
        monkeypatch.setattr(decoding, "_LONG", 0.0)
        alone = fill(MelCache(tmp_path / "b", FRONTEND), clips)
        assert together.content == alone.content
        assert together.seconds == alone.seconds
        assert together.notes == alone.notes

    def test_content_tells_what_sounds_the_same(self, songs: list[Path], tmp_path: Path) -> None:
        shutil.copy(songs[4], tmp_path / "copy.wav")
        samples, rate = soundfile.read(songs[4], dtype="float32")
        soundfile.write(tmp_path / "same.aiff", samples, rate, subtype="FLOAT")
        paths = [*songs, tmp_path / "copy.wav", tmp_path / "same.aiff"]
        content = fill(MelCache(tmp_path / "cache", FRONTEND), [clip(path) for path in paths]).content
        assert content[4] == content[-1] == content[-2]
        assert len(set(content)) == len(songs)

    def test_several_workers_and_small_shards_change_nothing(
        self, songs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clips = [clip(song) for song in songs]
        expected = fill(MelCache(tmp_path / "a", FRONTEND), clips, workers=1)
        monkeypatch.setattr(shards, "SHARD", 3000)
        cache = MelCache(tmp_path / "b", FRONTEND)
        assert fill(cache, clips, workers=5).content == expected.content
        again = MelCache(tmp_path / "b", FRONTEND)
        assert fill(again, clips).content == expected.content
        for row in range(len(clips)):
            np.testing.assert_array_equal(again.clip(row), cache.clip(row))

    def test_the_samples_of_a_clip_are_never_all_in_memory(self, tmp_path: Path) -> None:
        write(tmp_path / "long.wav", np.tile(noise(100_000), 40))
        cache = MelCache(tmp_path / "cache", FRONTEND)
        fill(cache, [clip(tmp_path / "long.wav", 0, 1)])  # whatever is loaded at the first use
        tracemalloc.start()
        try:
            filled = fill(cache, [clip(tmp_path / "long.wav")])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert filled.seconds == [500.0]
        assert peak < 4e6  # of 16 MB of samples

    def test_gradients_are_left_on(self) -> None:
        """Also while a clip is half done, and wherever it is given up."""
        levels = MelCache("unused", FRONTEND).levels(iter([noise(3 * EDGE)]))
        next(levels)
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


class TestReuse:
    def test_nothing_is_decoded_twice(self, songs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clips = [clip(song) for song in songs]
        expected = fill(MelCache(tmp_path, FRONTEND), clips)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
        forbid_decoding(monkeypatch)
        relabelled = [Clip(c.path, f"new {c.key}", {"label": ("a",)}) for c in clips]
        cache = MelCache(tmp_path, FRONTEND)
        again = fill(cache, [*relabelled, clips[3]])
        assert again.content == [*expected.content, expected.content[3]]
        assert again.seconds[:-1] == expected.seconds
        assert again.rows[3] == again.rows[-1]
        assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before

    def test_what_is_new_is_added(self, songs: list[Path], tmp_path: Path) -> None:
        cache = MelCache(tmp_path, FRONTEND)
        first = fill(cache, [clip(song) for song in songs[:4]])
        levels = [cache.clip(row).copy() for row in range(4)]
        everything = fill(cache, [clip(song) for song in reversed(songs)])
        assert everything.rows[-4:] == first.rows[::-1]
        for row in range(4):
            np.testing.assert_array_equal(cache.clip(row), levels[row])
        expected = fill(MelCache(tmp_path / "b", FRONTEND), [clip(song) for song in reversed(songs)])
        assert everything.content == expected.content

    def test_a_file_that_changed_is_decoded_again(self, tmp_path: Path) -> None:
        song = write(tmp_path / "a.wav", noise(3000, 1))
        cache = MelCache(tmp_path / "cache", FRONTEND)
        before = fill(cache, [clip(song)])
        write(song, noise(3000, 2))
        os.utime(song, ns=(1, 1))
        after = fill(cache, [clip(song)])
        assert before.content != after.content
        row = after.rows[0]
        assert row is not None
        assert_close(cache.clip(row), expected_levels(noise(3000, 2)))

    def test_each_front_end_has_its_own(self, songs: list[Path], tmp_path: Path) -> None:
        clips = [clip(song) for song in songs[-3:]]
        other = LogMel(FrontendConfig(**{**vars_of(CONFIG), "log_floor": 1e-3}), FRONTEND.filterbank)
        bank = LogMel(CONFIG, FRONTEND.filterbank * 2)
        caches = [MelCache(tmp_path, frontend) for frontend in (FRONTEND, other, bank)]
        contents = [fill(cache, clips).content for cache in caches]
        assert len({cache.folder for cache in caches}) == 3
        assert len({tuple(content) for content in contents}) == 3
        assert fill(MelCache(tmp_path, FRONTEND), clips).content == contents[0]

    @pytest.mark.skipif(os.name != "posix", reason="names are bytes only on POSIX")
    def test_names_that_are_no_text(self, songs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        names = [os.fsdecode(raw) for raw in (b"\xff\xfe.wav", b"new\nline.wav", "ü 🎵.wav".encode())]
        for name in names:
            shutil.copy(songs[-1], tmp_path / name)
        clips = [clip(tmp_path / name) for name in names]
        first = fill(MelCache(tmp_path / "cache", FRONTEND), clips)
        forbid_decoding(monkeypatch)
        assert fill(MelCache(tmp_path / "cache", FRONTEND), clips).content == first.content

    def test_relative_paths(self, songs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = fill(MelCache(tmp_path, FRONTEND), [clip(songs[2])])
        monkeypatch.chdir(songs[2].parent)
        forbid_decoding(monkeypatch)
        assert fill(MelCache(tmp_path, FRONTEND), [clip(songs[2].name)]).content == first.content


def vars_of(config: FrontendConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__struct_fields__}


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(decoding, "open_source", fail)
    monkeypatch.setattr(decoding, "read_excerpts", fail)


class TestFailures:
    def test_a_clip_that_cannot_be_read_costs_only_itself(self, songs: list[Path], tmp_path: Path) -> None:
        (tmp_path / "broken.mp3").write_bytes(b"no music" * 99)
        (tmp_path / "empty.wav").write_bytes(b"")
        write(tmp_path / "nan.wav", np.full(3000, np.nan, np.float32))
        write(tmp_path / "huge.wav", np.full(3000, 3e38, np.float32))
        bad = [clip(tmp_path / name) for name in ("broken.mp3", "empty.wav", "nan.wav", "huge.wav", "gone.wav", "\0")]
        bad += [clip(tmp_path), clip(songs[-1], 99.0, 100.0), clip(songs[-1], 99.0)]
        good = [clip(songs[-1]), clip(songs[-1], 1, 2), clip(songs[0])]
        order = [good[0], *bad, *good[1:]]
        cache = MelCache(tmp_path / "cache", FRONTEND)
        told: list[tuple[int, int]] = []
        filled = fill(cache, order, watch=lambda done, total: told.append((done, total)))
        assert filled.failed.keys() == {c.key for c in bad}
        assert [row is None for row in filled.rows] == [c in bad for c in order]
        assert "No such file" in filled.failed[bad[4].key]
        assert "past the end" in filled.failed[bad[7].key]
        assert "past the end" in filled.failed[bad[8].key]
        assert told[-1] == (len(order), len(order))
        only = fill(MelCache(tmp_path / "only", FRONTEND), good)
        assert [c for c, row in zip(filled.content, filled.rows, strict=True) if row is not None] == only.content
        # Not for ever: the file may be repaired.
        write(tmp_path / "gone.wav", noise(3000))
        assert bad[4].key not in fill(cache, order).failed

    def test_damage_is_named_though_there_is_audio(self, tmp_path: Path) -> None:
        write(tmp_path / "cut.wav", noise(40_000))
        data = (tmp_path / "cut.wav").read_bytes()
        (tmp_path / "cut.wav").write_bytes(data[: len(data) // 2])
        cache = MelCache(tmp_path / "cache", FRONTEND)
        filled = fill(cache, [clip(tmp_path / "cut.wav", key="cut")])
        assert "truncated" in filled.notes["cut"]
        assert fill(cache, [clip(tmp_path / "cut.wav", key="k")]).notes == {"k": filled.notes["cut"]}

    def test_no_clips(self, tmp_path: Path) -> None:
        assert fill(MelCache(tmp_path, FRONTEND), []).rows == []


class TestInterruption:
    def test_stop_keeps_what_is_done(self, songs: list[Path], tmp_path: Path) -> None:
        clips = [clip(song) for song in songs]
        stop = threading.Event()

        def watch(done: int, total: int) -> None:
            if done == 3:
                stop.set()

        filled = fill(MelCache(tmp_path, FRONTEND), clips, workers=1, watch=watch, stop=stop)
        assert sum(row is not None for row in filled.rows) == 3
        assert not filled.failed
        told: list[int] = []
        cache = MelCache(tmp_path, FRONTEND)
        again = fill(cache, clips, watch=lambda done, total: told.append(done))
        assert told == list(range(3, len(clips) + 1))
        assert again.content == fill(MelCache(tmp_path / "b", FRONTEND), clips).content

    def test_an_error_of_the_watcher_ends_the_fill(self, songs: list[Path], tmp_path: Path) -> None:
        def watch(done: int, total: int) -> None:
            if done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fill(MelCache(tmp_path, FRONTEND), [clip(song) for song in songs], watch=watch)
        assert not fill(MelCache(tmp_path, FRONTEND), [clip(song) for song in songs]).failed

    def test_killed_at_any_write(self, songs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """From a file on, which is cut short, nothing reaches the disk any more."""
        clips = [clip(song) for song in songs[3:9]]
        monkeypatch.setattr(shards, "SHARD", 3000)
        whole = MelCache(tmp_path / "whole", FRONTEND)
        expected = fill(whole, clips)
        for killed in range(20):
            directory, begun = tmp_path / str(killed), 0

            @contextmanager
            def dying(path: Path, work: Path, killed: int = killed) -> Iterator[Path]:
                nonlocal begun
                begun += 1
                part = work / f"{path.name}.part"
                part.unlink(missing_ok=True)
                yield part
                if begun > killed:
                    part.write_bytes(part.read_bytes()[: part.stat().st_size * (killed % 3) // 3])
                    raise KeyboardInterrupt
                part.replace(path)

            with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
                patch.setattr(shards, "replacing", dying)
                fill(MelCache(directory, FRONTEND), clips)
            cache = MelCache(directory, FRONTEND)
            assert fill(cache, clips).content == expected.content
            for row in range(len(clips)):
                np.testing.assert_array_equal(cache.clip(row), whole.clip(row))
            assert not list(directory.rglob("*.part"))
            if begun <= killed:
                return
        raise AssertionError("more files than were tried")

    @pytest.mark.parametrize("seed", range(12))
    def test_cut_anywhere(self, filled_folder: tuple[Path, Filled, list[Clip]], seed: int) -> None:
        """Any file ends anywhere, is gone, or is something else; nothing wrong is ever read."""
        source, before, clips = filled_folder
        random = np.random.default_rng(seed)
        folder = source.with_name("cut")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        for file in sorted([*folder.rglob("*.npy"), *folder.rglob("*.json")]):
            content = file.read_bytes()
            file.write_bytes(content[: random.integers(0, len(content) + 1)] if random.random() < 0.6 else content)
            if random.random() < 0.2:
                file.unlink()
        for _ in range(2):  # and what was made anew stays so
            cache = MelCache(folder, FRONTEND)
            filled = fill(cache, clips)
            assert filled.content == before.content
            for number, row in enumerate(filled.rows):
                assert row is not None
                assert_close(cache.clip(row), expected_levels(noise(LENGTHS[number], number)))
        assert len(list(folder.rglob("*.npy"))) == len(list(folder.rglob("*.json")))

    @pytest.mark.parametrize("index", [b"?", b"{}", b"[1]", b"[" * 100_000, b"[]"])
    def test_a_damaged_shard_is_made_anew(
        self, filled_folder: tuple[Path, Filled, list[Clip]], tmp_path: Path, index: bytes
    ) -> None:
        source, before, clips = filled_folder
        shutil.copytree(source, tmp_path / "cache")
        for file in (tmp_path / "cache").rglob("*.json"):
            file.write_bytes(index)
        assert fill(MelCache(tmp_path / "cache", FRONTEND), clips).content == before.content

    def test_the_cache_of_an_earlier_version_is_left_alone(
        self, songs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clips = [clip(song) for song in songs[:3]]
        with monkeypatch.context() as patch:
            patch.setattr(cache_module, "VERSION", 1)
            earlier = MelCache(tmp_path, FRONTEND)
            fill(earlier, clips)
        for file in earlier.folder.glob("*.npy"):
            file.write_bytes(b"what this version cannot read")
        cache = MelCache(tmp_path, FRONTEND)
        assert not fill(cache, clips).failed
        assert cache.folder != earlier.folder

    def test_two_runs_take_turns(self, songs: list[Path], tmp_path: Path) -> None:
        cache = MelCache(tmp_path, FRONTEND)
        clips = [clip(song) for song in songs]
        cache.folder.mkdir()
        stop = threading.Event()
        results: list[Filled] = []
        with FileLock(cache.folder / "lock"):
            threading.Timer(0.3, stop.set).start()
            assert fill(cache, clips, stop=stop).rows == [None] * len(clips)
            thread = threading.Thread(target=lambda: results.append(fill(cache, clips)))
            thread.start()
            thread.join(0.3)
            assert thread.is_alive()
            assert not results
        thread.join()
        assert None not in results[0].rows


@pytest.fixture(scope="module")
def filled_folder(songs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Filled, list[Clip]]:
    folder = tmp_path_factory.mktemp("filled") / "cache"
    clips = [clip(song) for song in songs[:8]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD", 3000)
        return folder, fill(MelCache(folder, FRONTEND), clips), clips


class TestRoom:
    def test_clips_that_cannot_fit_are_told_before_decoding(
        self, songs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        forbid_decoding(monkeypatch)
        for clips in ([clip(songs[-1])], [clip(songs[-1], 0, 7)]):
            with pytest.raises(OutputError) as caught:
                fill(MelCache(tmp_path, FRONTEND), clips, limit_gb=1e-6)
            assert str(tmp_path) in str(caught.value)
            assert "--cache-limit" in str(caught.value)

    def test_the_guess(self, songs: list[Path], tmp_path: Path) -> None:
        (tmp_path / "broken.wav").write_bytes(b"?" * 1000)
        (tmp_path / "a.mp3").write_bytes(b"?" * 80_000)
        excerpts = [shards.Excerpt(str(song), song.stat().st_size, 0, 0.0, None) for song in songs]
        assert decoding.guess_seconds(excerpts) == pytest.approx(sum(LENGTHS) / RATE)
        assert decoding.guess_seconds([]) == 0
        odd = [(tmp_path / "a.mp3", 0.0, None), (tmp_path / "broken.wav", 0.0, None), (songs[-1], 2.0, 5.5)]
        excerpts = [shards.Excerpt(str(path), path.stat().st_size, 0, start, end) for path, start, end in odd]
        assert decoding.guess_seconds(excerpts) == pytest.approx(2 + 3.5)

    def test_the_limit_holds_whatever_was_guessed(
        self, songs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cache_module, "guess_seconds", lambda excerpts: 0.0)
        clips = [clip(song) for song in songs]
        with pytest.raises(OutputError, match=r"limit of 10 kB") as caught:
            fill(MelCache(tmp_path, FRONTEND), clips, limit_gb=1e-5)
        assert "--cache" in str(caught.value.hint)
        assert sum(file.stat().st_size for file in tmp_path.rglob("*.npy")) <= 1e4 + 128
        assert not fill(MelCache(tmp_path, FRONTEND), clips).failed

    def test_a_small_disk(self, songs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
        with pytest.raises(OutputError, match=r"has 100 B left"):
            fill(MelCache(tmp_path, FRONTEND), [clip(songs[-1])])

    @pytest.mark.parametrize("at", range(3))
    def test_a_full_disk(self, songs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        clips = [clip(song) for song in songs]
        monkeypatch.setattr(shards, "SHARD", 10_000)
        expected = fill(MelCache(tmp_path / "b", FRONTEND), clips, workers=1)
        assert len(list((tmp_path / "b").rglob("*.npy"))) > 2
        left, write_bytes = at, Path.write_bytes

        def full(path: Path, data: bytes) -> int:
            nonlocal left
            left -= path.name.endswith(".npy.part")
            if left < 0:
                write_bytes(path, data[: len(data) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write_bytes(path, data)

        with monkeypatch.context() as patch, pytest.raises(OutputError, match="No space left") as caught:
            patch.setattr(Path, "write_bytes", full)
            fill(MelCache(tmp_path / "a", FRONTEND), clips, workers=1)
        assert str(tmp_path / "a") in caught.value.message
        assert "--cache" in str(caught.value.hint)
        assert not list((tmp_path / "a").rglob("*.part"))
        assert fill(MelCache(tmp_path / "a", FRONTEND), clips).content == expected.content

    def test_a_directory_that_cannot_be_made(self, songs: list[Path], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="cannot write the cache"):
            fill(MelCache(tmp_path / "file", FRONTEND), [clip(songs[0])])
