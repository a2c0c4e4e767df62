"""How far along a command of several stages is, on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

LINE_EVERY = 5.0
"""Seconds between two plain lines."""


@contextmanager
def showing_progress() -> Iterator[Callable[[str, float], None]]:
    """Yields what is told the stage and how much of it is done, 0 to 1.

    A bar on a terminal, a plain line every few seconds elsewhere.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        last = time.perf_counter()

        def line(what: str, share: float) -> None:
            nonlocal last
            if time.perf_counter() - last >= LINE_EVERY:
                last = time.perf_counter()
                typer.echo(f"{what}: {share:.0%}", err=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=1.0)
        before = ""

        def bar(what: str, share: float) -> None:
            nonlocal before
            if what != before:
                before = what
                progress.reset(task, description=what, total=1.0)
            progress.update(task, completed=share)

        yield bar
