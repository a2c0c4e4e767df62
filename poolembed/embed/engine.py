"""The engine: songs to windows, windows of different songs to full batches, batches to states, states to embeddings.

One pool of worker threads. A worker takes the first of these that there is to do:

    1. on the CPU, run the network on a batch that is full;
    2. decode the next window of the song it has in hand, into the open batch;
    3. start the next song.

So no core waits while there is work, and at most one batch per worker is ever full and waiting. Where the network runs
on another device, a thread of its own feeds it and the workers only decode, held back when full batches pile up. A
batch that is not full runs only when no worker has a song in hand and none can be started: at the end, or when the
consumer is behind. Decoding, resampling, torch and copying all release Python's global lock.

What goes wrong with a song costs that song: an error, foreseen or not, or a decoder that does not come back (`Crew`).
What goes wrong with a batch is the model's or the device's, and ends the run.
"""

from __future__ import annotations

import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count

import torch

from poolembed.audio.encoding import Encoding
from poolembed.audio.faults import reason_of
from poolembed.audio.mixing import SILENT, is_silent
from poolembed.audio.source import Source, open_source
from poolembed.embed.crew import LEAVING, SONG_TIMEOUT, Crew, StuckError, Task
from poolembed.embed.device import Batch, Runner, exact_and_single_threaded, ignore
from poolembed.embed.merging import SongMerger, Stretches
from poolembed.embed.song import Embedded, Failed, Outcome, check_seconds
from poolembed.embed.windows import Window, WindowShape, cut_windows
from poolembed.errors import UsageError
from poolembed.nn.model import SongModel

LOOKAHEAD = 256
"""Songs that may be started and not yet consumed; bounds what waits for a slow song when order is kept."""

READY = 3
"""Full batches that may wait for a device."""


@dataclass
class _Song:
    """A song in work; `over` once its outcome is out, whatever may still come in of it."""

    index: int
    source: Source
    merger: SongMerger
    windows: int = 0
    duration: float = 0.0
    note: str | None = None
    encoding: Encoding | None = None
    over: bool = False


class Engine:
    """Embeds songs with one model on one device.

    Args:
        head: the model on the CPU in float32; merges and finalises.
        network: the model as it runs on windows (`SongModel.for_inference`).
        batch_size: windows per batch.
        workers: threads that decode (and, on the CPU, run the network).
        song_timeout: seconds without progress after which a song that is being decoded is given up; 0 for never.
        on_halved: told the new batch size when the device ran out of memory.
    """

    def __init__(
        self,
        head: SongModel,
        network: SongModel,
        *,
        batch_size: int,
        workers: int,
        song_timeout: float = SONG_TIMEOUT,
        on_halved: Callable[[int], None] = ignore,
    ) -> None:
        if batch_size < 1 or workers < 1:
            raise UsageError(f"batch size and workers must be at least 1, got {batch_size} and {workers}")
        if not song_timeout >= 0:
            raise UsageError(f"a song timeout is a number of seconds, 0 for never, and not {song_timeout:g}")
        self.head = head
        self.network = network
        self.batch_size = batch_size
        self.workers = workers
        self.song_timeout = song_timeout
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
            stop: once set, no further song is started, and those in hand are finished; one whose decoder makes no
                progress is left without an outcome.
            on_audio: told, from any thread, how many more seconds of audio were decoded.

        Raises:
            UsageError: `seconds` is infinite or below the model's time resolution.
            PoolembedError: the network failed, or more decoders hang than threads can be left with.
        """
        check_seconds(self.head.config, seconds)
        with exact_and_single_threaded():
            run = _Run(self, sources, Stretches(self.head, seconds), stop or threading.Event(), on_audio)
            yield from run.outcomes(ordered)


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
        self._outcomes: queue.SimpleQueue[tuple[int, Outcome | None] | BaseException | None] = queue.SimpleQueue()
        self._crew: Crew[_Song] = Crew(self._dismiss, self._give_up, engine.song_timeout)

    def outcomes(self, ordered: bool) -> Generator[Outcome]:
        """Start the threads and yield outcomes as songs finish, or each as soon as those before it are there."""
        loops = [self._work] * self._engine.workers + ([] if self._inline else [self._feed_device])
        running = len(loops)
        early: dict[int, Outcome | None] = {}
        following = 0
        try:
            for loop in loops:
                self._crew.start(partial(self._guard, loop))
            while running:
                found = self._next_outcome()
                if found is None:
                    running -= 1
                    continue
                if isinstance(found, BaseException):
                    raise found
                index, outcome = found
                early[index] = outcome
                if not ordered:
                    following = index
                while following in early:
                    if (outcome := early.pop(following)) is not None:
                        yield outcome
                    following += 1
                    with self._changed:
                        self._unconsumed -= 1
                        self._changed.notify_all()
        finally:
            self._crew.end()

    def _next_outcome(self) -> tuple[int, Outcome | None] | BaseException | None:
        while True:
            self._crew.look(LEAVING if self._stop.is_set() else math.inf)
            with suppress(queue.Empty):
                return self._outcomes.get(timeout=self._crew.tick)

    def _dismiss(self) -> None:
        with self._changed:
            self._aborted = True
            self._changed.notify_all()

    def _give_up(self, song: _Song, seconds: float) -> None:
        """Go on without a song whose decoder does not come back, and without the thread that has it in hand."""
        reason = f"no progress for {seconds:g} s while decoding: its decoder hangs, or its disk does not answer"
        self._settle(song, Failed(song.index, reason) if seconds >= self._engine.song_timeout > 0 else None)
        self._let_go()

    def _let_go(self) -> None:
        with self._changed:
            self._in_hand -= 1
            self._changed.notify_all()

    def _guard(self, loop: Callable[[], None]) -> None:
        """Run a thread's loop; its end, or the error that ended it, reaches the consumer."""
        try:
            with torch.inference_mode():
                loop()
        except StuckError:
            return  # another thread has been taking this one's place for long
        except BaseException as error:  # noqa: BLE001 - re-raised in the consumer's thread
            self._outcomes.put(error)
        self._outcomes.put(None)

    # What a worker does

    def _work(self) -> None:
        while (task := self._next_task()) is not None:
            if isinstance(task, Batch):
                self._deliver(task, self._runner.start(task)())
            elif (song := self._pull()) is not None:
                self._decode(song)
                self._let_go()

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
        task = self._crew.take(song)
        with closing(self._windows(song)) as windows:
            while (window := self._next_window(task, windows)) is not None:
                self._put(song, window)
                self._on_audio(window.frames * self._shape.hop_length / self._rate)
                while (batch := self._before_next_window()) is not None:
                    self._deliver(batch, self._runner.start(batch)())
                if self._aborted or song.over:
                    break
        self._crew.done(task)

    def _windows(self, song: _Song) -> Generator[Window]:
        with open_source(song.source, self._rate) as stream:
            yield from cut_windows(stream.blocks(), self._shape)
            song.duration, song.note, song.encoding = stream.duration, stream.note, stream.encoding

    def _next_window(self, task: Task[_Song], windows: Iterator[Window]) -> Window | None:
        """The next window of a song; None once the decoder is done with it, or gave it up."""
        song = task.work
        task.move(away=True)
        try:
            window = next(windows, None)
        except Exception as error:  # noqa: BLE001 - it becomes the song's reason
            self._crew.back(task)
            self._settle(song, Failed(song.index, reason_of(error, song.source)))
            return None
        self._crew.back(task)
        if window is None and song.windows == 0:
            self._settle(song, Failed(song.index, "no audio samples"))
        elif window is None:
            self._advance(song, partial(song.merger.end, song.windows))
        return window

    def _put(self, song: _Song, window: Window) -> None:
        with self._changed:
            batch = self._open = self._open or Batch(self._buffer(), [], [])
            row = len(batch.owners)
            batch.owners.append((song, song.windows))
            batch.bounds.append(self._stretches.bounds(song.windows, window.frames))
            if row + 1 == self._engine.batch_size:
                self._open = None
        if window.silent:
            song.merger.leave_out(song.windows)
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
            if not song.over:
                self._advance(song, partial(song.merger.add, window, window_states, bounds))
        with self._changed:
            self._spare.append(batch.samples)

    def _advance(self, song: _Song, step: Callable[[], bool]) -> None:
        """Take one more step of merging a song; the last one makes its outcome."""
        try:
            if step():
                self._settle(song, self._finish(song))
        except Exception as error:  # noqa: BLE001 - it becomes the song's reason
            self._settle(song, Failed(song.index, reason_of(error, song.source)))

    def _finish(self, song: _Song) -> Outcome:
        if not bool(torch.isfinite(embedding := song.merger.embedding()).all()):
            return Failed(song.index, "the embedding is not finite: samples, or weights of the model, are too large")
        segments, note = song.merger.segments(), song.note
        # What there is may be above the frequencies that the model hears.
        if not song.merger.heard and not is_silent(note):
            note = SILENT if note is None else f"{note}; {SILENT}"
        return Embedded(song.index, embedding.numpy(), song.duration, note, segments, song.encoding)

    def _settle(self, song: _Song, outcome: Outcome | None) -> None:
        """Give a song its one outcome: the first that there is. None is for a song that was not reached."""
        with self._changed:
            if song.over:
                return
            song.over = True
        self._outcomes.put((song.index, outcome))
