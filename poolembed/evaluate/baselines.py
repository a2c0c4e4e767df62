"""What a model has to be better than: statistics of the mel bands, and its own architecture before any training.

Neither sees a label. The norms of the untrained network are fitted to the clips that are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from poolembed.audio.excerpt import read_excerpts
from poolembed.audio.faults import costing_the_song
from poolembed.audio.source import Source, open_source
from poolembed.embed.device import exact_and_single_threaded, usable_cores
from poolembed.embed.windows import WindowShape, cut_windows
from poolembed.errors import AudioError
from poolembed.evaluate.clips import ClipVectors, clip_sources
from poolembed.labels import Clip
from poolembed.nn.frontend import LogMel
from poolembed.nn.model import SongModel

FITTED = 128
"""Clips, drawn at random, that the norms of an untrained network are fitted to."""

_FRAMES = 256
"""Mel frames computed at once."""

_BATCH = 32
"""Windows in one batch."""

_AHEAD = 64
"""Clips that are in work at once."""


def mel_statistics(clips: Sequence[Clip], frontend: LogMel, on_clip: Callable[[], None] = lambda: None) -> ClipVectors:
    """Mean and standard deviation over time of every log-mel band, as they are.

    Args:
        clips: what to describe.
        frontend: the log-mel front end of a model, on the CPU.
        on_clip: called when a clip is done.

    Returns:
        Vectors of ``2 * n_mels`` numbers: the means, then the standard deviations.
    """
    failures: dict[int, str] = {}
    found: dict[int, tuple[NDArray[np.float64], float]] = {}
    sources = clip_sources(clips, frontend.config.sample_rate, failures)
    with exact_and_single_threaded(), ThreadPoolExecutor(usable_cores()) as pool:
        while batch := list(islice(sources, _AHEAD)):
            results = pool.map(lambda item: _describe(item[1], frontend), batch)
            for (index, _), described in zip(batch, results, strict=True):
                if isinstance(described, AudioError):
                    failures[index] = described.message
                else:
                    found[index] = described
                on_clip()
    rows = sorted(found)
    table = np.array([found[row][0] for row in rows], np.float32).reshape(len(rows), 2 * frontend.config.n_mels)
    reasons = {clips[index].key: failures[index] for index in sorted(failures)}
    return ClipVectors(rows, table, [found[row][1] for row in rows], reasons, {})


def _describe(source: Source, frontend: LogMel) -> tuple[NDArray[np.float64], float] | AudioError:
    """Means and standard deviations ``(2 * n_mels,)``, and the seconds they are of."""
    config = frontend.config
    frames = 0
    total, squares = np.zeros((2, config.n_mels))
    try:
        with (
            costing_the_song(source),
            open_source(source, config.sample_rate) as song,
            torch.inference_mode(),
        ):
            for window in cut_windows(song.blocks(), WindowShape(_FRAMES, config.hop_length, config.n_fft)):
                mel = frontend(torch.from_numpy(window.samples)[None])[0, : window.frames].double()
                frames += window.frames
                total += mel.sum(0).numpy()
                squares += mel.square().sum(0).numpy()
            seconds = song.duration
    except AudioError as error:
        return error
    if not frames:
        return AudioError("no audio samples")
    mean = total / frames
    statistics = np.concatenate([mean, np.sqrt((squares / frames - mean**2).clip(0))])
    if not np.isfinite(statistics).all():
        return AudioError("samples too large: their mel bands are not finite")
    return statistics, seconds


def untrained(trained: SongModel, clips: Sequence[Clip], seconds: Sequence[float], *, seed: int = 0) -> SongModel:
    """A network of the same architecture, front end and initial pooling, whose weights were only drawn.

    Random convolutions keep a lot of what sounds alike together, provided that every norm fits the audio that comes in.
    So the running statistics of the norms are taken from windows of the clips; the projection is orthogonal.

    Args:
        trained: the network to copy the architecture of.
        clips: what will be scored; at least two that can be read.
        seconds: the length of each.
        seed: of the weights, and of which clips and windows the norms are fitted to.

    Returns:
        The network in eval mode, float32, on the CPU.

    Raises:
        AudioError: a clip can no longer be read.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SongModel(trained.config, trained.frontend.filterbank.clone())
        nn.init.orthogonal_(network.project.weight)
        nn.init.zeros_(network.project.bias)
    pieces = _pieces(clips, seconds, trained, np.random.default_rng(seed))
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.momentum = None  # a plain average over batches
    with torch.no_grad():
        _fit_encoder(network, np.concatenate(pieces))
        _fit_norm(network, pieces)
    return network.eval()


def _pieces(
    clips: Sequence[Clip], seconds: Sequence[float], network: SongModel, random: np.random.Generator
) -> list[NDArray[np.float32]]:
    """One window's length of samples, or less, from each of up to `FITTED` clips."""
    frontend = network.config.frontend
    length = network.config.encoder.window_frames * frontend.hop_length / frontend.sample_rate
    pieces: list[NDArray[np.float32]] = []
    order = np.array(sorted(range(len(clips)), key=lambda index: clips[index].key))  # that of the table does not matter
    for index in random.permutation(order)[:FITTED].tolist():
        start = clips[index].start + random.uniform(0, max(0.0, seconds[index] - length))
        end = min(start + length, clips[index].start + seconds[index])
        try:
            pieces += [samples for _, samples in read_excerpts(clips[index].path, frontend.sample_rate, [(start, end)])]
        except AudioError as error:
            raise AudioError(f"{clips[index].path}: {error.message}; a moment ago it could be read") from error
    return pieces


def _fit_encoder(network: SongModel, samples: NDArray[np.float32]) -> None:
    """Fit the norms of mel bands and encoder to samples without gaps: padding must not count as audio."""
    windows = _windows(samples, network)
    encoder, frames = network.config.encoder, 1 + len(samples) // network.config.frontend.hop_length
    before, after = encoder.context_frames
    # The last is padded; and so are those whose context reaches beyond the samples.
    first = -(-before // encoder.window_frames)
    last = min((frames - after) // encoder.window_frames, len(windows) - 1)
    windows = windows[first:last] if first < last else windows
    network.train()
    for batch in np.array_split(windows, -(-len(windows) // _BATCH)):
        network.features(torch.from_numpy(batch))


def _fit_norm(network: SongModel, pieces: Sequence[NDArray[np.float32]]) -> None:
    """Fit the norm before the projection to what it will see: pooled features of clips, padding left out."""
    network.eval()
    network.norm.train()
    hop = network.config.frontend.hop_length
    states: list[Tensor] = []
    for first in range(0, len(pieces), _BATCH):
        batch = pieces[first : first + _BATCH]
        windows = np.stack([_windows(samples, network)[0] for samples in batch])
        frames = torch.tensor([min(1 + len(samples) // hop, network.config.encoder.window_frames) for samples in batch])
        features = network.features(torch.from_numpy(windows))
        states.append(network.pack(network.fold(features, torch.zeros_like(frames), frames)))
    network.finalize(network.unpack(torch.cat(states)))


def _windows(samples: NDArray[np.float32], network: SongModel) -> NDArray[np.float32]:
    return np.stack([window.samples.copy() for window in cut_windows([samples], WindowShape.of(network.config))])
