"""Text in cells: lines of CSV and TSV that neither break nor do anything in a spreadsheet."""

from __future__ import annotations

import csv
import io

_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # and the same, as wide as East Asian letters

_RULE = """\
In {}, text that begins with = + - @ or ' has a ' before it, lest a spreadsheet takes it for a formula: drop one ' from
its start to have the text. Numbers are as they are.
"""


def rule(format: str) -> str:
    """For the help of what writes CSV, or TSV."""
    return _RULE.format(format)


def harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula: one that could be has an apostrophe before it.

    So has one that begins with an apostrophe; a first apostrophe is thus never of the text, and can be dropped.

    >>> harmless("a-b.mp3"), harmless("=1+1.mp3"), harmless("'n Sync.mp3")
    ('a-b.mp3', "'=1+1.mp3", "''n Sync.mp3")
    """
    return f"'{text}" if text.startswith((*_FORMULA, "'")) else text


def csv_line(*cells: object) -> str:
    """A line of CSV: text in quotes where it has to be, and `harmless`; numbers as they are; None is empty.

    >>> csv_line("-x.mp3", -0.5, None, "a\\rb")
    '\\'-x.mp3,-0.5,,"a\\rb"\\n'
    """
    line = io.StringIO()
    # Only what stands for the end of a line is quoted for it, so both do.
    writer = csv.writer(line, lineterminator="\r\n")
    writer.writerow([harmless(cell) if isinstance(cell, str) else cell for cell in cells])
    return line.getvalue().removesuffix("\r\n") + "\n"
