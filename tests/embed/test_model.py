"""The front door: load, embed one song, embed many."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

import poolembed
from poolembed import AudioError, BundleNotFoundError, FilesFailedError, Model, UsageError
from poolembed.embed.device import PrecisionName
from poolembed.embed.engine import Engine
from poolembed.embed.silence import is_silence, silence
from poolembed.embed.song import Embedded
from tests.conftest import RATE, noise

pytestmark = pytest.mark.usefixtures("no_new_threads")


@pytest.fixture(scope="module")
def model(bundles: Path) -> Model:
    return poolembed.load(bundles / "autopool", precision="fp32")


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six songs, one of them in stereo at another rate, and one that is none."""
    root = tmp_path_factory.mktemp("songs")
    for number, length in enumerate((1, 3000, 8000, 20_000, 70_000)):
        soundfile.write(root / f"{number}.wav", noise(length, number), RATE, subtype="FLOAT")
    stereo = np.stack([noise(30_000, 5), noise(30_000, 6)], axis=1)
    soundfile.write(root / "stereo.flac", stereo, 44_100)
    (root / "broken.mp3").write_bytes(b"no music" * 99)
    return root


def paths(songs: Path) -> list[str]:
    return sorted(str(path) for path in songs.iterdir() if path.name != "broken.mp3")


class TestLoad:
    def test_what_a_model_says_of_itself(self, model: Model, bundles: Path) -> None:
        assert model.name == "autopool"
        assert model.embedding_size == 8
        assert model.sample_rate == RATE
        assert model.time_resolution == 0.04
        assert model.config.license == "CC0-1.0"
        assert model.config.model.pooling.kind == "autopool"
        assert model.card == (bundles / "autopool" / "README.md").read_text()
        assert len(model.fingerprint) == 64
        assert model.device == "cpu"
        assert model.precision == "fp32"

    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    def test_options_are_not_ignored(self, bundles: Path, precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = mock.Mock(wraps=Engine)
        monkeypatch.setattr("poolembed.embed.model.Engine", engine)
        model = poolembed.load(bundles / "mean", device="cpu", precision=precision, batch_size=3, workers=5)
        assert (model.precision, model.workers) == (precision, 5)
        assert engine.call_args.kwargs["batch_size"] == 3

    def test_by_name(self, bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("POOLEMBED_MODELS", str(bundles))
        assert poolembed.load("gem").fingerprint == poolembed.load(bundles / "gem").fingerprint

    def test_a_wrong_name_lists_the_right_ones(self, bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("POOLEMBED_MODELS", str(bundles))
        with pytest.raises(BundleNotFoundError) as caught:
            poolembed.load("bass")
        for name in ("attention", "autopool", "other"):
            assert name in str(caught.value)

    @pytest.mark.parametrize("options", [{"device": "gpu"}, {"precision": "int4"}, {"batch_size": 0}, {"workers": -1}])
    def test_wrong_options(self, bundles: Path, options: dict[str, Any]) -> None:
        with pytest.raises(UsageError):
            poolembed.load(bundles / "mean", **options)


class TestOneSong:
    def test_a_vector_of_unit_length(self, model: Model, songs: Path) -> None:
        vector = model.embed(songs / "3.wav")
        assert vector.shape == (8,)
        assert vector.dtype == np.float32
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)

    def test_path_and_str_and_array_are_the_same_song(self, model: Model, songs: Path) -> None:
        for name in ("0.wav", "4.wav", "stereo.flac"):
            path = songs / name
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
            expected = model.embed(path)
            np.testing.assert_array_equal(model.embed(str(path)), expected)
            np.testing.assert_allclose(model.embed(samples.T, sample_rate=rate), expected, rtol=0, atol=1e-6)

    def test_an_array_and_a_channel_and_two_equal_channels(self, model: Model) -> None:
        song = noise(9000)
        expected = model.embed(song, sample_rate=RATE)
        for same in (song[None], np.stack([song, song]), song.astype(np.float64), np.asfortranarray(song[None])):
            np.testing.assert_allclose(model.embed(same, sample_rate=RATE), expected, rtol=0, atol=1e-6)

    def test_the_array_is_left_as_it_was(self, model: Model) -> None:
        song = noise(9000)
        song.flags.writeable = False
        model.embed(song, sample_rate=RATE)
        np.testing.assert_array_equal(song, noise(9000))

    @pytest.mark.skipif(os.name != "posix", reason="names are bytes only on POSIX")
    def test_names_that_are_no_text(self, model: Model, songs: Path, tmp_path: Path) -> None:
        expected = model.embed(songs / "2.wav")
        for raw in (b"\xff\xfe.wav", b"new\nline.wav", b"back\\slash\x1b[31m.wav", "ünïcödé 🎵.wav".encode()):
            name = os.fsdecode(raw)
            (tmp_path / name).write_bytes((songs / "2.wav").read_bytes())
            np.testing.assert_array_equal(model.embed(tmp_path / name), expected)
            np.testing.assert_array_equal(model.embed(os.path.join(tmp_path, name)), expected)  # noqa: PTH118

    def test_relative_paths(self, model: Model, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(songs)
        np.testing.assert_array_equal(model.embed("1.wav"), model.embed(songs / "1.wav"))

    def test_errors_name_the_file(self, model: Model, songs: Path) -> None:
        for name in ("broken.mp3", "missing.wav", "new\nline.wav"):
            with pytest.raises(AudioError) as caught:
                model.embed(songs / name)
            assert str(songs / name) in str(caught.value)
        with pytest.raises(AudioError):
            model.embed(songs)

    @pytest.mark.parametrize("samples", [np.zeros(0), np.zeros((2, 0)), np.full(100, np.nan), np.full(9, np.inf)])
    def test_arrays_without_music(self, model: Model, samples: NDArray[Any]) -> None:
        with pytest.raises(AudioError, match=r"^samples: "):
            model.embed(samples, sample_rate=RATE)

    @pytest.mark.parametrize(
        ("samples", "rate"),
        [
            (np.zeros((1, 2, 3)), RATE),
            (np.zeros(()), RATE),
            (np.zeros(9), 0),
            (np.zeros(9), -1),
            (np.zeros(9), 44.1),
            (np.zeros(9, bool), RATE),
            (np.zeros(9, complex), RATE),
            (np.array(["a"]), RATE),
            (np.zeros((44_100, 2)), RATE),
        ],
    )
    def test_arrays_that_make_no_sense(self, model: Model, samples: NDArray[Any], rate: Any) -> None:
        with pytest.raises(UsageError):
            model.embed(samples, sample_rate=rate)

    def test_a_sample_rate_belongs_to_an_array(self, model: Model, songs: Path) -> None:
        with pytest.raises(TypeError, match="sample_rate"):
            model.embed(noise(100))
        with pytest.raises(TypeError, match="sample_rate"):
            model.embed(songs / "1.wav", sample_rate=RATE)

    def test_silence_has_a_vector_of_its_own(self, model: Model, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "silent.wav", np.zeros((9_000, 2)), RATE)
        dither = np.random.default_rng(0).integers(-1, 2, 9_000) / 32_768
        for vector in (model.embed(tmp_path / "silent.wav"), model.embed(dither, sample_rate=RATE)):
            np.testing.assert_array_equal(vector, silence(model.embedding_size))
        assert not is_silence(model.embed(100 * dither, sample_rate=RATE))

    def test_what_is_above_all_that_the_model_hears_is_silence(self, model: Model) -> None:
        tone = 0.5 * np.sin(np.arange(40_000) * 2 * np.pi * 0.35).astype(np.float32)
        tone *= np.hanning(len(tone)).astype(np.float32)  # an edge is heard
        (outcome,) = model.outcomes([(tone, 4 * RATE)])
        assert isinstance(outcome, Embedded)
        assert outcome.note == "silent"
        assert is_silence(outcome.embedding)

    def test_integers_given_as_floats_are_warned_of(self, model: Model) -> None:
        with pytest.warns(UserWarning, match="samples: full scale is 1, and samples reach"):
            model.embed(noise(1000) * 32768, sample_rate=RATE)

    def test_whatever_numpy_takes_for_an_array(self, model: Model) -> None:
        samples = noise(1000)
        expected = model.embed(samples, sample_rate=RATE)
        for same in (torch.from_numpy(samples), samples.tolist()):
            np.testing.assert_array_equal(model.embed(same, sample_rate=RATE), expected)


class TestManySongs:
    def test_in_order_and_equal_to_each_alone(self, model: Model, songs: Path) -> None:
        names = paths(songs) * 3
        found = list(model.embed_files(names))
        assert [path for path, _ in found] == names
        for path, vector in found:
            np.testing.assert_allclose(vector, model.embed(path), rtol=0, atol=1e-6)

    def test_paths_and_a_generator(self, model: Model, songs: Path) -> None:
        found = list(model.embed_files(Path(path) for path in paths(songs)))
        assert [path for path, _ in found] == paths(songs)

    def test_none(self, model: Model) -> None:
        assert list(model.embed_files([])) == []

    def test_failures_are_raised_after_all_others(self, model: Model, songs: Path) -> None:
        names = paths(songs)
        names[2:2] = [str(songs / "broken.mp3"), str(songs / "missing.wav")]
        found: list[str] = []
        with pytest.raises(FilesFailedError) as caught:
            found.extend(path for path, _ in model.embed_files(names))
        assert found == paths(songs)
        assert list(caught.value.failures) == names[2:4]
        assert all(caught.value.failures.values())

    def test_failures_are_told_as_they_come(self, model: Model, songs: Path) -> None:
        told: list[tuple[str, str]] = []
        names = [str(songs / "broken.mp3"), *paths(songs), str(songs / "missing.wav")]
        found = [path for path, _ in model.embed_files(names, on_error=lambda *error: told.append(error))]
        assert found == paths(songs)
        assert [path for path, _ in told] == [names[0], names[-1]]
        assert "no such file" in told[1][1].lower()

    def test_walking_away(self, model: Model, songs: Path) -> None:
        taken = []

        def endless() -> Iterator[str]:
            while True:
                taken.append(1)
                yield str(songs / "1.wav")

        files = model.embed_files(endless())
        for _ in range(3):
            next(files)
        files.close()  # type: ignore[attr-defined]
        assert len(taken) < 1000

    def test_the_list_may_change_meanwhile(self, model: Model, songs: Path) -> None:
        (songs / "gone.wav").write_bytes((songs / "1.wav").read_bytes())
        names = [*paths(songs)]
        (songs / "gone.wav").unlink()
        told: dict[str, str] = {}
        assert len(list(model.embed_files(names, on_error=told.__setitem__))) == len(names) - 1
        assert list(told) == [str(songs / "gone.wav")]


def _embedded(pickled: bytes, paths: list[Path]) -> list[bytes]:
    model = pickle.loads(pickled)  # noqa: S301 - a moment ago it was made here
    return [model.embed(path).tobytes() for path in paths]


def test_a_model_goes_to_other_processes(bundles: Path, songs: Path) -> None:
    model, paths = poolembed.load(bundles / "autopool", precision="bf16"), [songs / "3.wav", songs / "stereo.flac"]
    # Pickled here and not by the pool, for torch shares tensors by a thread that stays.
    pickled = pickle.dumps(model)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(_embedded, pickled, paths).result() == _embedded(pickled, paths)
    assert _embedded(pickled, paths) == [model.embed(path).tobytes() for path in paths]
    assert pickle.loads(pickled).fingerprint == model.fingerprint  # noqa: S301


@pytest.mark.parametrize("name", ["base", "tiny"])
def test_precisions_agree(name: str) -> None:
    """Of a single stroke as well, where nothing averages over time what rounding did to the weights."""
    precisions: tuple[PrecisionName, ...] = ("fp32", "bf16", "fp16")
    models = [poolembed.load(name, device="cpu", precision=each) for each in precisions]
    for path in sorted((Path(__file__).parents[1] / "clips").glob("*/*.*"))[1::2]:
        full, *halves = (model.embed(path) for model in models)
        assert min(float(full @ half) for half in halves) >= 0.9998, path.name
