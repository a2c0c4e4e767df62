"""Ctrl-C, as every long command takes it: the first one finishes what is in hand, a second one ends at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


class Stop(threading.Event):
    """Set by the first SIGINT or SIGTERM, which it remembers."""

    signal: int = 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; or end the process, where modules are being imported.

    Extensions that are interrupted in their import may abort the process or swallow the exception: torch does either.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(128 + signal.SIGINT)
        frame = frame.f_back
    raise KeyboardInterrupt


@contextmanager
def take_ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt in here, or ends the process if it comes amid an import or after this.

    A process that is deaf to Ctrl-C, as shells start what runs in the background, stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own would print a traceback from its last steps


@contextmanager
def stop_on_signal(message: str | None) -> Iterator[Stop]:
    """The first SIGINT or SIGTERM sets what this yields; a second one raises KeyboardInterrupt.

    Args:
        message: said at the first, on a line of its own on standard error; None says nothing.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.signal:
            _interrupt(number, frame)
        stop.signal = number
        stop.set()
        if message is not None:
            os.write(2, f"\n{message}; once more to stop at once\n".encode())

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            # Once stopped, the process is about to end, and one more Ctrl-C has nothing left to interrupt but that.
            signal.signal(number, signal.SIG_IGN if stop.signal else handler)
