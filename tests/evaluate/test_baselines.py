"""Clips to vectors, as users embed them, and the two baselines."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
import torch
from torch import nn

import poolembed
from poolembed.audio import decode
from poolembed.audio.source import open_source
from poolembed.bundle import load_bundle
from poolembed.embed.model import build_engine
from poolembed.evaluate import baselines
from poolembed.evaluate.baselines import mel_statistics, untrained
from poolembed.evaluate.clips import embed_clips
from poolembed.labels import Clip
from poolembed.nn.config import PoolingConfig
from poolembed.nn.model import SongModel
from tests.conftest import HOP, RATE, noise, tiny_config, tiny_network

pytestmark = pytest.mark.usefixtures("no_new_threads")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    for number in range(8):
        soundfile.write(root / f"{number}.wav", noise(2000 + 1500 * number, number), RATE, subtype="FLOAT")
    (root / "broken.mp3").write_bytes(b"no music" * 50)
    return root


def clip(folder: Path, name: str, start: float = 0.0, end: float | None = None) -> Clip:
    key = name + (f"#t={start:g}" + ("" if end is None else f",{end:g}") if start or end else "")
    return Clip(str(folder / name), key, {"label": ("x",)}, start, end)


class TestEmbedding:
    def test_whole_files_and_stretches_and_broken_ones(self, folder: Path, bundles: Path) -> None:
        model = poolembed.load(bundles / "gem")
        clips = [
            clip(folder, "5.wav", 0.5, 1.0),
            clip(folder, "3.wav"),
            clip(folder, "broken.mp3"),
            clip(folder, "5.wav", 0.25),
            clip(folder, "5.wav", 99.0, 100.0),
            clip(folder, "missing.wav", 1.0, 2.0),
            clip(folder, "5.wav", 0.0, 0.75),
        ]
        told: list[int] = []
        network = load_bundle(bundles / "gem").network
        found = embed_clips(build_engine(network), clips, lambda: told.append(1))
        assert found.rows == [0, 1, 3, 6]
        song = soundfile.read(folder / "5.wav", dtype="float32")[0]
        expected = [
            model.embed(song[RATE // 2 : RATE], sample_rate=RATE),
            model.embed(folder / "3.wav"),
            model.embed(song[RATE // 4 :], sample_rate=RATE),
            model.embed(song[: 3 * RATE // 4], sample_rate=RATE),
        ]
        np.testing.assert_array_equal(found.matrix, expected)
        assert found.matrix.dtype == np.float32
        assert found.seconds == pytest.approx([0.5, 6500 / RATE, len(song) / RATE - 0.25, 0.75])
        assert list(found.failures) == ["broken.mp3", "5.wav#t=99,100", "missing.wav#t=1,2"]
        assert "past the end" in found.failures["5.wav#t=99,100"]
        assert "no such file" in found.failures["missing.wav#t=1,2"].lower()
        assert len(told) == 5  # those that reached the engine

    def test_a_file_of_many_clips_is_decoded_once(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        opened: list[str] = []
        original = decode.open_audio

        def counting(path: str) -> decode.AudioStream:
            opened.append(path)
            return original(path)

        monkeypatch.setattr("poolembed.audio.source.open_audio", counting)
        clips = [clip(folder, "7.wav", start / 10, start / 10 + 0.2) for start in range(1, 9)]
        found = embed_clips(build_engine(tiny_network()), clips)
        assert found.rows == list(range(8))
        assert opened == [str(folder / "7.wav")]

    def test_none_that_can_be_read(self, folder: Path) -> None:
        found = embed_clips(build_engine(tiny_network()), [clip(folder, "broken.mp3")])
        assert found.matrix.shape == (0, 8)


class TestMelStatistics:
    def test_they_are_those_of_the_whole_spectrogram(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(baselines, "_FRAMES", 20)
        frontend = tiny_network().frontend
        clips = [clip(folder, f"{number}.wav") for number in (7, 1)] + [clip(folder, "7.wav", 0.5, 1.25)]
        found = mel_statistics(clips, frontend)
        assert found.rows == [0, 1, 2]
        assert found.failures == {}
        song = soundfile.read(folder / "7.wav", dtype="float32")[0]
        songs = [song, soundfile.read(folder / "1.wav", dtype="float32")[0], song[RATE // 2 : RATE * 5 // 4]]
        for row, samples in zip(found.matrix, songs, strict=True):
            padded = np.pad(samples, 128)
            mel = frontend(torch.from_numpy(padded)[None])[0].numpy()
            assert len(mel) == 1 + len(samples) // HOP
            np.testing.assert_allclose(row[:16], mel.mean(0), rtol=0, atol=1e-4)
            np.testing.assert_allclose(row[16:], mel.std(0), rtol=0, atol=1e-4)

    def test_what_cannot_be_read_is_named(self, folder: Path) -> None:
        soundfile.write(folder / "none.wav", noise(0), RATE)
        names = ["0.wav", "broken.mp3", "none.wav", "missing.wav"]
        found = mel_statistics([clip(folder, name) for name in names], tiny_network().frontend)
        assert found.rows == [0]
        assert list(found.failures) == names[1:]
        assert found.matrix.shape == (1, 32)

    def test_more_clips_than_are_in_work_at_once(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clips = [clip(folder, f"{number}.wav") for number in range(8)]
        whole = mel_statistics(clips, tiny_network().frontend)
        monkeypatch.setattr(baselines, "_AHEAD", 3)
        np.testing.assert_array_equal(mel_statistics(clips, tiny_network().frontend).matrix, whole.matrix)


class TestUntrained:
    CLIPS = tuple(range(8))

    def make(self, folder: Path, trained: SongModel, seed: int = 0) -> SongModel:
        clips = [clip(folder, f"{number}.wav") for number in self.CLIPS]
        return untrained(trained, clips, [(2000 + 1500 * number) / RATE for number in self.CLIPS], seed=seed)

    def test_the_architecture_and_front_end_without_the_training(self, folder: Path) -> None:
        trained = tiny_network(tiny_config(PoolingConfig(kind="gem", p=2.5)), seed=5)
        before = {name: value.clone() for name, value in trained.state_dict().items()}
        network = self.make(folder, trained)
        assert network.config == trained.config
        assert not network.training
        torch.testing.assert_close(network.frontend.filterbank, trained.frontend.filterbank, rtol=0, atol=0)
        assert all(bool((p == 2.5).all()) for p in network.pools[0].parameters())
        weights = network.project.weight
        torch.testing.assert_close(weights @ weights.T, torch.eye(8), rtol=0, atol=1e-5)
        for name, value in trained.state_dict().items():
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)
        own = dict(network.named_parameters())
        assert not any(torch.equal(value, own[name]) for name, value in trained.named_parameters() if "conv" in name)

    def test_seeded_whatever_torch_drew_before(self, folder: Path) -> None:
        trained = tiny_network()
        one = self.make(folder, trained).state_dict()
        state = torch.get_rng_state()
        torch.rand(3)
        again = self.make(folder, trained).state_dict()
        assert all(torch.equal(one[name], again[name]) for name in one)
        torch.set_rng_state(state)
        other = self.make(folder, trained, seed=1).state_dict()
        assert not torch.equal(one["project.weight"], other["project.weight"])
        assert torch.equal(torch.get_rng_state(), state)

    def test_the_norms_fit_the_clips(self, folder: Path) -> None:
        """Every norm sees numbers of mean 0 and deviation 1, roughly: a network of norms that fit nothing does not."""
        network = self.make(folder, tiny_network())
        audio = []
        for number in self.CLIPS:
            with open_source(str(folder / f"{number}.wav"), RATE) as song:
                audio += [block.copy() for block in song.blocks()]
        seen: dict[str, torch.Tensor] = {}
        for name, module in network.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out.clone()))
        windows = torch.from_numpy(np.concatenate(audio)).unfold(0, network.window_samples, 32 * HOP)
        with torch.no_grad():
            features = network.features(windows)
        assert seen
        for out in seen.values():
            mean, spread = out.mean((0, 2, 3)), out.std((0, 2, 3))
            assert float(mean.abs().max()) < 0.35
            assert 0.6 < float(spread.min()) < float(spread.max()) < 1.5
        mel = features[-1][:, : features[-1].shape[1] // 2]
        assert float(mel.mean((0, 2)).abs().max()) < 0.35

    def test_padding_is_not_taken_for_audio(self, tmp_path: Path) -> None:
        """Clips much shorter than a window: the norms fit the sound in them, not the silence after it."""
        names = []
        for number in range(12):
            soundfile.write(tmp_path / f"{number}.wav", noise(400, number), RATE, subtype="FLOAT")
            names.append(f"{number}.wav")
        trained = tiny_network()
        clips = [clip(tmp_path, name) for name in names]
        network = untrained(trained, clips, [0.05] * 12)
        loudness = torch.from_numpy(mel_statistics(clips, trained.frontend).matrix[:, :16]).mean()
        fitted = network.mel_norm.running_mean
        assert fitted is not None
        assert abs(float(fitted.mean() - loudness)) < 0.5  # silence is at -11.5, and would fill 5/6 of every window
        vectors = embed_clips(build_engine(network), clips).matrix
        assert np.linalg.norm(vectors.mean(0)) < 0.7  # centred: the clips do not all point one way

    def test_nor_is_silence_beside_a_window_with_context(self, folder: Path) -> None:
        encoder = msgspec.structs.replace(tiny_config().encoder, context=True, window_frames=16)
        trained = tiny_network(msgspec.structs.replace(tiny_config(), encoder=encoder))
        network = self.make(folder, trained)
        loudness = mel_statistics([clip(folder, f"{number}.wav") for number in self.CLIPS], trained.frontend).matrix
        fitted = network.mel_norm.running_mean
        assert fitted is not None
        assert abs(float(fitted.mean()) - loudness[:, :16].mean()) < 0.45  # 0.31; with silence 0.60

    def test_a_file_that_vanished(self, folder: Path) -> None:
        clips = [clip(folder, "0.wav"), clip(folder, "gone.wav")]
        with pytest.raises(poolembed.AudioError, match=r"gone\.wav"):
            untrained(tiny_network(), clips, [0.25, 0.25])
