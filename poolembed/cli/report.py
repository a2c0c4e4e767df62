"""What a person sees while songs are embedded, and when they are done. All of it on standard error."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from poolembed.embed.song import Embedded
from poolembed.text import passed_over, printable

if TYPE_CHECKING:
    from poolembed.embed.model import Model
    from poolembed.embed.outputs import Job
    from poolembed.embed.run import Summary, Watcher
    from poolembed.embed.song import Outcome

SHOWN = 20
"""Failed files that are named one by one; the manifest has all."""

LINE_EVERY = 5.0
"""Seconds between two plain lines."""


class _Silent:
    """Watches and says nothing."""

    def begin(self, songs: Sequence[Job], unchanged: int) -> None:
        pass

    def audio(self, seconds: float) -> None:
        pass

    def song(self, song: Job, outcome: Outcome) -> None:
        pass


class _Counter(_Silent):
    """Counts songs and seconds of audio, and guesses the time left.

    How long a song is shows only when it has been decoded, so the seconds still to come are guessed from the bytes
    still to come, at the seconds per byte of the songs of the same format that are done, or of all that are.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.perf_counter()
        self._seconds = 0.0
        self._songs = self._done = 0
        self._bytes_left: defaultdict[str, float] = defaultdict(float)
        self._bytes_done: defaultdict[str, float] = defaultdict(float)
        self._seconds_done: defaultdict[str, float] = defaultdict(float)

    def begin(self, songs: Sequence[Job], unchanged: int) -> None:
        self._began = time.perf_counter()
        self._songs = len(songs)
        for song in songs:
            self._bytes_left[_suffix(song)] += song.size or 0

    def audio(self, seconds: float) -> None:
        with self._lock:
            self._seconds += seconds

    def song(self, song: Job, outcome: Outcome) -> None:
        self._done += 1
        self._bytes_left[_suffix(song)] -= song.size or 0
        if isinstance(outcome, Embedded):
            self._bytes_done[_suffix(song)] += song.size or 0
            self._seconds_done[_suffix(song)] += outcome.duration

    def _amount(self) -> str:
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        amount = f"{_hours(self._seconds)} of audio, {self._seconds / elapsed:,.0f} x real time"
        left = self._seconds_left()
        return amount + f", about {clock(left * elapsed / self._seconds)} left" if left > 0 else amount

    def _seconds_left(self) -> float:
        """Guess of the seconds of audio still to come; 0 as long as, or when, there is none."""
        all_bytes, all_seconds = sum(self._bytes_done.values()), sum(self._seconds_done.values())
        if not all_bytes:
            return 0.0
        left = all_seconds - self._seconds  # less what is decoded of the songs in hand
        for suffix, size in self._bytes_left.items():
            known = self._bytes_done.get(suffix)
            left += size * (self._seconds_done[suffix] / known if known else all_seconds / all_bytes)
        return left


class _Lines(_Counter):
    """A plain line every few seconds, for logs."""

    def __init__(self) -> None:
        super().__init__()
        self._last = time.perf_counter()

    def begin(self, songs: Sequence[Job], unchanged: int) -> None:
        super().begin(songs, unchanged)
        already = f", {unchanged} unchanged since an earlier run" if unchanged else ""
        _say(f"{len(songs)} songs to embed{already}")

    def audio(self, seconds: float) -> None:
        super().audio(seconds)
        with self._lock:
            now = time.perf_counter()
            if now - self._last < LINE_EVERY:
                return
            self._last = now
        _say(f"{self._done}/{self._songs} songs, {self._amount()}")


class _Bar(_Counter):
    """A progress bar: songs, hours of audio, speed, time left."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._task = progress.add_task("embedding", total=None, amount="")

    def begin(self, songs: Sequence[Job], unchanged: int) -> None:
        super().begin(songs, unchanged)
        self._progress.update(self._task, total=len(songs))

    def audio(self, seconds: float) -> None:
        super().audio(seconds)
        self._progress.update(self._task, amount=self._amount())

    def song(self, song: Job, outcome: Outcome) -> None:
        super().song(song, outcome)
        self._progress.advance(self._task)


@contextmanager
def watching(quiet: bool) -> Iterator[Watcher]:
    """A bar on a terminal, plain lines elsewhere, nothing if quiet."""
    if quiet:
        yield _Silent()
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("songs  {task.fields[amount]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress)


def closing_table(summary: Summary, model: Model, output: str) -> None:
    """What became of the songs, how fast, and where the embeddings are."""
    console = Console(stderr=True, highlight=False)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    amount = f"{summary.embedded} songs, {_hours(summary.audio_seconds)} of audio"
    if summary.embedded:
        amount += f" in {clock(summary.elapsed_seconds)}, {summary.times_real_time:,.0f} x real time"
    table.add_row("embedded", amount)
    if summary.unchanged:
        table.add_row("unchanged", f"{summary.unchanged} songs, embedded by an earlier run")
    if summary.failures:
        table.add_row("failed", f"[red]{len(summary.failures)} file{'s' if len(summary.failures) > 1 else ''}[/red]")
    if summary.passed_over:
        table.add_row("passed over", escape(passed_over(summary.passed_over)))
    left = summary.found - summary.embedded - summary.unchanged - len(summary.failures)
    if summary.interrupted:
        table.add_row("not reached", f"{left} songs; run the same command again to go on")
    table.add_row(
        "model", f"{escape(model.name)} on {model.device} in {model.precision}, {model.embedding_size} numbers"
    )
    table.add_row("output", escape(output))
    console.print(table)
    if summary.notes:
        _list(console, "embedded, but", summary.notes)
    if summary.failures:
        failures(summary)


def failures(summary: Summary) -> None:
    """The failed files with their reasons."""
    _list(Console(stderr=True, highlight=False), "failed", summary.failures)


def _list(console: Console, title: str, reasons: dict[str, str]) -> None:
    console.print(f"\n[bold]{title}[/bold]")
    for path, reason in list(reasons.items())[:SHOWN]:
        console.print(f"  {escape(printable(path))}: {escape(reason)}", soft_wrap=True)
    if len(reasons) > SHOWN:
        console.print(f"  … and {len(reasons) - SHOWN} more, in the manifest")


def _say(line: str) -> None:
    with suppress(OSError):  # the songs do not stop because nobody reads this any more
        typer.echo(line, err=True)


def _suffix(song: Job) -> str:
    return song.path.rpartition(".")[2].lower()


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def clock(seconds: float) -> str:
    """A length of time, as hours:minutes:seconds or as few seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
