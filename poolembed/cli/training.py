"""What a person sees of training: the data first, a line an epoch, where the model is. All of it on standard error."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from poolembed.cli.report import LINE_EVERY, SHOWN, clock
from poolembed.text import printable

if TYPE_CHECKING:
    from poolembed.labels import DataReport
    from poolembed.train.dataset import Watcher
    from poolembed.train.run import Trained
    from poolembed.train.trainer import EpochRecord, Plan

CLASSES = 30
"""Classes that are shown; of more than that only how many there are, and the smallest."""

SMOOTH = 0.9
"""How much of the loss that is shown is of the steps before."""


class _Silent:
    """Watches and says nothing."""

    def data(self, report: DataReport) -> None:
        pass

    def caching(self, done: int, total: int) -> None:
        pass

    def encoding(self, done: int, total: int) -> None:
        pass

    def begin(self, plan: Plan) -> None:
        pass

    def step(self, step: int, loss: float, clips: int) -> None:
        pass

    def epoch(self, record: EpochRecord, best: bool) -> None:
        pass


class _Told(_Silent):
    """Keeps count, and prints what is printed once: the data, the plan, a line an epoch."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._plan: Plan | None = None
        self._last: EpochRecord | None = None
        self._best: EpochRecord | None = None
        self._loss = 0.0
        self._step = self._clips = 0
        self._began = 0.0

    def data(self, report: DataReport) -> None:
        data_report(self._console, report)

    def begin(self, plan: Plan) -> None:
        self._plan, self._began, self._step = plan, time.perf_counter(), plan.first_step
        trained = f", of which {_count(plan.trained_parameters)} are trained"
        going_on = f"going on after step {plan.first_step:,}; " if plan.first_step else ""
        self._print(
            f"{going_on}{plan.epochs} epochs of {plan.steps_per_epoch:,} steps of {plan.clips_per_step} clips, on "
            f"{plan.device} in {plan.precision}; {_count(plan.parameters)} parameters"
            + (trained if plan.trained_parameters < plan.parameters else "")
        )
        self._print("")

    def step(self, step: int, loss: float, clips: int) -> None:
        self._loss = loss if not self._clips else SMOOTH * self._loss + (1 - SMOOTH) * loss
        self._step, self._clips = step, self._clips + clips

    def epoch(self, record: EpochRecord, best: bool) -> None:
        if self._last is None:
            self._print(Text(_heading(record), style="bold"))
        self._last = record
        if best:
            self._best = record
        self._print(Text(_line(record) + ("  best" if best else ""), style="green" if best else ""))

    def _print(self, line: str | Text) -> None:
        self._console.print(line, soft_wrap=True)

    def _progress(self, plan: Plan) -> str:
        """Loss, metric, speed and time left."""
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        said = f"loss {self._loss:.3f}"
        if self._best is not None:
            said += f", {self._best.metric} {self._best.valid[self._best.metric]:.3f}"
        said += f", {self._clips / elapsed:,.0f} clips/s"
        done, left = self._step - plan.first_step, plan.epochs * plan.steps_per_epoch - self._step
        return said + f", about {clock(left * elapsed / done)} left" if done and left else said


class _Lines(_Told):
    """Plain lines, for logs."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._said = time.perf_counter()

    def caching(self, done: int, total: int) -> None:
        self._now_and_then(f"{done}/{total} clips decoded")

    def encoding(self, done: int, total: int) -> None:
        self._now_and_then(f"{done}/{total} windows encoded")

    def step(self, step: int, loss: float, clips: int) -> None:
        super().step(step, loss, clips)
        if self._plan is not None:
            all_steps = self._plan.epochs * self._plan.steps_per_epoch
            self._now_and_then(f"step {step}/{all_steps}, {self._progress(self._plan)}")

    def _now_and_then(self, line: str) -> None:
        if (now := time.perf_counter()) - self._said >= LINE_EVERY:
            self._said = now
            self._print(line)


class _Bar(_Told):
    """A bar below the lines."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress.console)
        self._bar = progress
        self._task = progress.add_task("reading", total=None, amount="")

    def caching(self, done: int, total: int) -> None:
        self._show("decoding", done, total, f"{done}/{total} clips")

    def encoding(self, done: int, total: int) -> None:
        self._show("encoding", done, total, f"{done}/{total} windows")

    def begin(self, plan: Plan) -> None:
        super().begin(plan)
        self._show("training", plan.first_step, plan.epochs * plan.steps_per_epoch, "")

    def step(self, step: int, loss: float, clips: int) -> None:
        super().step(step, loss, clips)
        if (plan := self._plan) is not None:
            epoch = f"epoch {(step - 1) // plan.steps_per_epoch + 1}/{plan.epochs}"
            self._show(epoch, step, plan.epochs * plan.steps_per_epoch, self._progress(plan))

    def _show(self, description: str, done: int, total: int, amount: str) -> None:
        self._bar.update(self._task, description=description, completed=done, total=total, amount=amount)


@contextmanager
def watching(quiet: bool) -> Iterator[Watcher]:
    """A bar on a terminal, plain lines elsewhere, nothing if quiet."""
    if quiet:
        yield _Silent()
        return
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(30), TextColumn("{task.fields[amount]}"))
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress)


def data_report(console: Console, report: DataReport) -> None:
    """What there is to train on: sides, classes, and what was left out and why."""
    hours = "" if report.hours is None else f", {report.hours:.2f} h"
    console.print(f"[bold]{escape(printable(report.source))}[/bold]: {report.clips:,} clips{hours}", soft_wrap=True)
    table = Table("", *report.sides, box=None, padding=(0, 3, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("clips", *(f"{side.clips:,}" for side in report.sides.values()))
    if any(side.groups for side in report.sides.values()):
        table.add_row("groups", *(f"{side.groups:,}" for side in report.sides.values()))
    if report.hours is not None:
        table.add_row("hours", *(f"{side.hours:.2f}" for side in report.sides.values()))
    for name, labels in report.labels.items():
        several = ", several a clip" if report.multi_label.get(name) else ""
        table.add_section()
        table.add_row(Text(f"{printable(name)}: {len(labels):,} classes{several}", style="bold"))
        shown = sorted(labels.items(), key=lambda item: sum(item[1].values()))
        for label, counts in labels.items() if len(labels) <= CLASSES else shown[:10]:
            table.add_row(Text("  " + printable(label)), *(f"{counts[side]:,}" for side in report.sides))
        if len(labels) > CLASSES:
            table.add_row(Text("  (the 10 smallest)", style="dim"))
    console.print(table)
    for note in report.notes[:SHOWN]:
        console.print(f"[yellow]note[/yellow]: {escape(printable(note))}", soft_wrap=True)
    if len(report.notes) > SHOWN:
        console.print(f"  ... and {len(report.notes) - SHOWN:,} more notes, in report.html when it is done")
    if report.dropped:
        _dropped(console, report.dropped)
    console.print()


def closing_table(trained: Trained) -> None:
    """What came of it, where it is, and what to do with it."""
    console = Console(stderr=True, highlight=False)
    results, metric = trained.results, trained.results["metric"]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    held_out = results["data"]["sides"]["valid"]["clips"]
    table.add_row(
        escape(metric["name"]),
        f"{metric['value']:.3f} on {held_out:,} clips held out, at epoch {metric['epoch']} of {results['epochs']}",
    )
    for pooling in results["pooling"]:
        start, end = (sum(pooling[when]) / len(pooling[when]) for when in ("start", "end"))
        across = f" (mean of {len(pooling['end']):,})" if len(pooling["end"]) > 1 else ""
        table.add_row(
            f"{pooling['kind']} {pooling['parameter']}",
            escape(f"{start:.3g} -> {end:.3g}{across}, {printable(pooling['where'])}"),
        )
    table.add_row(
        "trained", f"{clock(results['seconds'])}, {results['clips_per_second']:,.0f} clips/s, {results['device']}"
    )
    model = shlex.quote(str(trained.output))
    steps = [("model", str(trained.output)), ("report", str(trained.output / "report.html"))]
    steps.append(("embed", f"poolembed embed ~/Music --model {model}"))
    if results["heads"]:
        steps.append(("predict", f"poolembed predict clip.wav --model {model}"))
    steps.append(("evaluate", f"poolembed evaluate {model} labels.csv"))
    for name, text in steps:
        table.add_row(name, escape(printable(text)))
    console.print()
    console.print(table)


def _dropped(console: Console, dropped: Mapping[str, str]) -> None:
    console.print(f"\n[bold]left out: {len(dropped):,}[/bold]")
    for key, reason in list(dropped.items())[:SHOWN]:
        console.print(f"  {escape(printable(key))}: {escape(printable(reason))}", soft_wrap=True)
    if len(dropped) > SHOWN:
        console.print(f"  ... and {len(dropped) - SHOWN:,} more, in report.html when it is done")


def _columns(record: EpochRecord) -> list[tuple[str, int, str]]:
    """Heading, width and text of each column of an epoch's line."""
    columns: list[tuple[str, int, str]] = [
        ("epoch", 5, f"{record.epoch}"),
        ("loss", 8, f"{record.train['loss']:.4f}"),
    ]
    columns += [(f"valid {name}", max(len(name) + 6, 8), f"{value:.4f}") for name, value in record.valid.items()]
    columns.append(("rate", 8, f"{record.lr:.1e}"))
    for pooling in record.pooling:
        text = f"{pooling.mean:.2f}"
        if pooling.min < pooling.max:
            text += f" [{pooling.min:.2f}..{pooling.max:.2f}]"
        columns.append((pooling.parameter, 19, text))
    columns.append(("seconds", 7, f"{record.seconds:.1f}"))
    return columns


def _heading(record: EpochRecord) -> str:
    return "  ".join(f"{heading:>{width}}" for heading, width, _ in _columns(record))


def _line(record: EpochRecord) -> str:
    return "  ".join(f"{text:>{width}}" for _, width, text in _columns(record))


def _count(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 1e5 else f"{number:,}"
