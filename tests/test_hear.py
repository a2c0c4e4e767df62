"""The API that HEAR's own kit calls (hearbenchmark.com/hear-api.html)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import poolembed
from poolembed import AudioError, hear


@pytest.fixture(scope="module")
def model() -> hear.HearModel:
    return hear.load_model()


@pytest.fixture(scope="module")
def audio(model: hear.HearModel) -> torch.Tensor:
    return torch.randn(3, 7 * model.sample_rate + 123, generator=torch.Generator().manual_seed(1)) / 10


def test_the_attributes_that_the_kit_reads(model: hear.HearModel) -> None:
    assert (model.sample_rate, model.scene_embedding_size, model.timestamp_embedding_size) == (32000, 512, 512)


def test_a_scene_is_the_song(model: hear.HearModel, audio: torch.Tensor) -> None:
    scenes = hear.get_scene_embeddings(audio, model)
    assert scenes.shape == (3, 512)
    assert scenes.dtype == torch.float32
    song = poolembed.load("base").embed(audio[1].numpy(), sample_rate=model.sample_rate)
    np.testing.assert_allclose(scenes[1].numpy(), song, rtol=0, atol=1e-6)


def test_timestamps_are_centres_in_milliseconds(model: hear.HearModel, audio: torch.Tensor) -> None:
    embeddings, timestamps = hear.get_timestamp_embeddings(audio, model)
    step = 1000 * model.model.time_resolution
    assert embeddings.shape == (*timestamps.shape, 512)
    assert timestamps.dtype == torch.float32
    torch.testing.assert_close(timestamps[0], (torch.arange(timestamps.shape[1]) + 0.5) * step)
    assert 7000 - step < timestamps[0, -1] < 7000 + step
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(timestamps.shape))


def test_what_sounds_where_shows_in_the_timestamps(model: hear.HearModel) -> None:
    audio = torch.zeros(1, 10 * model.sample_rate)
    audio[0, 5 * model.sample_rate :] = torch.randn(5 * model.sample_rate, generator=torch.Generator().manual_seed(2))
    embeddings, timestamps = hear.get_timestamp_embeddings(audio, model)
    # Well inside the two halves, for the encoder sees some frames to both sides.
    quiet, loud = embeddings[0, timestamps[0] < 3000], embeddings[0, timestamps[0] > 7000]
    apart = (quiet @ loud.T).mean()
    assert (quiet @ quiet.T).mean() > apart + 0.3
    assert (loud @ loud.T).mean() > apart + 0.3


def test_wrong_audio(model: hear.HearModel) -> None:
    with pytest.raises(ValueError, match="n_sounds"):
        hear.get_scene_embeddings(torch.zeros(32000), model)
    with pytest.raises(AudioError, match="sound 0"):
        hear.get_scene_embeddings(torch.full((2, 100), torch.nan), model)
