"""Lines of CSV: what goes in comes out, and nothing that goes in does anything in a spreadsheet."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolembed.cli.separated import csv_line, harmless

texts = st.text(st.characters(codec="utf-8")) | st.sampled_from(["=1+1", "a\rb", "\r", "'", "''=", "\t", '"', "\r\n"])


@given(st.lists(texts, min_size=2, max_size=5))
def test_every_text_comes_back_without_its_first_apostrophe(cells: list[str]) -> None:
    (read,) = csv.reader(io.StringIO(csv_line(*cells), newline=""))
    assert [cell.removeprefix("'") for cell in read] == cells
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in read)


@given(texts)
def test_what_begins_like_any_name_is_as_it_was(text: str) -> None:
    assert harmless("a" + text) == "a" + text


def test_numbers_are_left_alone() -> None:
    assert csv_line(-0.25, 3, None, "-0.25") == "-0.25,3,,'-0.25\n"


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_the_ends_of_lines_are_quoted(end: str) -> None:
    assert csv_line(f"a{end}b", 1) == f'"a{end}b",1\n'
