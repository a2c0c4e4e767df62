"""What the tests of the bundle, the engine and the command line share: tiny models and generated songs."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from torch import nn

from poolembed.bundle import save_bundle
from poolembed.embed.windows import WindowShape
from poolembed.nn.config import EncoderConfig, FrontendConfig, HeadConfig, ModelConfig, PoolingConfig
from poolembed.nn.head import Head, build_head
from poolembed.nn.model import SongModel
from poolembed.nn.pooling import AttentionPool, TemporalPool
from poolembed.nn.statistics import AttentiveStatisticsPool

# No test may depend on chance or on how busy the machine is: the same examples every time, however long they take.
# `--hypothesis-profile random` looks at twice as many others; a failure prints the line that brings its example back.
_STEADY = settings(deadline=None, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", _STEADY, derandomize=True, max_examples=50)
settings.register_profile("random", _STEADY, derandomize=False)
settings.load_profile("steady")

RATE = 8000
HOP = 80
POOLINGS = ("mean", "max", "mean+max", "softmax", "autopool", "gem", "attention", "attentive-statistics")


def tiny_config(pooling: PoolingConfig | None = None, **parts: Any) -> ModelConfig:
    """A model small enough to run hundreds of windows in a blink: windows of 0.32 s, a feature every 0.04 s."""
    return ModelConfig(
        frontend=FrontendConfig(sample_rate=RATE, n_fft=256, hop_length=HOP, n_mels=16, f_max=4000.0),
        encoder=EncoderConfig(window_frames=32, widths=(4, 8), depth=1, time_strides=(2, 2), frame_features=12),
        pooling=pooling or PoolingConfig(),
        **{"embedding_size": 8, **parts},
    )


def tiny_network(config: ModelConfig | None = None, seed: int = 0) -> SongModel:
    """A seeded network in eval mode whose norms fit noise, and whose pooling has a different parameter per channel."""
    config = config or tiny_config()
    bins, mels = config.frontend.n_fft // 2 + 1, config.frontend.n_mels
    centres = torch.linspace(2, bins - 3, mels).unsqueeze(1)
    bank = (1 - (torch.arange(bins) - centres).abs() / (bins / mels)).clamp_min(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SongModel(config, bank)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.momentum = None
        samples = 0.1 * torch.randn(8, network.window_samples)
        with torch.no_grad():
            network.train()(samples, torch.full((8,), config.encoder.window_frames))
    pool = network.pools[0]
    low, high = (-0.5, 0.8) if isinstance(pool, AttentionPool | AttentiveStatisticsPool) else (0.0, 3.0)
    for parameter in pool.parameters():
        parameter.data += torch.linspace(low, high, parameter.numel()).reshape(parameter.shape)
    return network.eval()


def pools_of(network: SongModel) -> list[TemporalPool[Any]]:
    """The temporal poolings of a network, one a part of its features."""
    return [cast("TemporalPool[Any]", pool) for pool in network.pools]


def tiny_heads() -> list[Head]:
    """``sound``, of one label a clip, from a tiny model's embedding; ``place``, of several, from its frames."""
    configs = [
        HeadConfig(column="sound", labels=("dog", "rain", "crow")),
        HeadConfig(
            column="place",
            labels=("in", "out"),
            multi_label=True,
            pool="predictions",
            pooling=PoolingConfig(kind="autopool", alpha=4.0),
        ),
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        heads = [build_head(config, tiny_config()) for config in configs]
        for head in heads:
            for parameter in head.parameters():
                parameter.data += 0.2 * torch.rand_like(parameter) - 0.1
    return heads


def noise(samples: int, seed: int = 0) -> NDArray[np.float32]:
    """Noise that swells and fades, so that no two windows and no two songs are alike."""
    random = np.random.default_rng(seed)
    envelope = 0.1 + np.abs(np.sin(np.arange(samples) / (900 + 70 * seed)))
    colour = np.cos(np.arange(samples) * (0.1 + 0.05 * (seed % 7)))
    song: NDArray[np.float32] = (0.2 * envelope * (random.standard_normal(samples) + colour)).astype(np.float32)
    return song


def slow_windows(song: NDArray[np.float32], shape: WindowShape) -> list[tuple[NDArray[np.float32], int]]:
    """The definition: pad the whole song with zeros, slice; ``(samples, frames)`` of each window."""
    if not len(song):
        return []
    frames = 1 + len(song) // shape.hop_length
    ahead = shape.before * shape.hop_length + shape.n_fft // 2
    padded = np.concatenate([np.zeros(ahead), song, np.zeros(shape.samples + shape.n_fft)])
    return [
        (
            padded[first * shape.hop_length : first * shape.hop_length + shape.samples].astype(np.float32),
            min(shape.frames, frames - first),
        )
        for first in range(0, frames, shape.frames)
    ]


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_heard() -> None:
    """Shells start what runs in the background deaf to Ctrl-C, and so would be all that these tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _left_behind() -> set[str]:
    """Threads and, where the system lists them, processes that were started here and are still there."""
    threads = {f"{thread}" for thread in threading.enumerate() if thread is not threading.main_thread()}
    return threads | {f"process {child}" for child in children()}


def children() -> set[int]:
    """The processes that this one has started and that are there, where the system lists them."""
    found: set[str] = set()
    for each in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread that ended meanwhile
            found.update(each.read_text().split())
    return {int(child) for child in found if not _is_of_multiprocessing(child)}


def _is_of_multiprocessing(child: str) -> bool:
    """Whether it is the process that watches over shared memory, which stays for as long as this one."""
    with suppress(OSError):
        return b"resource_tracker" in Path("/proc", child, "cmdline").read_bytes()
    return False


@pytest.fixture(autouse=True, scope="module")
def nothing_left_behind() -> Iterator[None]:
    """Fails the last test of a module that leaves a thread or a process running."""
    before = _left_behind()
    yield
    left = _left_behind() - before
    assert not left, f"left behind: {left}"


@pytest.fixture(autouse=True)
def signals_as_they_were() -> Iterator[None]:
    """A command that is stopped ignores signals from then on, to end in peace, which here would outlast it."""
    numbers = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> Iterator[None]:
    """Splitting the tiny tensors of these tests over threads takes longer than computing them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def save_tiny() -> Callable[..., Path]:
    """Writes a tiny bundle below a directory and returns its path."""

    def save(
        root: Path,
        name: str = "tiny",
        pooling: PoolingConfig | None = None,
        seed: int = 0,
        heads: Sequence[Head] = (),
        nested: Sequence[int] = (),
        **parts: Any,
    ) -> Path:
        card = f"**{name} is for tests.** Not trained.\n\n# {name}\n"
        network = tiny_network(tiny_config(pooling, **parts), seed)
        save_bundle(root / name, network, name=name, license="CC0-1.0", card=card, heads=heads, nested=nested)
        return root / name

    return save


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory, save_tiny: Callable[..., Path]) -> Path:
    """A directory of tiny bundles, one per pooling and named after it, and ``other``, of other weights."""
    root = tmp_path_factory.mktemp("bundles")
    for kind in POOLINGS:
        save_tiny(root, kind, PoolingConfig(kind=kind))  # type: ignore[arg-type]
    save_tiny(root, "other", seed=1)
    return root


@pytest.fixture
def no_new_threads() -> Iterator[None]:
    """Fails a test that leaves threads behind."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert not left, f"threads left behind: {left}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Time that stands still until it is moved."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(time, "perf_counter", lambda: Clock.now)
    return Clock
