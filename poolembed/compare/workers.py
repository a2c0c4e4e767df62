"""Processes that take one run after the other. Small networks train faster in processes than in threads of one."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from poolembed.compare.jobs import Job, Record, perform
from poolembed.errors import PoolembedError

Result = Record | str
"""What became of a run: its record, or why it failed."""


class _Worker:
    """A process and the pipe to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit threads' locks
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _ctrl_c_held_back():
            self.process.start()
        theirs.close()
        self.job: Job | None = None

    def take(self, job: Job) -> None:
        self.job = job
        with suppress(ConnectionError):  # it died; `result` tells of what
            self.pipe.send(job)

    def result(self) -> Result:
        """What became of the job in hand; the process may have died of it."""
        try:
            done: Result = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            return f"its process ended with code {self.process.exitcode}"
        return done

    def end(self) -> None:
        self.pipe.close()  # an idle worker ends with its pipe
        if self.job is not None:
            self.process.terminate()
        self.process.join()


def run_all(jobs: Sequence[Job], processes: int, done: Callable[[Job, Result], None], stop: threading.Event) -> None:
    """Perform jobs, so many at a time; one at a time in this process, more in processes of their own.

    Args:
        jobs: in the order in which they are started.
        processes: at most so many.
        done: told what became of each.
        stop: once set, no further run is started, and those in hand are finished.
    """
    if processes == 1:
        with _one_thread():
            for job in jobs:
                if not stop.is_set():
                    done(job, _attempt(job))
        return
    waiting = list(reversed(jobs))
    workers: list[_Worker] = []
    try:
        while True:
            idle = [worker for worker in workers if worker.job is None]
            while waiting and not stop.is_set() and (idle or len(workers) < processes):
                if not idle:
                    workers.append(_Worker())
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


def _serve(pipe: Connection) -> None:
    """A worker's life: until the pipe ends, which it does when the study does, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the study decides
    torch.set_num_threads(1)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(_attempt(job))


def _attempt(job: Job) -> Result:
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
