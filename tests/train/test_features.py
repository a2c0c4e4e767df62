"""A frozen encoder's features from the disk are those that it would compute."""

from __future__ import annotations

import copy
import errno
import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from poolembed.embed.engine import Engine
from poolembed.embed.song import Embedded
from poolembed.errors import OutputError
from poolembed.labels import Clip
from poolembed.nn.config import PoolingConfig
from poolembed.nn.model import SongModel
from poolembed.train import features as features_module
from poolembed.train.cache import MelCache, dequantise
from poolembed.train.features import FRAMES, OTHERS, FeatureBatch, FeatureCache
from poolembed.train.sampling import Batch, Crops, Sampler
from tests.conftest import HOP, RATE, noise, tiny_config, tiny_network

pytestmark = pytest.mark.usefixtures("no_new_threads")

WINDOW = 32
LENGTHS = (1, 5, 31, 32, 33, 64, 100, 320)  # mel frames
NETWORK = tiny_network()
NUMBERS = (0, 1, 3, 4, 5, 6, 7, 8)


@pytest.fixture(autouse=True)
def batches_of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there are several."""
    monkeypatch.setattr(features_module, "default_batch_size", lambda device, config: 8)


@pytest.fixture(scope="module")
def mels(tmp_path_factory: pytest.TempPathFactory) -> tuple[MelCache, list[int | None]]:
    root = tmp_path_factory.mktemp("clips")
    clips = []
    for seed, frames in enumerate(LENGTHS):
        soundfile.write(root / f"{seed}.wav", noise((frames - 1) * HOP + 1, seed), RATE, subtype="FLOAT")
        clips.append(Clip(str(root / f"{seed}.wav"), str(seed), {}))
    clips.insert(2, Clip(str(root / "gone.wav"), "gone", {}))
    clips.append(clips[-1])  # one clip twice
    cache = MelCache(root / "cache", NETWORK.frontend, before=True)
    return cache, cache.fill(clips, workers=2, limit_gb=1).rows


def filled(directory: Path, mels: tuple[MelCache, list[int | None]], network: SongModel = NETWORK) -> FeatureCache:
    cache = FeatureCache(directory, network, *mels)
    assert cache.fill(limit_gb=1)
    return cache


def computed(network: SongModel, batch: Batch) -> list[Tensor]:
    with torch.no_grad():
        return network.clip_features(dequantise(batch.mel, network.config.frontend.log_floor))


def assert_same_as_computed(network: SongModel, stored: FeatureBatch, batch: Batch, tolerance: float = 2e-3) -> None:
    """Frame features are equal to what float16 keeps; everything that is made of the parts is equal to that as well."""
    assert torch.equal(stored.frames, batch.frames)
    assert torch.equal(stored.clips, batch.clips)
    expected, parts = computed(network, batch), stored.parts()
    assert [part.shape for part in parts] == [part.shape for part in expected]
    real = torch.arange(expected[0].shape[-1]) * network.config.encoder.time_reduction < batch.frames.unsqueeze(1)
    scale = float(expected[0].abs().max())
    torch.testing.assert_close(parts[0], expected[0] * real.unsqueeze(1), rtol=0, atol=tolerance * scale)
    start = torch.zeros_like(batch.frames)
    states = [network.fold(part, start, batch.frames) for part in (parts, expected)]
    for (n, total), (expected_n, expected_total) in zip(states[0][1:], states[1][1:], strict=True):
        torch.testing.assert_close(n, expected_n)
        torch.testing.assert_close(total, expected_total, rtol=1e-3, atol=1e-3)
    one, other = (network.finalize(state) for state in states)
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


class TestFeatures:
    @pytest.mark.parametrize("parts", [{}, {"mid_levels": False}, {"mid_levels": False, "mel_statistics": False}])
    @pytest.mark.parametrize("kind", ["autopool", "max"])
    def test_whole_clips(
        self, mels: tuple[MelCache, list[int | None]], tmp_path: Path, parts: dict[str, Any], kind: Any
    ) -> None:
        network = tiny_network(tiny_config(PoolingConfig(kind=kind), **parts))
        cache = filled(tmp_path, mels, network)
        crops = Crops(*mels, window_frames=WINDOW)
        stored, batches = list(cache.whole(NUMBERS, 5)), list(crops.whole(NUMBERS, 5))
        for one, other in zip(stored, batches, strict=True):
            assert_same_as_computed(network, one, other)

    @pytest.mark.parametrize("windows", [1, 2, 10, 12])
    def test_crops_of_whole_windows(
        self, mels: tuple[MelCache, list[int | None]], tmp_path: Path, windows: int
    ) -> None:
        cache, crops = filled(tmp_path, mels), Crops(*mels, window_frames=WINDOW)
        sampler = Sampler(NUMBERS, batch_size=8, seed=0, views=2)
        begun = set()
        for step in range(10):
            stored = cache.batch(sampler, step, windows)
            clips = stored.clips.numpy()
            lengths = np.array(
                [mels[0].frames(row) for row in map(mels[1].__getitem__, stored.clips.tolist()) if row is not None]
            )
            starts = sampler.starts(step, np.round(lengths / WINDOW).astype(np.int64) - windows)
            begun |= set(starts[lengths == 320].tolist())
            assert_same_as_computed(NETWORK, stored, crops.cut(clips, starts * WINDOW, windows))
            crop = np.minimum(lengths, windows * WINDOW)
            assert (stored.frames.numpy() >= crop - WINDOW // 2).all()
        assert begun <= set(range(max(1, 11 - windows)))
        assert len(begun) > 1 or windows >= 10

    @pytest.mark.parametrize("windows", [1, 3, 12])
    def test_with_context_windows_have_the_features_of_the_whole_crop(
        self, mels: tuple[MelCache, list[int | None]], tmp_path: Path, windows: int
    ) -> None:
        """Stored window by window, and compared with crops that are encoded in one piece."""
        encoder = msgspec.structs.replace(tiny_config().encoder, context=True)
        network = tiny_network(msgspec.structs.replace(tiny_config(), encoder=encoder))
        cache, crops = filled(tmp_path, mels, network), Crops.of(*mels, encoder)
        for first in (0, 1, 5):
            starts = np.minimum(first, (np.array(LENGTHS) - 1) // WINDOW)
            numbers = np.array(NUMBERS)
            assert_same_as_computed(
                network, cache.gather(numbers, starts, windows), crops.cut(numbers, starts * WINDOW, windows)
            )

    def test_make_the_embedding_of_the_file(self, mels: tuple[MelCache, list[int | None]], tmp_path: Path) -> None:
        """From the sound to the vector, past the cache: what differs is the cache's 8 and 16 bits."""
        cache = filled(tmp_path, mels)
        songs = [(noise((frames - 1) * HOP + 1, seed), RATE) for seed, frames in enumerate(LENGTHS)]
        batch = cache.gather(np.array(NUMBERS), np.zeros(8, np.int64), 10)
        state = NETWORK.fold(batch.parts(), torch.zeros_like(batch.frames), batch.frames)
        mine = NETWORK.finalize(state).detach().numpy()
        engine = Engine(NETWORK, NETWORK.for_inference(torch.device("cpu"), torch.float32), batch_size=4, workers=1)
        for one, outcome in zip(mine, engine.run(songs), strict=True):
            assert isinstance(outcome, Embedded)
            assert one @ outcome.embedding > 0.9995

    def test_windows_merge_to_the_clip(self, mels: tuple[MelCache, list[int | None]], tmp_path: Path) -> None:
        cache = filled(tmp_path, mels)
        for number in NUMBERS:
            windows = [
                NETWORK.fold(batch.parts(), torch.zeros_like(batch.frames), batch.frames)
                for batch in cache.whole([number], 100)
            ]
            (state,) = windows
            batch = cache.gather(np.array([number]), np.array([0]), 10)
            whole = NETWORK.fold(batch.parts(), torch.zeros_like(batch.frames), batch.frames)
            torch.testing.assert_close(
                NETWORK.finalize(NETWORK.merge_rows(state)), NETWORK.finalize(whole), rtol=0, atol=1e-5
            )

    def test_half_precision_is_near(self, mels: tuple[MelCache, list[int | None]], tmp_path: Path) -> None:
        cache = FeatureCache(tmp_path, NETWORK, *mels, dtype=torch.bfloat16)
        assert cache.fill(limit_gb=1)
        batch = Crops(*mels, window_frames=WINDOW).cut(np.array(NUMBERS), np.zeros(8, np.int64), 10)
        stored = cache.gather(np.array(NUMBERS), np.zeros(8, np.int64), 10)
        with torch.autocast("cpu", torch.bfloat16):
            near = computed(NETWORK, batch)[0].float()
        real = (stored.parts()[0] != 0).float()
        scale = float(near.abs().max())
        torch.testing.assert_close(stored.parts()[0], near * real, rtol=0, atol=0.05 * scale)
        assert cache.folder != FeatureCache(tmp_path, NETWORK, *mels).folder

    def test_gradients_reach_the_pooling(self, mels: tuple[MelCache, list[int | None]], tmp_path: Path) -> None:
        network = tiny_network()
        batch = filled(tmp_path, mels, network).batch(Sampler(NUMBERS, batch_size=4, seed=0), 0, 2)
        state = network.fold(batch.parts(), torch.zeros_like(batch.frames), batch.frames)
        network.finalize(state).square()[:, 0].sum().backward()  # type: ignore[no-untyped-call]
        (alpha,) = network.pools[0].parameters()
        assert alpha.grad is not None
        assert bool((alpha.grad != 0).any())

    def test_moving(self, mels: tuple[MelCache, list[int | None]], tmp_path: Path) -> None:
        batch = filled(tmp_path, mels).batch(Sampler(NUMBERS, batch_size=4, seed=0), 0, 2).to(torch.device("meta"))
        assert {part.device.type for part in batch.parts()} == {"meta"}
        assert batch.frames.device.type == "meta"


class TestFiles:
    def test_every_clip_is_encoded_once(
        self, mels: tuple[MelCache, list[int | None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[tuple[int, int]] = []
        cache = FeatureCache(tmp_path, NETWORK, *mels)
        assert cache.fill(limit_gb=1, watch=lambda done, total: told.append((done, total)))
        total = sum(-(-frames // WINDOW) for frames in LENGTHS)
        assert told == [(done, total) for done in [*range(0, total, 8), total]]
        assert 0 <= sum(file.stat().st_size for file in cache.folder.iterdir()) - cache.size < 512, "headers"
        monkeypatch.setattr(FeatureCache, "_encode", None)
        again = filled(tmp_path, mels)
        batches = [each.gather(np.array(NUMBERS), np.zeros(8, np.int64), 3) for each in (cache, again)]
        assert torch.equal(batches[0].frame_features, batches[1].frame_features)
        assert torch.equal(batches[0].means, batches[1].means)

    def test_what_they_depend_on_names_the_folder(
        self, mels: tuple[MelCache, list[int | None]], tmp_path: Path
    ) -> None:
        cache, rows = mels
        encoder = {key: value for key, value in NETWORK.state_dict().items() if not key.startswith("pools.")}
        pooled = tiny_network(tiny_config(PoolingConfig(kind="gem")), seed=1)
        pooled.load_state_dict(encoder, strict=False)
        pooled.project.weight.data += 1
        same = [FeatureCache(tmp_path, network, *mels).folder for network in (NETWORK, copy.deepcopy(NETWORK), pooled)]
        assert len(set(same)) == 1
        changed = copy.deepcopy(NETWORK)
        changed.mel_norm.get_buffer("running_mean").add_(1)
        others = [tiny_network(seed=1), tiny_network(tiny_config(mid_levels=False)), changed]
        different = [FeatureCache(tmp_path, network, *mels).folder for network in others]
        different.append(FeatureCache(tmp_path, NETWORK, cache, rows[:3]).folder)
        assert len({*same, *different}) == 5

    @pytest.mark.parametrize("batch", range(3))
    def test_killed_at_any_batch(self, mels: tuple[MelCache, list[int | None]], tmp_path: Path, batch: int) -> None:
        """The next fill begins again, whatever the killed one left."""
        expected = filled(tmp_path / "whole", mels)
        cache = FeatureCache(tmp_path / "killed", NETWORK, *mels)
        work = cache.folder.with_name(f".{cache.folder.name}.part")

        def kill(done: int, total: int) -> None:
            if done >= 8 * batch:
                work.with_name("kept").mkdir()
                for name in (FRAMES, OTHERS):  # as a kill leaves it, which nothing tidies
                    (work.with_name("kept") / name).write_bytes((work / name).read_bytes())
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            cache.fill(limit_gb=1, watch=kill)
        assert not cache.folder.exists()
        work.with_name("kept").rename(work)
        folder = filled(tmp_path / "killed", mels).folder
        assert folder.name == expected.folder.name
        for name in (FRAMES, OTHERS):
            assert (folder / name).read_bytes() == (expected.folder / name).read_bytes()
        assert sorted(path.name for path in folder.parent.iterdir()) == sorted([folder.name, "features.lock"])

    def test_a_stop_leaves_nothing_and_the_next_fill_is_whole(
        self, mels: tuple[MelCache, list[int | None]], tmp_path: Path
    ) -> None:
        stop = threading.Event()
        cache = FeatureCache(tmp_path, NETWORK, *mels)
        assert not cache.fill(limit_gb=1, stop=stop, watch=lambda done, _: stop.set() if done >= 8 else None)
        assert [path.name for path in tmp_path.iterdir()] == ["features.lock"]
        assert cache.fill(limit_gb=1)

    @pytest.mark.parametrize("name", [FRAMES, OTHERS])
    @pytest.mark.parametrize("content", [None, b"", b"?" * 400, b"\x93NUMPY\x01\x00"])
    def test_a_damaged_file_is_named(
        self, mels: tuple[MelCache, list[int | None]], tmp_path: Path, name: str, content: bytes | None
    ) -> None:
        folder = filled(tmp_path, mels).folder
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises(OutputError, match=name) as caught:
            filled(tmp_path, mels)
        assert str(folder) in str(caught.value.hint)

    def test_limits(
        self, mels: tuple[MelCache, list[int | None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = FeatureCache(tmp_path, NETWORK, *mels)
        with pytest.raises(OutputError, match=r"may hold 1 kB") as caught:
            cache.fill(limit_gb=1e-6)
        assert str(tmp_path) in caught.value.message
        assert "--cache-limit" in str(caught.value.hint)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left") as caught:
            cache.fill(limit_gb=1)
        assert "--cache" in str(caught.value.hint)
        assert [path.name for path in tmp_path.iterdir()] == ["features.lock"], "its space is given back"
