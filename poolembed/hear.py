"""The HEAR 2021 API, so that the benchmark's own kit can run a poolembed model.

    heareval.embeddings.runner poolembed.hear --model base

Turian et al., "HEAR: Holistic Evaluation of Audio Representations", PMLR 176, 2022. Audio is ``(n_sounds, n_samples)``
at ``model.sample_rate``, full scale 1; timestamps are in milliseconds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poolembed.embed.model import Model, load
from poolembed.embed.song import Embedded, Outcome
from poolembed.errors import AudioError


class HearModel(nn.Module):
    """A model with the attributes that HEAR asks for.

    Attributes:
        sample_rate: of the audio it takes, in Hz.
        scene_embedding_size: length of a scene's embedding.
        timestamp_embedding_size: length of a timestamp's embedding.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.sample_rate = model.sample_rate
        self.scene_embedding_size = model.embedding_size
        self.timestamp_embedding_size = model.embedding_size


def load_model(model_file_path: str = "") -> HearModel:
    """Load a model.

    Args:
        model_file_path: name or path of a bundle; empty for ``base``.
    """
    return HearModel(load(model_file_path or "base"))


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """One embedding per sound.

    Args:
        audio: ``(n_sounds, n_samples)``.
        model: from `load_model`.

    Returns:
        ``(n_sounds, scene_embedding_size)`` float32, on the device of `audio`.

    Raises:
        AudioError: a sound has no samples, or none that is finite.
        ValueError: `audio` is not two-dimensional.
    """
    songs = [song.embedding for song in _embed(audio, model, None)]
    return torch.stack([torch.from_numpy(song) for song in songs]).to(audio.device)


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Embeddings of each sound over time, as fine as the model resolves it.

    Args:
        audio: ``(n_sounds, n_samples)``.
        model: from `load_model`.

    Returns:
        ``(n_sounds, n_timestamps, timestamp_embedding_size)`` float32 and ``(n_sounds, n_timestamps)`` centres of the
        stretches in milliseconds, both on the device of `audio`.

    Raises:
        AudioError: a sound has no samples, or none that is finite.
        ValueError: `audio` is not two-dimensional.
    """
    seconds = model.model.time_resolution
    embeddings, centres = [], []
    for song in _embed(audio, model, seconds):
        assert song.segments is not None
        embeddings.append(torch.from_numpy(song.segments.embeddings))
        centres.append(torch.from_numpy((song.segments.times + seconds / 2) * 1000).float())
    return torch.stack(embeddings).to(audio.device), torch.stack(centres).to(audio.device)


def _embed(audio: Tensor, model: HearModel, seconds: float | None) -> list[Embedded]:
    if audio.dim() != 2:
        raise ValueError(f"audio must be (n_sounds, n_samples), got {tuple(audio.shape)}")
    sounds = ((sound, model.sample_rate) for sound in audio.detach().cpu().numpy())
    return [_embedded(outcome) for outcome in model.model.outcomes(sounds, seconds=seconds)]


def _embedded(outcome: Outcome) -> Embedded:
    if isinstance(outcome, Embedded):
        return outcome
    raise AudioError(f"sound {outcome.index}: {outcome.reason}")
