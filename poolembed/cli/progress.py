"""What a person sees while a command works, on standard error: one bar or plain lines, for every verb."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import typer

from poolembed.text import duration

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

LINE_EVERY = 5.0
"""Seconds between two plain lines."""


class Display:
    """Takes progress (`poolembed.progress.Progress`), and lines that stay.

    Args:
        quiet: show nothing.
        bar: where a bar is drawn; None for plain lines: one as a stage begins that has a note, and one every
            `LINE_EVERY` seconds.
    """

    def __init__(self, quiet: bool, bar: RichProgress | None = None) -> None:
        self._quiet, self._bar = quiet, bar
        self._lock = threading.Lock()
        self._stage: str | None = None
        self._began = self._said = time.perf_counter()
        self._first = 0.0

    def __call__(self, stage: str, done: float, total: float, note: str = "") -> None:
        """Show how far a stage is, and how long it goes on if it goes on like this."""
        if self._quiet:
            return
        with self._lock:
            now, is_new = time.perf_counter(), stage != self._stage
            if is_new:
                self._stage, self._began, self._first = stage, now, done
            if self._bar is None and not (is_new and note) and now - self._said < LINE_EVERY:
                return
            self._said = now
            text = note or (f"{done / total:.0%}" if total else "")
            if total > done > self._first:
                text += f", about {duration((now - self._began) * (total - done) / (done - self._first))} left"
            if self._bar is None:
                self._echo(f"{stage}: {text}" if text else stage)
                return
            if is_new:
                for task in self._bar.task_ids:
                    self._bar.remove_task(task)
                self._bar.add_task(stage, total=None, note=text)
            self._bar.update(self._bar.task_ids[0], completed=done, total=total or None, note=text)

    def say(self, text: str) -> None:
        """Print lines, which stay above the bar if there is one."""
        if not self._quiet:
            self._echo(text)

    def _echo(self, text: str) -> None:
        if self._bar is not None:
            from rich.text import Text

            self._bar.console.print(Text.from_ansi(text), soft_wrap=True)
            return
        with suppress(OSError):  # the work does not stop because nobody reads this any more
            typer.echo(text, err=True)


@contextmanager
def showing(quiet: bool = False) -> Iterator[Display]:
    """A bar on a terminal, plain lines elsewhere, nothing if quiet."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield Display(quiet)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(30),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        yield Display(quiet, bar)
