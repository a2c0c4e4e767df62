"""What every verb prints once: rows of facts, tables, lists of reasons; no line ends in blanks."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

import typer

from poolembed.text import printable

SHOWN = 20
"""Files that are named one by one."""


def facts(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and what is to be said of them, one below the other, on standard error."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        typer.echo(f"{typer.style(f'{name:<{width}}', bold=True)}  {text}", err=True)


def reasons(title: str, of: Mapping[str, str], more: str) -> None:
    """Print a heading, and path and reason of the first `SHOWN`, on standard error; `more` is where others are."""
    typer.echo(f"\n{typer.style(title, bold=True)}", err=True)
    for path, reason in list(of.items())[:SHOWN]:
        typer.echo(f"  {printable(path)}: {printable(reason)}", err=True)
    if len(of) > SHOWN:
        typer.echo(f"  … and {len(of) - SHOWN:,} more, {more}", err=True)


def table(rows: Sequence[Sequence[str]], *, left: Container[int] = (0,)) -> str:
    """Rows as lines, in columns as wide as they need, those at the places `left` flush left and the others right.

    What is between two asterisks either side, as in Markdown, is bold on a terminal; so is the first row.
    """
    from rich.cells import cell_len

    plain = [[printable(cell).strip("*") if cell.startswith("**") else printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*plain, strict=True)]
    lines = []
    for number, row in enumerate(plain):
        cells = []
        for place, cell in enumerate(row):
            blanks = " " * (widths[place] - cell_len(cell))
            bold = cell and (number == 0 or rows[number][place].startswith("**"))
            shown = typer.style(cell, bold=True) if bold else cell
            cells.append(shown + blanks if place in left else blanks + shown)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
