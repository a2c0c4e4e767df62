"""Which clips a step sees and where its crops begin, and the batches cut from the cache ahead of time.

Stateless: everything random is a function of the seed and the number of the step, so a run that resumes at step n goes
on with exactly the batches it would have had, and there is no generator to store.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poolembed.errors import UsageError

if TYPE_CHECKING:
    from poolembed.nn.config import EncoderConfig, ModelConfig
    from poolembed.train.cache import MelCache

T = TypeVar("T")

LONGEST_CROP = 10.24
"""Seconds of the longest training crop, where the user names none."""


def generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """A generator of its own for each purpose and step: NumPy's Philox, which draws the same numbers everywhere."""
    key = hashlib.blake2b(repr((seed, purpose, *numbers)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order ``(n,)`` in which an epoch goes through n clips."""
    return generator(seed, "order", epoch).permutation(n).astype(np.int64)


@dataclass(frozen=True)
class Tensors:
    """Tensors of a batch, which move together."""

    def pinned(self) -> Self:
        """The same in page-locked memory, from which CUDA copies while it computes."""
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(self, **{name: change(t) for name, t in vars(self).items() if isinstance(t, Tensor)})


@dataclass(frozen=True)
class Batch(Tensors):
    """Crops of clips, or whole clips window by window.

    Attributes:
        mel: ``(R, W, F, n_mels)`` uint8 levels (`dequantise` makes log-mels of them). Around the clip they are as they
            are when embedding: what still reaches its samples, a frame or two, then level 0. For an encoder with
            context W is 1: the crop is one window, its context before and after it included in F.
        start: ``(R,)`` int64, the first frame of the crop, its context aside, that is the clip's.
        frames: ``(R,)`` int64, how many from there on are.
        heard: ``(R, 2)`` int64, the first of the W F frames that is the clip's, be it in the context, and the first
            behind it that is not.
        clips: ``(R,)`` int64, numbers of the clips in the run's table.
    """

    mel: Tensor
    start: Tensor
    frames: Tensor
    heard: Tensor
    clips: Tensor


class Sampler:
    """The clips of every step, and where crops of them begin.

    An epoch is one permutation of the clips, cut into steps of one size; clips that are left over wait for the next
    epoch's permutation. Several processes share a step: each takes every n-th clip of it, and together they see what
    one process would have.

    Args:
        clips: numbers of the training clips in the run's table.
        batch_size: clips per step, over all processes; a smaller set of clips is one step.
        seed: of everything drawn.
        views: crops of each clip.
        partners: labels of each clip of `clips`. The views after the first are then of other clips that share a label
            with it, drawn label first; a clip that shares none is its own partner. None: all views are of the clip.
        rank: number of this process.
        ranks: number of processes.

    Raises:
        UsageError: no clips, or fewer than processes.
    """

    def __init__(
        self,
        clips: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        views: int = 1,
        partners: Sequence[Sequence[str]] | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.batch_size = min(batch_size, len(clips))
        if self.batch_size < ranks:
            raise UsageError(f"{self.batch_size} clips a step are too few for {ranks} processes")
        self.seed = seed
        self.views = views
        self._clips = np.asarray(clips, np.int64)
        self._mine = slice(rank, None, ranks)
        self._order = -1, np.zeros(0, np.int64)  # the last epoch's: a million clips take a while to shuffle
        self._labels = partners
        self._members: dict[str, list[int]] = {}
        for position, labels in enumerate(partners or ()):
            for label in labels:
                self._members.setdefault(label, []).append(position)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every clip is seen once, but for those left over."""
        return len(self._clips) // self.batch_size

    def clips(self, step: int) -> NDArray[np.int64]:
        """Numbers of this process's clips, view by view: ``(V B,)``."""
        epoch, part = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = epoch, epoch_order(len(self._clips), self.seed, epoch)
        first = self._order[1][part * self.batch_size :][: self.batch_size]
        views = [first] * self.views
        if self._labels is not None:
            random = generator(self.seed, "partners", step)
            views[1:] = [self._partners(first, random) for _ in views[1:]]
        clips: NDArray[np.int64] = self._clips[np.concatenate([view[self._mine] for view in views])]
        return clips

    def starts(self, step: int, spare: NDArray[np.int64], ahead: NDArray[np.int64] | int = 0) -> NDArray[np.int64]:
        """Where crops begin, uniform over the valid starts.

        Args:
            step: number of the step.
            spare: ``(V B,)`` how much longer than the crop each of `clips` is; at most 0 for one that fits.
            ahead: ``(V B,)`` by how much a crop may begin before its clip.

        Returns:
            ``(V B,)``, each in ``[-ahead, max(spare, 0)]``.
        """
        drawn = generator(self.seed, "starts", step).random((self.views, self.batch_size))[:, self._mine].reshape(-1)
        starts: NDArray[np.int64] = np.floor(drawn * (ahead + np.maximum(spare, 0) + 1)).astype(np.int64) - ahead
        return starts

    def _partners(self, positions: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        assert self._labels is not None
        partners = positions.copy()
        drawn = random.random((len(positions), 2))
        for row, position in enumerate(positions.tolist()):
            shared = [label for label in self._labels[position] if len(self._members[label]) > 1]
            if shared:
                members = self._members[shared[int(drawn[row, 0] * len(shared))]]
                other = int(drawn[row, 1] * (len(members) - 1))
                partners[row] = members[other + (other >= bisect_left(members, position))]
        return partners


class Crops:
    """Cuts the batches of a run out of the cache.

    Args:
        cache: filled.
        rows: cache row of every clip of the run's table; None where there is none.
        window_frames: mel frames of the windows that the network sees.
        context: mel frames before and after a window that it sees too (`EncoderConfig.context_frames`).
        resolution: mel frames that a frame feature stands for.
        shift: most mel frames that a crop of `batch` may begin before its clip. A crop has one frame feature at least,
            so one of a clip shorter than that begins where the clip does.
    """

    def __init__(
        self,
        cache: MelCache,
        rows: Sequence[int | None],
        *,
        window_frames: int,
        context: tuple[int, int] = (0, 0),
        resolution: int = 1,
        shift: int = 0,
    ) -> None:
        self._cache = cache
        self._rows = np.array([-1 if row is None else row for row in rows], np.int64)
        self._frames = np.array([0 if row is None else cache.frames(row) for row in rows], np.int64)
        self._window = window_frames
        self._before, self._after = context
        self._resolution, self._shift = resolution, shift

    @classmethod
    def of(cls, cache: MelCache, rows: Sequence[int | None], encoder: EncoderConfig, *, shift: int = 0) -> Crops:
        """Crops as an encoder sees them."""
        return cls(
            cache,
            rows,
            window_frames=encoder.window_frames,
            context=encoder.context_frames,
            resolution=encoder.time_reduction,
            shift=shift,
        )

    def batch(self, sampler: Sampler, step: int, windows: int) -> Batch:
        """The crops of a step: clips longer than W windows are cropped at random, shorter ones padded."""
        clips = sampler.clips(step)
        frames, length = self._frames[clips], windows * self._window
        most = min(self._shift, length - self._resolution)
        ahead = np.where(frames < self._resolution, 0, most)
        return self.cut(clips, sampler.starts(step, frames - length, ahead), windows)

    def whole(self, clips: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """Every window of the clips, in order and uncropped, W = 1 and `batch_size` windows at a time.

        Memory does not depend on how long the clips are. A clip's windows may straddle two batches.
        """
        numbers, starts = window_starts(np.asarray(clips, np.int64), self._frames, self._window)
        for first in range(0, len(numbers), batch_size):
            part = slice(first, first + batch_size)
            yield self.cut(numbers[part], starts[part], 1)

    def cut(self, clips: NDArray[np.int64], starts: NDArray[np.int64], windows: int) -> Batch:
        """Crops of W windows, from the frames where they start, before the clip if negative; padded around the clip."""
        length = windows * self._window
        total = self._before + length + self._after
        rows = self._rows[clips]
        # By numpy: torch would fill it in several threads, which take the processor from those that train.
        mel = np.zeros((len(clips), total, self._cache.n_mels), np.uint8)
        for out, row, start in zip(mel, rows.tolist(), starts.tolist(), strict=True):
            self._cache.write(out, row, start - self._before)
        edges = np.stack([np.zeros_like(starts), self._frames[clips]], 1) - (starts - self._before)[:, None]
        first, stop = np.maximum(-starts, 0), np.minimum(self._frames[clips] - starts, length)
        with_context = total > length
        return Batch(
            mel=torch.from_numpy(mel).view(len(clips), 1 if with_context else windows, -1, self._cache.n_mels),
            start=torch.from_numpy(first),
            frames=torch.from_numpy(stop - first),
            heard=torch.from_numpy(edges.clip(0, total)),
            clips=torch.from_numpy(clips.copy()),
        )


def window_starts(
    clips: NDArray[np.int64], frames: NDArray[np.int64], window_frames: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The windows of clips, one after the other: number of the clip, and frame at which the window starts.

    Args:
        clips: numbers.
        frames: mel frames of every clip of the table.
        window_frames: frames of a window.
    """
    counts = -(-frames[clips] // window_frames)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(clips, counts), (np.arange(len(first)) - first) * window_frames


def crop_windows(model: ModelConfig, seconds: float | None, longest: int) -> int:
    """Windows of a training crop.

    Args:
        model: architecture.
        seconds: that are asked for, to the millisecond; None: as the longest clip, up to `LONGEST_CROP`.
        longest: mel frames of the longest clip.
    """
    hop = model.frontend.hop_length / model.frontend.sample_rate
    seconds = min(longest * hop, LONGEST_CROP) if seconds is None else seconds
    return max(1, -(-round(seconds * 1000) // round(model.encoder.window_frames * hop * 1000)))


class Prefetcher(Generic[T]):
    """Makes the next things in a thread of its own, a few ahead of who iterates over it. A context manager.

    Args:
        make: called with each number in turn, in the thread; its error is raised by the iteration, in its place.
        numbers: what to make: the numbers of the steps.
        ahead: how many may wait to be taken.

    Attributes:
        waited: seconds that the consumer has waited so far.
    """

    def __init__(self, make: Callable[[int], T], numbers: Iterable[int], *, ahead: int = 4) -> None:
        self.waited = 0.0
        self._made: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(make, iter(numbers)), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._closed.is_set():
            raise StopIteration
        began = time.perf_counter()
        made = self._made.get()
        self.waited += time.perf_counter() - began
        if isinstance(made, tuple):
            return made[0]
        self.close()
        if made is None:
            raise StopIteration
        raise made

    def _work(self, make: Callable[[int], T], numbers: Iterator[int]) -> None:
        try:
            for number in numbers:
                if not self._put((make(number),)):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001 - re-raised in the consumer's thread
            self._put(error)

    def _put(self, made: tuple[T] | BaseException | None) -> bool:
        """Hand over; False once nobody takes any more."""
        while not self._closed.is_set():
            try:
                self._made.put(made, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def close(self) -> None:
        """End the thread, whatever it has made; twice is once."""
        self._closed.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
