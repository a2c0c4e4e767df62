"""What a person sees of training: the data first, a line an epoch, where the model is. All of it on standard error."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import typer

from poolembed.cli.progress import Display
from poolembed.cli.report import SHOWN, table
from poolembed.text import duration, printable

if TYPE_CHECKING:
    from poolembed.labels import DataReport
    from poolembed.train.run import Trained
    from poolembed.train.trainer import EpochRecord, Plan

CLASSES = 30
"""Classes that are shown; of more than that only how many there are, and the smallest."""


class Story:
    """Tells on a display what is told once: the data, the plan, a line an epoch."""

    def __init__(self, display: Display) -> None:
        self._say = display.say
        self._best: float | None = None

    def __call__(self, event: DataReport | Plan | EpochRecord) -> None:
        """Tell it."""
        from poolembed.labels import DataReport
        from poolembed.train.trainer import Plan

        if isinstance(event, DataReport):
            self._say("\n".join(data_report(event)))
        elif isinstance(event, Plan):
            self._say(_plan(event))
        else:
            if self._best is None:
                self._say(typer.style(_heading(event), bold=True))
            is_best = self._best is None or event.valid[event.metric] > self._best
            if is_best:
                self._best = event.valid[event.metric]
            self._say(typer.style(f"{_line(event)}  best", fg="green") if is_best else _line(event))


def data_report(report: DataReport) -> Iterator[str]:
    """Lines on what there is to train on: splits, classes, and what was left out and why."""
    hours = "" if report.hours is None else f", {duration(3600 * report.hours)}"
    yield f"{printable(report.source)}: {report.clips:,} clips{hours}"
    splits = report.splits.values()
    rows = [["", *report.splits], ["clips", *(f"{split.clips:,}" for split in splits)]]
    if any(split.groups for split in splits):
        rows.append(["groups", *(f"{split.groups:,}" for split in splits)])
    if report.hours is not None:
        rows.append(["audio", *("" if split.hours is None else duration(3600 * split.hours) for split in splits)])
    for name, labels in report.labels.items():
        several = ", several a clip" if report.multi_label.get(name) else ""
        rows.append([f"{name}: {len(labels):,} classes{several}", *("" for _ in splits)])
        smallest = sorted(labels.items(), key=lambda item: sum(item[1].values()))[:10]
        for label, counts in labels.items() if len(labels) <= CLASSES else smallest:
            rows.append([f"  {label}", *(f"{counts[split]:,}" for split in report.splits)])
        if len(labels) > CLASSES:
            rows.append(["  (the 10 smallest)", *("" for _ in splits)])
    yield table(rows)
    for note in report.notes[:SHOWN]:
        yield f"{typer.style('note', fg='yellow')}: {printable(note)}"
    if len(report.notes) > SHOWN:
        yield f"  … and {len(report.notes) - SHOWN:,} more notes, in report.html when it is done"
    if report.dropped:
        yield from _dropped(report.dropped)
    yield ""


def _dropped(dropped: Mapping[str, str]) -> Iterator[str]:
    yield f"\n{typer.style(f'left out: {len(dropped):,}', bold=True)}"
    for key, reason in list(dropped.items())[:SHOWN]:
        yield f"  {printable(key)}: {printable(reason)}"
    if len(dropped) > SHOWN:
        yield f"  … and {len(dropped) - SHOWN:,} more, in report.html when it is done"


def _plan(plan: Plan) -> str:
    going_on = f"going on after step {plan.first_step:,}; " if plan.first_step else ""
    trained = f", of which {_count(plan.trained_parameters)} are trained"
    return (
        f"{going_on}{plan.epochs} epochs of {plan.steps_per_epoch:,} steps of {plan.clips_per_step} clips, on "
        f"{plan.device} in {plan.precision}; {_count(plan.parameters)} parameters"
        + (trained if plan.trained_parameters < plan.parameters else "")
        + "\n"
    )


def result(trained: Trained) -> Iterator[tuple[str, str]]:
    """What came of it, where it is, and what to do with it."""
    results, metric = trained.results, trained.results["metric"]
    held_out = results["data"]["splits"]["valid"]["clips"]
    value = f"{metric['value']:.3f} on {held_out:,} clips held out, at epoch {metric['epoch']} of {results['epochs']}"
    yield metric["name"], value
    for pooling in results["pooling"]:
        start, end = (sum(pooling[when]) / len(pooling[when]) for when in ("start", "end"))
        across = f" (mean of {len(pooling['end']):,})" if len(pooling["end"]) > 1 else ""
        where = printable(pooling["where"])
        yield f"{pooling['kind']} {pooling['parameter']}", f"{start:.3g} -> {end:.3g}{across}, {where}"
    speed = f"{results['clips_per_second']:,.0f} clips/s"
    yield "trained", f"{duration(results['seconds'])}, {speed}, {results['device']}"
    model = printable(shlex.quote(str(trained.output)))
    yield "model", printable(str(trained.output))
    yield "report", printable(str(trained.output / "report.html"))
    yield "embed", f"poolembed embed ~/Music --model {model}"
    if results["heads"]:
        yield "predict", f"poolembed predict clip.wav --model {model}"
    yield "evaluate", f"poolembed evaluate {model} labels.csv"


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
