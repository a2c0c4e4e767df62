"""What is printed once: facts, reasons and tables, for people and for files."""

from __future__ import annotations

import pytest
import typer

from poolembed.cli.report import facts, reasons, table


def test_facts_stand_below_one_another(capsys: pytest.CaptureFixture[str]) -> None:
    facts([("model", "base"), ("output", "x")])
    assert capsys.readouterr() == ("", "model   base\noutput  x\n")


def test_of_many_reasons_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    reasons("failed", {f"a\n{number}.mp3": "no [audio]" for number in range(25)}, "in the manifest")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == ["", "failed", "  a\\n0.mp3: no [audio]"]
    assert lines[-1] == "  … and 5 more, in the manifest"
    assert len(lines) == 23


def test_columns_of_a_table_are_as_wide_as_they_need_and_no_line_ends_in_blanks() -> None:
    text = table([["%", "clips", "F1"], ["cat\t", "12", "**66.7**"], ["日本", "5", ""]])
    assert "\x1b[1m66.7\x1b[0m" in text
    echoed = "".join(part.partition("m")[2] if n else part for n, part in enumerate(text.split("\x1b[")))
    assert echoed.splitlines() == ["%      clips    F1", "cat\\t     12  66.7", "日本       5"]


def test_names_may_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    typer.echo(table([["name", "about", "size"], ["a", "long", "1"], ["bcdef", "x", "10"]], left=(0, 1)))
    assert capsys.readouterr().out.splitlines() == ["name   about  size", "a      long      1", "bcdef  x        10"]
