"""Runs side by side, each in a process of its own: small networks train faster so than in threads of one process.

It is what `poolembed compare` and ``models/recipe/ablations`` do their runs by.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

import torch

from poolembed.errors import PoolembedError

J = TypeVar("J")
R = TypeVar("R")


class _Worker(Generic[J, R]):
    """A process and the pipe to it."""

    def __init__(self, perform: Callable[[J], R]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit threads' locks
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, perform), daemon=True)
        with _ctrl_c_held_back():
            self.process.start()
        theirs.close()
        self.job: J | None = None

    def take(self, job: J) -> None:
        self.job = job
        with suppress(ConnectionError):  # it died; `result` tells of what
            self.pipe.send(job)

    def result(self) -> R | str:
        """What became of the job in hand; the process may have died of it."""
        try:
            done: R | str = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            return f"its process ended with code {self.process.exitcode}"
        return done

    def end(self) -> None:
        self.pipe.close()  # an idle worker ends with its pipe
        if self.job is not None:
            self.process.terminate()
        self.process.join()


def run_all(
    jobs: Sequence[J],
    perform: Callable[[J], R],
    processes: int,
    done: Callable[[J, R | str], None],
    stop: threading.Event,
) -> None:
    """Perform jobs, so many at a time; one at a time in this process, more in processes of their own.

    Args:
        jobs: in the order in which they are started.
        perform: does one, with one thread; it, jobs and results are pickled. Its PoolembedError fails that job alone.
        processes: at most so many.
        done: told what became of each: what `perform` returned, or why it failed.
        stop: once set, no further job is started, and those in hand are finished.
    """
    if processes == 1:
        with _one_thread():
            for job in jobs:
                if not stop.is_set():
                    done(job, _attempt(perform, job))
        return
    waiting = list(reversed(jobs))
    workers: list[_Worker[J, R]] = []
    try:
        while True:
            idle = [worker for worker in workers if worker.job is None]
            while waiting and not stop.is_set() and (idle or len(workers) < processes):
                if not idle:
                    workers.append(_Worker(perform))
                    idle = [workers[-1]]
                idle.pop().take(waiting.pop())
            busy = {worker.pipe: worker for worker in workers if worker.job is not None}
            if not busy:
                return
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                taken, result = worker.job, worker.result()
                assert taken is not None
                worker.job = None
                if not worker.process.is_alive():
                    workers.remove(worker)
                    worker.pipe.close()
                done(taken, result)
    finally:
        for worker in workers:
            worker.end()


def _serve(pipe: Connection, perform: Callable[[Any], Any]) -> None:
    """A worker's life: until the pipe ends, which it does when its parent does, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent decides
    torch.set_num_threads(1)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(_attempt(perform, job))


def _attempt(perform: Callable[[J], R], job: J) -> R | str:
    try:
        return perform(job)
    except PoolembedError as error:
        return str(error)


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """What is started in here holds Ctrl-C back for ever: it would die of it in the seconds that its imports take."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # or the first start would, which then takes the hold off
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _one_thread() -> Iterator[None]:
    """What processes of their own have, so that results are the same."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
