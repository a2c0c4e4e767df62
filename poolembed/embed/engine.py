"""The engine: songs to windows, windows of different songs to full batches, batches to states, states to embeddings.

One pool of worker threads. A worker takes the first of these that there is to do:

    1. on the CPU, run the network on a batch that is full;
    2. decode the next window of the song it has in hand, into the open batch;
    3. start the next song.

So no core waits while there is work, and at most one batch per worker is ever full and waiting. Where the network runs
on another device, a thread of its own feeds it and the workers only decode, held back when full batches pile up. A
batch that is not full runs only when no worker has a song in hand and none can be started: at the end, or when the
consumer is behind. Decoding, resampling, torch and copying all release Python's global lock.
"""

from __future__ import annotations

import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from itertools import count

import torch

from poolembed.audio.encoding import Encoding
from poolembed.audio.source import Source, open_source
from poolembed.embed.device import Batch, Runner, exact_and_single_threaded
from poolembed.embed.merging import SongMerger, Stretches
from poolembed.embed.song import Embedded, Failed, Outcome
from poolembed.embed.windows import Window, WindowShape, cut_windows
from poolembed.errors import AudioError, UsageError
from poolembed.nn.model import SongModel

LOOKAHEAD = 256
"""Songs that may be started and not yet consumed; bounds what waits for a slow song when order is kept."""

READY = 3
"""Full batches that may wait for a device."""


@dataclass
class _Song:
    """A song in work."""

    index: int
    source: Source
    merger: SongMerger
    windows: int = 0
    duration: float = 0.0
    note: str | None = None
    encoding: Encoding | None = None


class Engine:
    """Embeds songs with one model on one device.

    Args:
        head: the model on the CPU in float32; merges and finalises.
        network: the model as it runs on windows (`SongModel.for_inference`).
        batch_size: windows per batch.
        workers: threads that decode (and, on the CPU, run the network).
        on_halved: told the new batch size when the device ran out of memory.
    """

    def __init__(
        self,
        head: SongModel,
        network: SongModel,
        *,
        batch_size: int,
        workers: int,
        on_halved: Callable[[int], None] = lambda _: None,
    ) -> None:
        if batch_size < 1 or workers < 1:
            raise UsageError(f"batch size and workers must be at least 1, got {batch_size} and {workers}")
        self.head = head
        self.network = network
        self.batch_size = batch_size
        self.workers = workers
        self.on_halved = on_halved

    def run(
        self,
        sources: Iterable[Source],
        *,
        seconds: float | None = None,
        ordered: bool = True,
        stop: threading.Event | None = None,
        on_audio: Callable[[float], None] = lambda _: None,
    ) -> Generator[Outcome]:
        """Embed songs; yields one outcome a song, an `Embedded` or a `Failed` with its reason.

        Args:
            sources: paths, or (samples, sample rate) pairs. They are taken from the engine's threads, ahead of what is
                yielded: an iterator that waits for an outcome waits for ever.
            seconds: also embed every stretch of so many seconds.
            ordered: yield in the order of the sources; otherwise as the songs finish.
            stop: once set, no further song is started, and those in hand are finished.
            on_audio: told, from any thread, how many more seconds of audio were decoded.

        Raises:
            UsageError: `seconds` is infinite or below the model's time resolution.
        """
        check_seconds(self.head, seconds)
        with exact_and_single_threaded():
            run = _Run(self, sources, Stretches(self.head, seconds), stop or threading.Event(), on_audio)
            yield from run.outcomes(ordered)


def time_resolution(network: SongModel) -> float:
    """Seconds between two frame features, which is the shortest stretch that has a vector of its own."""
    frontend = network.config.frontend
    return network.config.encoder.time_reduction * frontend.hop_length / frontend.sample_rate


def check_seconds(network: SongModel, seconds: float | None) -> None:
    """Raise a UsageError unless stretches of so many seconds can be embedded."""
    resolution = time_resolution(network)
    if seconds is not None and not resolution <= seconds < math.inf:
        raise UsageError(
            f"one vector per {seconds:g} seconds is impossible; the least with this model is {resolution:g} seconds"
        )


class _Run:
    """One call of `Engine.run`: the state that its threads share, all of it under `_changed`."""

    def __init__(
        self,
        engine: Engine,
        sources: Iterable[Source],
        stretches: Stretches,
        stop: threading.Event,
        on_audio: Callable[[float], None],
    ) -> None:
        self._engine = engine
        self._stretches = stretches
        self._stop = stop
        self._on_audio = on_audio
        self._shape = WindowShape.of(engine.head.config)
        self._rate = engine.head.config.frontend.sample_rate
        self._runner = Runner(engine.network, engine.on_halved)
        self._inline = engine.network.device.type == "cpu"
        self._sources = iter(sources)
        self._pulling = threading.Lock()
        self._changed = threading.Condition()
        self._exhausted = self._aborted = False
        self._in_hand = 0  # workers that have a song to decode
        self._unconsumed = 0  # songs started and not yet taken by the consumer
        self._limit = max(LOOKAHEAD, 2 * engine.batch_size)
        self._indices = count()
        self._open: Batch | None = None
        self._full: deque[Batch] = deque()
        self._spare: list[torch.Tensor] = []
        self._outcomes: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()

    def outcomes(self, ordered: bool) -> Generator[Outcome]:
        """Start the threads and yield outcomes as songs finish, or each as soon as those before it are there."""
        threads = [threading.Thread(target=self._guard, args=(self._work,)) for _ in range(self._engine.workers)]
        if not self._inline:
            threads.append(threading.Thread(target=self._guard, args=(self._feed_device,)))
        running = len(threads)
        for thread in threads:
            thread.start()
        early: dict[int, Outcome] = {}
        following = 0
        try:
            while running:
                outcome = self._outcomes.get()
                if outcome is None:
                    running -= 1
                    continue
                if isinstance(outcome, BaseException):
                    raise outcome
                early[outcome.index] = outcome
                if not ordered:
                    following = outcome.index
                while following in early:
                    yield early.pop(following)
                    following += 1
                    with self._changed:
                        self._unconsumed -= 1
                        self._changed.notify_all()
        finally:
            with self._changed:
                self._aborted = True
                self._changed.notify_all()
            for thread in threads:
                thread.join()

    def _guard(self, loop: Callable[[], None]) -> None:
        """Run a thread's loop; its end, or the error that ended it, reaches the consumer."""
        try:
            with torch.inference_mode():
                loop()
        except BaseException as error:  # noqa: BLE001 - re-raised in the consumer's thread
            self._outcomes.put(error)
        finally:
            self._outcomes.put(None)

    # What a worker does

    def _work(self) -> None:
        while (task := self._next_task()) is not None:
            if isinstance(task, Batch):
                self._deliver(task, self._runner.start(task)())
            elif (song := self._pull()) is not None:
                self._decode(song)
                with self._changed:
                    self._in_hand -= 1
                    self._changed.notify_all()

    def _next_task(self) -> Batch | bool | None:
        """A batch to run, True to start a song (it counts as in hand already), None when all is done."""
        with self._changed:
            while not self._aborted:
                if self._inline and self._full:
                    return self._full.popleft()
                if not self._exhausted and not self._stop.is_set():
                    if self._unconsumed < self._limit:
                        self._in_hand += 1
                        self._unconsumed += 1
                        return True
                elif self._in_hand == 0 and self._open is None:
                    return None
                if self._in_hand == 0 and self._open is not None:
                    self._full.append(self._open)
                    self._open = None
                    self._changed.notify_all()
                    continue
                # Also wakes up by itself: `stop` is set from outside without a notification.
                self._changed.wait(timeout=0.5)
            return None

    def _pull(self) -> _Song | None:
        with self._pulling:
            source = next(self._sources, None)
            index = next(self._indices) if source is not None else -1
        if source is not None:
            return _Song(index, source, SongMerger(self._engine.head, self._stretches))
        with self._changed:
            self._exhausted = True
            self._in_hand -= 1
            self._unconsumed -= 1
            self._changed.notify_all()
        return None

    def _decode(self, song: _Song) -> None:
        try:
            with open_source(song.source, self._rate) as stream:
                for window in cut_windows(stream.blocks(), self._shape):
                    self._put(song, window)
                    self._on_audio(window.frames * self._shape.hop_length / self._rate)
                    while (batch := self._before_next_window()) is not None:
                        self._deliver(batch, self._runner.start(batch)())
                    if self._aborted:
                        return
                song.duration, song.note, song.encoding = stream.duration, stream.note, stream.encoding
        except AudioError as error:
            self._outcomes.put(Failed(song.index, error.message))
            return
        if song.windows == 0:
            self._outcomes.put(Failed(song.index, "no audio samples"))
        elif song.merger.end(song.windows):
            self._finish(song)

    def _put(self, song: _Song, window: Window) -> None:
        with self._changed:
            batch = self._open = self._open or Batch(self._buffer(), [], [])
            row = len(batch.owners)
            batch.owners.append((song, song.windows))
            batch.bounds.append(self._stretches.bounds(song.windows, window.frames))
            if row + 1 == self._engine.batch_size:
                self._open = None
        song.windows += 1
        batch.samples[row].numpy()[:] = window.samples  # outside the lock: the largest copy on the way
        with self._changed:
            batch.filled += 1
            if batch.filled == self._engine.batch_size:
                self._full.append(batch)
                self._changed.notify_all()

    def _buffer(self) -> torch.Tensor:
        if self._spare:
            return self._spare.pop()
        pinned = self._engine.network.device.type == "cuda"
        return torch.zeros(self._engine.batch_size, self._shape.samples, pin_memory=pinned)

    def _before_next_window(self) -> Batch | None:
        """On the CPU a full batch to run first, if there is one; elsewhere wait until the device keeps up."""
        with self._changed:
            if self._inline:
                return self._full.popleft() if self._full else None
            while len(self._full) >= READY and not self._aborted:
                self._changed.wait()
            return None

    # What becomes of a batch

    def _feed_device(self) -> None:
        """Keep one batch on its way to the device while the one before it is computed and taken apart."""
        pending: tuple[Batch, Callable[[], torch.Tensor]] | None = None
        while True:
            batch = self._next_full(wait=pending is None)
            started = None if batch is None else (batch, self._runner.start(batch))
            if pending is not None:
                self._deliver(pending[0], pending[1]())
            elif started is None:
                return
            pending = started

    def _next_full(self, *, wait: bool) -> Batch | None:
        with self._changed:
            while not self._full and not self._aborted:
                finished = self._in_hand == 0 and self._open is None and (self._exhausted or self._stop.is_set())
                if finished or not wait:
                    return None
                self._changed.wait(timeout=0.5)
            if self._aborted:
                return None
            self._changed.notify_all()
            return self._full.popleft()

    def _deliver(self, batch: Batch, states: torch.Tensor) -> None:
        for owner, window_states, bounds in zip(batch.owners, states, batch.bounds, strict=True):
            song, window = owner
            assert isinstance(song, _Song)
            if song.merger.add(window, window_states, bounds):
                self._finish(song)
        with self._changed:
            self._spare.append(batch.samples)

    def _finish(self, song: _Song) -> None:
        embedding = song.merger.embedding()
        if bool(torch.isfinite(embedding).all()):
            segments = song.merger.segments()
            outcome = Embedded(song.index, embedding.numpy(), song.duration, song.note, segments, song.encoding)
            self._outcomes.put(outcome)
        else:
            self._outcomes.put(Failed(song.index, "samples too large to embed: the embedding is not finite"))
