"""The stages of embedding, each by itself, and the two loops that embed without poolembed's engine."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from poolembed.audio.decode import open_audio
from poolembed.audio.find import find_audio
from poolembed.audio.resample import resample_blocks
from poolembed.audio.source import open_source
from poolembed.embed.device import exact_and_single_threaded
from poolembed.embed.merging import Merger
from poolembed.embed.windows import WindowShape, cut_windows
from poolembed.nn.model import SongModel
from tests.benchmarks.common import on_bare_threads

HELD = 20 * 60.0
"""Seconds of audio that are held in memory for the stages after decoding."""

T = TypeVar("T")
Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Song:
    """A file, its suffix without the dot, and the seconds of audio in it."""

    path: str
    format: str
    seconds: float


def find_songs(directory: str, minutes: float | None) -> list[Song]:
    """The songs below a directory, in order, or of every format in turn until there are so many minutes.

    Decodes each once, which also brings it into the page cache.
    """
    groups: dict[str, list[str]] = {}
    for file in find_audio([directory], on_error=_refuse):
        groups.setdefault(Path(file.path).suffix[1:].lower(), []).append(file.path)
    if not groups:
        raise SystemExit(f"no songs in {directory}; tests/benchmarks/fetch_songs.sh gets some")
    songs: list[Song] = []
    for paths in zip_longest(*groups.values()):
        for path, suffix in zip(paths, groups, strict=True):
            if path is not None and (minutes is None or total_seconds(songs) < 60 * minutes):
                songs.append(Song(path, suffix, decode(path)))
    return sorted(songs, key=lambda song: song.path)


def _refuse(path: str, reason: str) -> None:
    raise SystemExit(f"{path}: {reason}")


def total_seconds(songs: list[Song]) -> float:
    return sum(song.seconds for song in songs)


def longest_first(songs: list[Song]) -> list[str]:
    """Paths in the order that wastes least at the end, when one thread still has a song and the others have none."""
    return [song.path for song in sorted(songs, key=lambda song: -song.seconds)]


def decode(path: str) -> float:
    """D: a file to mono at its own rate, dropped; the seconds in it."""
    with open_audio(path) as stream:
        for _ in stream.blocks():
            pass
        return stream.samples / stream.sample_rate


class Stages:
    """What the stages after decoding work on: the same share of every song, in memory, ready for each stage.

    Only full windows and full batches, so no stage spends time on padding, as the engine must at the end of a song.

    Args:
        songs: to take it from.
        network: as it embeds.
        batch_size: windows per batch.
    """

    def __init__(self, songs: list[Song], network: SongModel, batch_size: int) -> None:
        self._network, self._batch_size = network, batch_size
        self._rate = network.config.frontend.sample_rate
        share = min(1.0, HELD / total_seconds(songs))
        self._blocks = [_first_part(song.path, share * song.seconds) for song in songs]
        shape = WindowShape.of(network.config)
        self._window_seconds = shape.frames * shape.hop_length / self._rate
        windows = [
            torch.from_numpy(window.samples.copy())
            for blocks, rate in self._blocks
            for window in cut_windows(resample_blocks(blocks, rate, self._rate), shape)
            if window.frames == shape.frames
        ]
        self._windows = torch.stack(windows).to(network.device)
        self._after_mel = without_frontend(network)
        with torch.inference_mode():
            self._mels = torch.cat([network.frontend(some) for some in torch.split(self._windows, batch_size)])

    def resample(self, threads: int) -> float:
        """R: mono blocks to the model's rate."""

        def work(item: tuple[list[Samples], int]) -> None:
            for _ in resample_blocks(*item, self._rate):
                pass

        seconds = sum(sum(map(len, blocks)) / rate for blocks, rate in self._blocks)
        return self._speed(threads, self._blocks, seconds, work)

    def mel(self, threads: int) -> float:
        """M: windows to log-mel."""
        return self._network_speed(threads, self._windows, self._network.frontend, self._batch_size)

    def encode(self, threads: int, batch_size: int | None = None) -> float:
        """N: log-mel to packed states (normalise, encode, fold, pack)."""
        size = batch_size or self._batch_size
        return self._network_speed(threads, self._mels, lambda mels: packed_states(self._after_mel, mels), size)

    def _network_speed(self, threads: int, windows: Tensor, work: Callable[[Tensor], Tensor], size: int) -> float:
        size = min(size, len(windows))
        batches = torch.split(windows[: len(windows) // size * size], size)

        def run(batch: Tensor) -> None:
            with torch.inference_mode():
                work(batch)

        with exact_and_single_threaded():
            seconds = self._window_seconds * size * len(batches)
            return self._speed(threads if self._network.device.type == "cpu" else 1, batches, seconds, run)

    def _speed(self, threads: int, items: Sequence[T], seconds: float, work: Callable[[T], None]) -> float:
        """Seconds of audio per second, from a run of about two seconds after one that warms up."""

        def timed(repeats: int) -> float:
            began = time.perf_counter()
            on_bare_threads(threads, [*items] * repeats, work)
            if self._network.device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - began

        repeats = max(1, math.ceil(2.0 / timed(1)))
        return repeats * seconds / timed(repeats)


def _first_part(path: str, seconds: float) -> tuple[list[Samples], int]:
    blocks, samples = [], 0
    with open_audio(path) as stream:
        for block in stream.blocks():
            blocks.append(block)
            samples += len(block)
            if samples >= seconds * stream.sample_rate:
                break
        return blocks, stream.sample_rate


def without_frontend(network: SongModel) -> SongModel:
    """The same network for windows that are log-mel already."""
    network = copy.deepcopy(network)
    network.frontend = nn.Identity()  # type: ignore[assignment]
    return network


def packed_states(network: SongModel, windows: Tensor, frames: Tensor | None = None) -> Tensor:
    """One packed state per window, of all its mel frames or of the first `frames`."""
    if frames is None:
        frames = torch.full((len(windows),), network.config.encoder.window_frames, device=network.device)
    return network.pack(network.fold(network.features(windows), torch.zeros_like(frames), frames))


class BareLoop:
    """Embeds one song after another on the calling thread, through poolembed's stages and without its engine.

    Args:
        head: the model in float32.
        network: as it embeds.
        batch_size: windows of the song per batch.
    """

    def __init__(self, head: SongModel, network: SongModel, batch_size: int) -> None:
        self._head, self._network, self._batch_size = head, network, batch_size
        self._shape = WindowShape.of(network.config)

    def embed(self, path: str) -> Tensor:
        merger, windows, frames = Merger(self._head), torch.zeros(self._batch_size, self._shape.samples), list[int]()

        def flush() -> None:
            for state in packed_states(self._network, windows[: len(frames)], torch.tensor(frames)):
                merger.add(state)
            frames.clear()

        with torch.inference_mode(), open_source(path, self._network.config.frontend.sample_rate) as source:
            for window in cut_windows(source.blocks(), self._shape):
                windows[len(frames)].numpy()[:] = window.samples
                frames.append(window.frames)
                if len(frames) == self._batch_size:
                    flush()
            if frames:
                flush()
            return merger.embedding()


class PlainLoop:
    """Embeds one song after another as one would without poolembed: librosa, then the network in float32.

    torch has its default threads here. The network is the same, batch norms not folded.

    Args:
        head: the model in float32.
    """

    def __init__(self, head: SongModel) -> None:
        self._network = without_frontend(head)
        self._config = head.config

    def embed(self, path: str) -> Tensor:
        mel, width = self._config.frontend, self._config.encoder.window_frames
        samples, _ = librosa.load(path, sr=mel.sample_rate, mono=True)
        power = librosa.feature.melspectrogram(
            y=samples,
            sr=mel.sample_rate,
            n_fft=mel.n_fft,
            hop_length=mel.hop_length,
            n_mels=mel.n_mels,
            fmin=mel.f_min,
            fmax=mel.f_max,
        )
        frames = np.log(np.maximum(power, mel.log_floor)).T
        count = -(-len(frames) // width)
        before, after = self._config.encoder.context_frames
        padded = np.full((before + count * width + after, mel.n_mels), math.log(mel.log_floor), np.float32)
        padded[before : before + len(frames)] = frames
        real = torch.full((count,), width)
        real[-1] = len(frames) - (count - 1) * width
        with torch.inference_mode():
            windows = torch.from_numpy(padded).unfold(0, before + width + after, width).transpose(1, 2)
            pairs = zip(torch.split(windows, 8), torch.split(real, 8), strict=True)
            states = torch.cat([packed_states(self._network, *pair) for pair in pairs])
            return self._network.finalize(self._network.merge_rows(self._network.unpack(states)))[0]
