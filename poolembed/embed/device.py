"""Where and how precisely the network runs, and the call that runs it on one batch of windows."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from poolembed.audio.faults import summary_of
from poolembed.errors import PoolembedError, UsageError
from poolembed.nn.config import ModelConfig
from poolembed.nn.model import SongModel

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

BATCH_SIZES = {"cuda": 64, "mps": 32}
"""Windows per batch by device, unmeasured; that of the CPU depends on the network (`default_batch_size`)."""
CPU_ACTIVATIONS = 8 * 32 * 128 * 64
"""Numbers that the first stage of a batch's windows fills on the CPU: those of 8 windows of ``base``, the fastest of 1
to 64 (``tests/benchmarks/throughput.py --sweep``). More no longer fit the cache; with fewer, calling a layer costs more
than what it does."""


def choose_device(name: DeviceName) -> torch.device:
    """The device of that name; auto takes CUDA, then MPS, then the CPU.

    Raises:
        UsageError: the device is not there.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(each for each in ("cuda", "mps", "cpu") if available[each])
    if name not in available:
        raise UsageError(f"unknown device {name!r}", hint="use auto, cpu, cuda or mps")
    if not available[name]:
        raise UsageError(f"torch finds no {name} device on this machine", hint="use --device auto or cpu")
    return torch.device(name)


def default_batch_size(device: torch.device, config: ModelConfig) -> int:
    """Windows per batch unless asked otherwise: on the CPU the more, the smaller the network's first stage is."""
    if device.type != "cpu":
        return BATCH_SIZES[device.type]
    encoder = config.encoder
    frames = (encoder.window_frames + sum(encoder.context_frames)) // encoder.time_strides[0]
    bands = config.frontend.n_mels // 2
    return min(max(CPU_ACTIVATIONS // (encoder.widths[0] * frames * max(bands, 1)), 1), 64)


def choose_precision(name: PrecisionName, device: torch.device) -> torch.dtype:
    """The type the encoder computes in; auto takes bfloat16 where the processor multiplies it natively.

    Pooling, front end and projection stay in float32 or better whatever this is.

    Raises:
        UsageError: unknown name.
    """
    if name == "auto":
        if device.type == "cuda":
            name = "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
        else:
            name = "bf16" if device.type == "cpu" and _cpu_has_bfloat16() else "fp32"
    if name not in DTYPES:
        raise UsageError(f"unknown precision {name!r}", hint="use auto, fp32, bf16 or fp16")
    return DTYPES[name]


def _cpu_has_bfloat16() -> bool:
    # Emulated bfloat16 is slower than float32, and only newer releases of torch tell what the processor has.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _TorchSettings:
    """Torch's process-wide settings as they were before the first of the runs that are going on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs = 0
        self._before = (0, False)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._runs == 0:
                self._before = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
                torch.set_num_threads(1)
                torch.backends.cudnn.allow_tf32 = False
            self._runs += 1
        try:
            yield
        finally:
            with self._lock:
                self._runs -= 1
                if self._runs == 0 and not sys.is_finalizing():  # when parts of torch are gone
                    threads, torch.backends.cudnn.allow_tf32 = self._before
                    torch.set_num_threads(threads)


exact_and_single_threaded = _TorchSettings()
"""Context that keeps torch from splitting one operation over threads, and from TF32, while engines run.

The engine's own threads use all cores: each runs whole batches, which loses less than splitting every operation.
"""


@dataclass
class Batch:
    """Windows of any songs, side by side.

    Attributes:
        samples: ``(batch_size, window_samples)`` float32; pinned where the device is CUDA.
        bounds: per window, its slots' bounds in mel frames (`Stretches.bounds`).
        owners: per window, whose it is and its number there; opaque to this module.
        filled: windows whose samples are in place.
    """

    samples: Tensor
    bounds: list[list[int]]
    owners: list[tuple[object, int]]
    filled: int = 0


def ignore(size: int) -> None:
    """Take no notice that batches were halved. Unlike a lambda it can be pickled, and an engine with it."""


class Runner:
    """Runs the network on batches: windows in, packed states out.

    When the device is out of memory the batch is halved, from then on, and the work goes on.

    Args:
        network: as `SongModel.for_inference` made it.
        on_halved: told the new number of windows per call.
    """

    def __init__(self, network: SongModel, on_halved: Callable[[int], None]) -> None:
        self._network = network
        self._limit: int | None = None
        self._on_halved = on_halved
        cuda = network.device.type == "cuda"
        self._copies = torch.cuda.Stream(network.device) if cuda else None  # type: ignore[no-untyped-call]

    def start(self, batch: Batch) -> Callable[[], Tensor]:
        """Start a batch; the returned function waits for its ``(windows, slots, state_size)`` states on the CPU.

        Raises:
            PoolembedError: not even one window fits the device's memory, or the network fails; from the returned
                function too.
        """
        with self._failing():
            wait = self._start(batch)

        def waiting() -> Tensor:
            with self._failing():
                return wait()

        return waiting

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except PoolembedError:
            raise
        except Exception as error:
            raise PoolembedError(
                f"the network failed on {self._network.device}: {summary_of(error)}",
                hint="that is no song's fault: try --device cpu, or --batch-size 1 if memory is short; or report it",
            ) from error

    def _start(self, batch: Batch) -> Callable[[], Tensor]:
        count = len(batch.bounds)
        bounds = torch.tensor(batch.bounds)
        device = self._network.device
        if device.type == "cpu":
            states = self._states(batch.samples[:count], bounds)
            return lambda: states
        # Always the whole buffer, stale rows included, so that the device only ever sees one shape.
        padded = torch.zeros(len(batch.samples), bounds.shape[1], dtype=bounds.dtype)
        padded[:count] = bounds
        packed = self._states(batch.samples, padded).to("cpu", non_blocking=self._copies is not None)
        done = None
        if self._copies is not None:
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(torch.cuda.current_stream(device))

        def wait() -> Tensor:
            if done is not None:
                done.synchronize()
            return packed[:count]

        return wait

    def _states(self, samples: Tensor, bounds: Tensor) -> Tensor:
        while True:
            rows = self._limit or len(samples)
            try:
                pairs = zip(torch.split(samples, rows), torch.split(bounds, rows), strict=True)
                return torch.cat([self._chunk(*map(self._move, pair)) for pair in pairs])
            except torch.OutOfMemoryError as error:
                if rows == 1:
                    raise PoolembedError(
                        f"{self._network.device} has no memory left for a single window",
                        hint="free some of it, or use --device cpu",
                    ) from error
            # Outside the handler, where the traceback no longer holds on to the failed call's tensors.
            self._limit = max(1, min(rows, len(samples)) // 2)
            torch.cuda.empty_cache()
            self._on_halved(self._limit)

    def _move(self, tensor: Tensor) -> Tensor:
        """To the device; on CUDA beside the computation that is going on there."""
        device = self._network.device
        if self._copies is None:
            return tensor.to(device)
        with torch.cuda.stream(self._copies):
            moved = tensor.pin_memory().to(device, non_blocking=True)  # a batch's samples are pinned already
        torch.cuda.current_stream(device).wait_stream(self._copies)
        moved.record_stream(torch.cuda.current_stream(device))
        return moved

    def _chunk(self, samples: Tensor, bounds: Tensor) -> Tensor:
        features = self._network.features(samples)
        slots = [
            self._network.pack(self._network.fold(features, bounds[:, slot], bounds[:, slot + 1]))
            for slot in range(bounds.shape[1] - 1)
        ]
        return torch.stack(slots, dim=1)
