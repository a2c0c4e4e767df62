"""Predicting is the heads applied to what embedding computes: whole songs, stretches, and from when to when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

import poolembed
from poolembed.audio.source import Source
from poolembed.bundle import load_bundle
from poolembed.embed.engine import Engine
from poolembed.embed.predict import Moment, Prediction, Predictor, Timeline, intervals, load_predictor
from poolembed.embed.song import Embedded, Failed
from poolembed.embed.windows import WindowShape
from poolembed.errors import BundleError, BundleNotFoundError, UsageError
from poolembed.heads import top
from poolembed.nn.config import HeadConfig
from poolembed.nn.head import EmbeddingHead, FrameHead
from tests.conftest import HOP, RATE, noise, slow_windows, tiny_heads, tiny_network

pytestmark = pytest.mark.usefixtures("no_new_threads")

FINEST = 4 * HOP / RATE
LENGTHS = (1, 3000, 8000, 70_000)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, save_tiny: Callable[..., Path]) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models"), "sounds", heads=tiny_heads())


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return load_predictor(bundle, precision="fp32")


def songs() -> list[tuple[NDArray[np.float32], int]]:
    return [(noise(length, seed), RATE) for seed, length in enumerate(LENGTHS)]


def predict(predictor: Predictor, sources: Sequence[Source], seconds: float | None = None) -> list[Prediction]:
    outcomes = list(predictor.predict(sources, seconds=seconds))
    assert [outcome.index for outcome in outcomes] == list(range(len(sources)))
    return [outcome for outcome in outcomes if isinstance(outcome, Prediction)]


def frame_features(length: int, seed: int) -> Tensor:
    """Frame features ``(1, C, T)`` of a whole song of noise, window by window; padding cut off."""
    network = tiny_network()
    shape = WindowShape.of(network.config)
    parts = []
    with torch.inference_mode():
        for samples, frames in slow_windows(noise(length, seed), shape):
            parts.append(network.features(torch.from_numpy(samples).unsqueeze(0))[0][..., : -(-frames // 4)])
    return torch.cat(parts, dim=-1)


def heads_of(bundle: Path) -> tuple[EmbeddingHead, FrameHead]:
    sound, place = load_bundle(bundle).heads
    assert isinstance(sound, EmbeddingHead)
    assert isinstance(place, FrameHead)
    return sound, place


class TestSongs:
    def test_a_head_on_the_embedding(self, bundle: Path, predictor: Predictor) -> None:
        head, _ = heads_of(bundle)
        model = poolembed.load(bundle, precision="fp32")
        for (samples, rate), found in zip(songs(), predict(predictor, songs()), strict=True):
            embedding = torch.from_numpy(model.embed(samples, sample_rate=rate)).unsqueeze(0)
            expected = head.probabilities(embedding)[0].detach().numpy()
            np.testing.assert_allclose(found.probabilities["sound"], expected, rtol=0, atol=1e-6)
            assert found.probabilities["sound"].sum() == pytest.approx(1, abs=1e-6)
            assert found.duration == len(samples) / rate
            assert found.timelines == {}

    def test_a_head_on_frames(self, bundle: Path, predictor: Predictor) -> None:
        """Pooled over all frames of the song at once, in one piece."""
        _, head = heads_of(bundle)
        found = predict(predictor, songs())
        for seed, length in enumerate(LENGTHS):
            expected = head(frame_features(length, seed))[0].detach().numpy()
            np.testing.assert_allclose(found[seed].probabilities["place"], expected, rtol=0, atol=1e-5)

    def test_nothing_depends_on_batch_or_workers(self, bundle: Path, predictor: Predictor) -> None:
        expected = predict(predictor, songs(), seconds=0.5)
        for batch_size, workers in ((1, 1), (5, 3)):
            other = load_predictor(bundle, precision="fp32", batch_size=batch_size, workers=workers)
            for one, two in zip(predict(other, songs(), seconds=0.5), expected, strict=True):
                for column in ("sound", "place"):
                    np.testing.assert_allclose(one.probabilities[column], two.probabilities[column], atol=1e-6)
                    a, b = one.timelines[column], two.timelines[column]
                    np.testing.assert_allclose(a.probabilities, b.probabilities, atol=5e-6)

    def test_broken_files_cost_themselves(self, predictor: Predictor, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "a.wav", noise(5000), RATE, subtype="FLOAT")
        (tmp_path / "b.mp3").write_bytes(b"no music" * 99)
        names = ["a.wav", "b.mp3", "missing.wav", "a.wav"]
        first, broken, missing, last = predictor.predict([str(tmp_path / name) for name in names])
        assert isinstance(broken, Failed)
        assert isinstance(missing, Failed)
        assert "no such file" in missing.reason.lower()
        assert isinstance(first, Prediction)
        assert isinstance(last, Prediction)
        np.testing.assert_array_equal(first.probabilities["sound"], last.probabilities["sound"])
        assert (first.index, last.index) == (0, 3)

    def test_a_truncated_file_says_so(self, predictor: Predictor, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "a.flac", noise(40_000), RATE)
        data = (tmp_path / "a.flac").read_bytes()
        (tmp_path / "a.flac").write_bytes(data[: len(data) * 2 // 3])
        (found,) = predict(predictor, [str(tmp_path / "a.flac")])
        assert "truncated" in (found.note or "")

    def test_one_head_alone(self, bundle: Path, predictor: Predictor) -> None:
        whole = predict(predictor, songs(), seconds=0.3)
        for columns in (["sound"], ["place"], ["place", "sound", "place"]):
            alone = load_predictor(bundle, columns=columns, precision="fp32")
            assert [head.column for head in alone.heads] == list(dict.fromkeys(columns))
            for one, all_ in zip(predict(alone, songs(), seconds=0.3), whole, strict=True):
                assert list(one.probabilities) == list(one.timelines) == list(dict.fromkeys(columns))
                for column in columns:
                    np.testing.assert_allclose(one.probabilities[column], all_.probabilities[column], atol=1e-6)


class TestTimelines:
    @pytest.mark.parametrize("seconds", [FINEST, 0.1, 0.5, 100.0])
    def test_a_head_on_the_embedding_hears_each_stretch(
        self, bundle: Path, predictor: Predictor, seconds: float
    ) -> None:
        head, _ = heads_of(bundle)
        model = poolembed.load(bundle, precision="fp32")
        embedded = list(model.outcomes(songs(), seconds=seconds))
        for song, found in zip(embedded, predict(predictor, songs(), seconds), strict=True):
            assert isinstance(song, Embedded)
            assert song.segments is not None
            timeline = found.timelines["sound"]
            expected = head.probabilities(torch.from_numpy(song.segments.embeddings)).detach().numpy()
            np.testing.assert_allclose(timeline.probabilities, expected, rtol=0, atol=1e-5)
            np.testing.assert_array_equal(timeline.start, song.segments.times)
            np.testing.assert_allclose(timeline.end[:-1], timeline.start[1:])
            assert timeline.end[-1] <= song.duration

    def test_a_head_on_frames_at_its_finest_hears_each_frame(self, bundle: Path, predictor: Predictor) -> None:
        _, head = heads_of(bundle)
        found = predict(predictor, songs(), FINEST)
        for seed, length in enumerate(LENGTHS):
            expected = head.frame_probabilities(frame_features(length, seed))[0].T.detach().numpy()
            timeline = found[seed].timelines["place"]
            stretches = len(timeline.start)  # without a last one that holds only the frame on the song's end
            assert len(expected) - stretches in (0, 1)
            np.testing.assert_allclose(timeline.probabilities, expected[:stretches], rtol=0, atol=1e-5)
            np.testing.assert_allclose(timeline.start, FINEST * np.arange(stretches))

    def test_it_tells_when(self, tmp_path: Path, save_tiny: Callable[..., Path]) -> None:
        """A head that learned noise from silence finds the noise that is hidden in a song of silence."""
        song = np.zeros(20 * RATE, np.float32)
        song[7 * RATE : 9 * RATE] = 0.3 * np.random.default_rng(0).standard_normal(2 * RATE)
        network, (_, head) = tiny_network(), tiny_heads()
        assert isinstance(head, FrameHead)
        with torch.no_grad():
            windows = torch.stack([torch.zeros(network.window_samples), 0.3 * torch.randn(network.window_samples)])
            frames = network.features(windows)[0]
        optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
        for _ in range(100):
            p = head.frame_probabilities(frames)
            loss = functional.binary_cross_entropy(p, torch.eye(2).flip(0).unsqueeze(-1).expand_as(p))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        predictor = load_predictor(save_tiny(tmp_path, heads=[head]), precision="fp32")
        (found,) = predict(predictor, [(song, RATE)], FINEST)
        loud_at = [i for i in intervals(predictor.heads[0], found.timelines["place"], 0.5) if i.labels[0][0] == "in"]
        assert len(loud_at) == 1
        assert loud_at[0].start == pytest.approx(7, abs=0.1)
        assert loud_at[0].end == pytest.approx(9, abs=0.1)
        assert loud_at[0].labels[0][1] > 0.9

    @pytest.mark.parametrize("seconds", [0.0, -1.0, FINEST / 2, float("inf"), float("nan")])
    def test_stretches_that_cannot_be(self, predictor: Predictor, seconds: float) -> None:
        with pytest.raises(UsageError, match="seconds"):
            predict(predictor, songs(), seconds)


HEAD = HeadConfig(column="x", labels=("a", "b"), multi_label=True)
probabilities = st.sampled_from([0.0, 0.2, 0.49, 0.5, 0.7, 1.0])


def timeline_of(rows: list[tuple[float, float]], seconds: float = 0.5) -> Timeline:
    start = seconds * np.arange(len(rows), dtype=np.float64)
    values: NDArray[np.float32] = np.array(rows, np.float32).reshape(-1, 2)
    return Timeline(start, start + seconds, values)


class TestIntervals:
    def test_by_hand(self) -> None:
        rows = [(0.875, 0.125), (0.625, 0.5), (0.25, 0.75), (0.5, 0.25)]
        assert intervals(HEAD, timeline_of(rows), 0.5) == [
            Moment(0.0, 1.0, [("a", 0.875)]),
            Moment(0.5, 1.5, [("b", 0.75)]),
            Moment(1.5, 2.0, [("a", 0.5)]),
        ]
        assert intervals(HEAD, timeline_of([]), 0.5) == []

    @given(st.lists(st.tuples(probabilities, probabilities), max_size=12), probabilities)
    def test_runs_of_stretches_that_reach_the_threshold(
        self, rows: list[tuple[float, float]], threshold: float
    ) -> None:
        expected = []
        for label in range(2):
            place = 0
            for heard, run in groupby(rows, key=lambda row: np.float32(row[label]) >= threshold):
                values = [np.float32(row[label]) for row in run]
                if heard:
                    ends = (0.5 * place, 0.5 * (place + len(values)))
                    expected.append((*ends, HEAD.labels[label], float(max(values))))
                place += len(values)
        found = [(i.start, i.end, *i.labels[0]) for i in intervals(HEAD, timeline_of(rows), threshold)]
        assert sorted(found) == sorted(expected)
        assert [start for start, *_ in found] == sorted(start for start, *_ in found)


def test_the_most_probable_labels() -> None:
    head = HeadConfig(column="x", labels=("a", "b", "c", "d"))
    values = np.array([0.125, 0.375, 0.125, 0.375], np.float32)
    assert [label for label, _ in top(head, values, 3)] == ["b", "d", "a"]
    assert top(head, values, 1) == [("b", 0.375)]
    assert len(top(head, values, 99)) == 4


class TestLoading:
    def test_a_model_without_heads_says_how_to_get_one(self, bundles: Path) -> None:
        with pytest.raises(BundleError, match="poolembed train") as caught:
            load_predictor(bundles / "mean")
        assert str(bundles / "mean") in caught.value.message

    def test_a_head_that_is_not_there(self, bundle: Path) -> None:
        with pytest.raises(UsageError, match="smell") as caught:
            load_predictor(bundle, columns=["sound", "smell"])
        assert "sound, place" in str(caught.value)

    def test_no_model(self) -> None:
        with pytest.raises(BundleNotFoundError):
            load_predictor("nowhere")

    def test_options_are_not_ignored(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = mock.Mock(wraps=Engine)
        monkeypatch.setattr("poolembed.embed.model.Engine", engine)
        load_predictor(bundle, device="cpu", precision="bf16", batch_size=3, workers=5)
        assert engine.call_args.args[1].dtype == torch.bfloat16
        assert {"batch_size": 3, "workers": 5}.items() <= engine.call_args.kwargs.items()
        with pytest.raises(UsageError):
            load_predictor(bundle, device="gpu")  # type: ignore[arg-type]
