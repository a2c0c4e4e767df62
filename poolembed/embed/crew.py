"""The threads of one run: watched while they are in a decoder's hands, left behind if they never come back from there.

A thread that is stuck in C cannot be ended, only left: the run goes on with another in its place. So the threads are
daemons, which do not keep the interpreter alive. But neither may one be inside torch when the interpreter comes down:
at exit every crew is dismissed, and waited for but for those who are stuck.
"""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from poolembed.errors import PoolembedError

Work = TypeVar("Work")

SONG_TIMEOUT = 300.0
"""Seconds without progress after which a song is given up. A healthy one makes progress many times a second; a disk
that spins up, or a share in the network that comes back, takes longer."""

LEAVING = 5.0
"""The same once the run is to end, when nobody waits for what comes of it."""

MOST = 32
"""Threads that may be left behind. Each keeps its stack, its file and, if it spins, a core."""

_TICK = 1.0
_NAME = "poolembed"

clock = time.monotonic


def is_any_left() -> bool:
    """Whether a thread of a crew is about; once their runs are over, it is one that was left behind."""
    return any(thread.name == _NAME for thread in threading.enumerate())


class StuckError(Exception):
    """Ends a thread that came back after it was left behind; the run has gone on without it."""


class Task(Generic[Work]):
    """What a thread has in hand.

    Attributes:
        work: the song, say.
        away: the thread is in somebody else's code, which may not come back.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.thread = threading.current_thread()
        self.away = False
        self._beats = self._seen = 0
        self._idle = 0.0

    def move(self, *, away: bool) -> None:
        """Something happened: the thread goes into somebody else's code, or is back from there."""
        self.away = away
        self._beats += 1

    def waited(self, seconds: float) -> float:
        """Seconds without a move, now that so many more have passed."""
        stuck = self.away and self._beats == self._seen
        self._seen = self._beats
        self._idle = self._idle + seconds if stuck else 0.0
        return self._idle


class Crew(Generic[Work]):
    """Threads of one run, the tasks that they have in hand, and an eye on them.

    Args:
        dismiss: a method that tells all threads to end soon. It is held weakly, for its object holds the crew.
        on_stuck: a method, held weakly too: told, by whoever looks, what was given up and after how many seconds.
        timeout: seconds without a move after which a task is given up; 0 for never.

    Attributes:
        tick: seconds between two looks that are worth the while.
    """

    def __init__(
        self, dismiss: Callable[[], None], on_stuck: Callable[[Work, float], None], timeout: float = SONG_TIMEOUT
    ) -> None:
        self._dismiss = weakref.WeakMethod(dismiss)
        self._on_stuck = weakref.WeakMethod(on_stuck)
        self._timeout = timeout or math.inf
        self._lock = threading.Lock()
        self._loops: dict[threading.Thread, Callable[[], None]] = {}
        self._tasks: dict[threading.Thread, Task[Work]] = {}
        self._left = 0
        self._looked = clock()
        self.tick = min(_TICK, self._timeout / 4)

    def start(self, loop: Callable[[], None]) -> None:
        """Start a thread.

        Raises:
            PoolembedError: the system has no more of them.
        """
        thread = threading.Thread(target=loop, name=_NAME, daemon=True)
        with self._lock:
            self._loops[thread] = loop
            _crews.add(self)
        try:
            thread.start()
        except RuntimeError as error:
            with self._lock:
                del self._loops[thread]
            raise PoolembedError(f"no thread to be had: {error}", hint="--workers 1 needs the fewest") from error

    def take(self, work: Work) -> Task[Work]:
        """The calling thread takes something in hand."""
        task = Task(work)
        with self._lock:
            self._tasks[task.thread] = task
        return task

    def back(self, task: Task[Work]) -> None:
        """The calling thread is back from somebody else's code.

        Raises:
            StuckError: too late, the task was given up.
        """
        task.move(away=False)
        with self._lock:
            if self._tasks.get(task.thread) is not task:
                raise StuckError

    def done(self, task: Task[Work]) -> None:
        """The calling thread lets go of its task."""
        with self._lock:
            if self._tasks.get(task.thread) is task:
                del self._tasks[task.thread]

    def look(self, most: float = math.inf) -> None:
        """Give up what does not move, and start another thread in the place of each that has it in hand.

        Time counts by looks, none of which is worth more than two ticks. So a laptop that slept, a process that was
        stopped or a caller that was busy elsewhere gives up nothing.

        Args:
            most: seconds, if they are fewer than the timeout.

        Raises:
            PoolembedError: too many threads are stuck.
        """
        for task in self._stuck(min(self._timeout, most)):
            with self._lock:
                if self._tasks.get(task.thread) is not task or not task.away:
                    continue
                del self._tasks[task.thread]
                loop = self._loops.pop(task.thread)
            self._left += 1
            if (on_stuck := self._on_stuck()) is not None:
                on_stuck(task.work, min(self._timeout, most))
            if self._left >= MOST:
                raise PoolembedError(
                    f"{self._left} files made no progress while decoding, and no more threads can be left with them",
                    hint="is their disk or share still there? the same command again goes on where this one stopped",
                )
            self.start(loop)

    def _stuck(self, limit: float) -> list[Task[Work]]:
        now = clock()
        passed = now - self._looked
        if passed < self.tick:
            return []
        self._looked = now
        with self._lock:
            tasks = list(self._tasks.values())
        return [task for task in tasks if task.waited(min(passed, 2 * self.tick)) >= limit]

    def end(self) -> None:
        """Dismiss the threads and wait for them, but for those who are stuck. Can be called again."""
        if (dismiss := self._dismiss()) is not None:
            dismiss()
        while True:
            with self._lock:
                waiting = [thread for thread in self._loops if thread.is_alive()]
            if not waiting:
                return
            waiting[0].join(self.tick)
            for task in self._stuck(min(self._timeout, LEAVING)):
                with self._lock:
                    if task.away:
                        self._tasks.pop(task.thread, None)
                        self._loops.pop(task.thread, None)


_crews: weakref.WeakSet[Crew[Any]] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    for crew in list(_crews):
        crew.end()


if hasattr(os, "register_at_fork"):  # a forked process has none of the threads
    os.register_at_fork(after_in_child=_crews.clear)
