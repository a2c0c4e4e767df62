"""Ctrl-C and its like: as long commands take them, and as everything else does."""

from __future__ import annotations

import os
import signal
import sys
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
            raise KeyboardInterrupt
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


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, a Ctrl-C ends the process with its code and no traceback, whatever it hits; behind, it does nothing.

    KeyboardInterrupt alone is not enough: raised halfway through an import it comes out as an ImportError, and in a
    callback of the interpreter it is reported and forgotten.
    """
    is_interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_interrupted
        is_interrupted = True
        raise KeyboardInterrupt

    def unraisable(report: sys.UnraisableHookArgs) -> None:
        if is_interrupted:
            os._exit(128 + signal.SIGINT)
        before(report)

    is_main = threading.current_thread() is threading.main_thread()
    before = sys.unraisablehook
    sys.unraisablehook = unraisable
    if is_main:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except BaseException as error:
        if not is_interrupted and not isinstance(error, KeyboardInterrupt):
            raise
        sys.exit(128 + signal.SIGINT)
    finally:
        # The process is about to end, and that is all that there is left to interrupt.
        if is_main:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.unraisablehook = before
