"""What a person sees while a command works: plain lines, a bar, or nothing."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from poolembed.cli.progress import Display, showing
from poolembed.progress import counted, counting


def test_a_line_as_a_stage_begins_and_then_one_every_five_seconds(
    clock: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with showing() as progress:
        tell = counted(progress, "decoding", "clips")
        for done in range(50):
            tell(done, 50)
            clock.now += 0.25
        progress("sorting", 0, 0)  # soon done
        clock.now += 5
        progress("writing", 0, 0)
    assert capsys.readouterr() == (
        "",
        "decoding: 0/50 clips\n"
        "decoding: 20/50 clips, about 7.5 s left\n"
        "decoding: 40/50 clips, about 2.5 s left\n"
        "writing\n",
    )


def test_the_time_left_counts_from_where_a_stage_begins(clock: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with showing() as progress:
        progress("training", 10, 20, "step 10/20")
        clock.now += 12
        progress("training", 12, 20)
        clock.now += 12
        progress("training", 20, 20)
    assert capsys.readouterr().err.splitlines() == [
        "training: step 10/20",
        "training: 60%, about 48 s left",
        "training: 100%",
    ]


def test_things_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[object, ...]] = []
    one_more = counting(lambda *what: told.append(what), "scoring", 2, "systems")
    one_more()
    one_more()
    assert told == [
        ("scoring", 0, 2, "0/2 systems"),
        ("scoring", 1, 2, "1/2 systems"),
        ("scoring", 2, 2, "2/2 systems"),
    ]


def test_a_bar_with_lines_above_it(clock: Any) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=150)
    with Progress(TextColumn("{task.fields[note]}"), console=console, auto_refresh=False) as bar:
        display = Display(quiet=False, bar=bar)
        display("decoding", 30, 60, "30/60 [clips]")
        (task,) = bar.tasks
        assert (task.description, task.completed, task.total) == ("decoding", 30, 60)
        clock.now += 2
        display("decoding", 40, 60, "40/60 [clips]")
        assert task.fields["note"] == "40/60 [clips], about 4.0 s left"
        display("writing", 0, 0)
        (task,) = bar.tasks
        assert (task.description, task.total, task.fields["note"]) == ("writing", None, "")
        display.say("[what] stays")
    assert "[what] stays" in console.file.getvalue()  # type: ignore[attr-defined]


def test_quiet_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with showing(quiet=True) as progress:
        progress("decoding", 1, 2)
        progress.say("a line")
    assert capfd.readouterr() == ("", "")
