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


@contextmanager
def stop_on_signal(message: str | None) -> Iterator[Stop]:
    """The first SIGINT or SIGTERM sets what this yields; a second one raises KeyboardInterrupt.

    Args:
        message: said at the first, on a line of its own on standard error; None says nothing.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.signal:
            raise KeyboardInterrupt
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
