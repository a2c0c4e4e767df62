"""The four kinds of table as rows of cells, before anyone asks what the cells mean."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from poolembed.errors import LabelsError
from poolembed.files.reading import open_regular, read_regular
from poolembed.labels._words import count, nearest, some

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
"""Of the tables that are read; in lower case."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        where: "line 3", or where there are no lines "row 2".
        cells: column -> what is in it: text, or what JSON and Parquet hold. Columns can be missing.
    """

    where: str
    cells: dict[str, object]


@dataclass(frozen=True, slots=True)
class LabelTable:
    """What a file holds.

    Attributes:
        names: of its columns, in order.
        rows: with the cells of the columns that were wanted.
    """

    names: tuple[str, ...]
    rows: list[Row]


def read_table(path: str, wanted: Collection[str], required: Sequence[str]) -> LabelTable:
    """Read a CSV (commas), TSV (tabs), JSON Lines or Parquet file; which of them its suffix says.

    Text is UTF-8, with or without byte order mark. CSV and TSV begin with the names of their columns; quoted cells may
    hold commas and line ends.

    Args:
        path: the file.
        wanted: the columns to read.
        required: the columns that must be there.

    Raises:
        LabelsError: the file cannot be read, is not what its suffix says, has no rows or lacks a column.
    """
    suffix = PurePath(path).suffix.lower()
    if suffix == ".parquet":
        table = _read_parquet(path, wanted, required)
    elif suffix == ".jsonl":
        table = _read_json_lines(path, wanted, required)
    else:
        table = _read_separated(path, wanted, required, "\t" if suffix == ".tsv" else ",")
    if not table.rows:
        raise LabelsError(f"{path} has no rows", hint="it takes a row for each clip")
    return table


def _read_text(path: str) -> str:
    try:
        data = read_regular(path)
    except OSError as error:
        raise LabelsError(f"{path} cannot be read: {error.strerror}") from None
    if not data.strip():
        raise LabelsError(f"{path} is empty", hint="it takes a header such as path,label and a row for each clip")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LabelsError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x})",
            hint="save the table as UTF-8; a spreadsheet offers it when saving, as 'CSV UTF-8'",
        ) from None


def _read_separated(path: str, wanted: Collection[str], required: Sequence[str], delimiter: str) -> LabelTable:
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    rows: list[Row] = []
    line = 1
    try:
        for cells in reader:
            if not cells:
                pass  # a blank line
            elif not names:
                names = cells
                _check_header(path, names, delimiter)
                _check_columns(path, names, required)
            elif len(cells) != len(names):
                raise LabelsError(
                    f"{path}, line {line}: {count(len(cells), 'cell')}, where the header has {len(names)}",
                    hint=f"put cells that hold a {'tab' if delimiter != ',' else 'comma'} in double quotes",
                )
            else:
                named = zip(names, cells, strict=True)
                rows.append(Row(f"line {line}", {name: cell for name, cell in named if name in wanted}))
            line = reader.line_num + 1
    except csv.Error as error:
        raise LabelsError(
            f"{path}, line {line}: {error}", hint='quotes come in pairs; a quote within quotes is written twice, ""'
        ) from None
    return LabelTable(tuple(names), rows)


def _check_header(path: str, names: Sequence[str], delimiter: str) -> None:
    from poolembed.audio.find import AUDIO_SUFFIXES  # only here, as its package loads the decoders

    if "path" in names:
        return
    if any(PurePath(name).suffix.lower() in AUDIO_SUFFIXES for name in names):
        raise LabelsError(
            f"{path} has no header: it begins with {delimiter.join(names)!r}",
            hint=f"begin it with the names of the columns, such as path{delimiter}label",
        )
    for other, what in {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}.items():
        if len(names) == 1 and "path" in [name.strip('" ') for name in names[0].split(other)]:
            raise LabelsError(
                f"{path} has {what} between its cells",
                hint="separate them by commas in a .csv file, by tabs in a .tsv file",
            )


def _check_columns(path: str, names: Sequence[str], required: Sequence[str]) -> None:
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise LabelsError(f"{path} has two columns {some(sorted(twice))}", hint="rename one of them")
    for name in required:
        if name not in names:
            meant = nearest(name, [other for other in names if other and other not in required], cutoff=0.6)
            raise LabelsError(
                f"{path} has no column {name!r}; it has {some(repr(other) for other in names)}",
                hint=f"rename {meant!r} to {name!r}"
                if meant
                else f"add a column {name!r}, or rename the one that is it",
            )


def _read_json_lines(path: str, wanted: Collection[str], required: Sequence[str]) -> LabelTable:
    names: dict[str, None] = {}
    rows: list[Row] = []
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except json.JSONDecodeError as error:
            raise LabelsError(
                f"{path}, line {number}: not JSON: {error.msg} at column {error.colno}",
                hint='each line is an object, such as {"path": "a.wav", "label": "dog"}',
            ) from None
        except (ValueError, RecursionError):  # a number of thousands of digits; thousands of brackets
            raise LabelsError(f"{path}, line {number}: not JSON that can be read") from None
        if not isinstance(cells, dict):
            raise LabelsError(
                f"{path}, line {number}: not an object",
                hint='each line is an object, such as {"path": "a.wav", "label": "dog"}',
            )
        names.update(dict.fromkeys(cells))
        rows.append(Row(f"line {number}", {name: cell for name, cell in cells.items() if name in wanted}))
    _check_columns(path, list(names), required)
    return LabelTable(tuple(names), rows)


def _read_parquet(path: str, wanted: Collection[str], required: Sequence[str]) -> LabelTable:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise LabelsError(
            f"{path} cannot be read without pyarrow",
            hint="from poolembed's checkout: pip install '.[parquet]', or give a CSV",
        ) from None
    try:
        with open_regular(path) as file, pyarrow.parquet.ParquetFile(file) as parquet:
            names: list[str] = parquet.schema_arrow.names
            _check_columns(path, names, required)
            there = [name for name in names if name in wanted]
            table = parquet.read(columns=there)
            columns: list[list[object]] = [table[name].to_pylist() for name in there]
    except OSError as error:
        raise LabelsError(f"{path} cannot be read: {error.strerror or error}") from None
    except (pyarrow.ArrowException, ValueError, TypeError, LookupError) as error:
        raise LabelsError(f"{path} is not a Parquet file, or is damaged: {error}") from None
    rows = zip(*columns, strict=True)
    return LabelTable(
        tuple(names), [Row(f"row {number}", dict(zip(there, row, strict=True))) for number, row in enumerate(rows, 1)]
    )
