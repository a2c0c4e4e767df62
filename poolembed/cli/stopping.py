"""Ctrl-C and its like: as long commands take them, and as everything else does."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_HANGUP = getattr(signal, "SIGHUP", None)


class Stop(threading.Event):
    """Set by the first SIGINT, SIGTERM or SIGHUP, which it remembers."""

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
    """The first SIGINT, SIGTERM or SIGHUP sets what this yields; a second one raises KeyboardInterrupt.

    A SIGHUP that is ignored, as ``nohup`` has it, stays so.

    Args:
        message: said at the first, on a line of its own on standard error; None says nothing.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if number == _HANGUP:
            _let_go_of_terminal()
        if stop.signal:
            _interrupt(number, frame)
        stop.signal = number
        stop.set()
        if message is not None:
            with suppress(OSError):
                os.write(2, f"\n{message}; once more to stop at once\n".encode())

    numbers = [signal.SIGINT, signal.SIGTERM]
    if _HANGUP is not None and signal.getsignal(_HANGUP) != signal.SIG_IGN:
        numbers.append(_HANGUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            # Once stopped, the process is about to end, and one more Ctrl-C has nothing left to interrupt but that.
            signal.signal(number, signal.SIG_IGN if stop.signal else handler)


def _let_go_of_terminal() -> None:
    """Nobody reads what is written to a terminal that was closed, and writing to it is an error."""
    for descriptor in (0, 1, 2):
        with suppress(OSError):
            if os.isatty(descriptor):
                os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
