"""How long work tells how far it is: one protocol for all of it, which the command line shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """A function that is told how far work is."""

    def __call__(self, stage: str, done: float, total: float, note: str = "") -> None:
        """Take it; called from any thread.

        Args:
            stage: what is being done.
            done: how much of it is done, in any unit that takes alike long.
            total: how much there is to do; 0 where that is not known.
            note: what a person reads of it; without one the share that is done.
        """


def silent(stage: str, done: float, total: float, note: str = "") -> None:
    """Say nothing."""


def counted(progress: Progress, stage: str, things: str) -> Callable[[int, int], None]:
    """A function of how many things are done, of how many, that tells so."""
    return lambda done, total: progress(stage, done, total, f"{done:,}/{total:,} {things}")


def counting(progress: Progress, stage: str, total: int, things: str) -> Callable[[], None]:
    """Tell that a stage begins. The function that is returned tells, at each call, that one more thing is done."""
    tell, done = counted(progress, stage, things), 0

    def one_more() -> None:
        nonlocal done
        done += 1
        tell(done, total)

    tell(0, total)
    return one_more
