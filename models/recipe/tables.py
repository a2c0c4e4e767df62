"""Tables of the corpus, as ``poolembed train`` reads them; ``python -m models.recipe.tables CORPUS`` joins them.

Tables lie in the corpus directory, and paths in them are relative to it. Every table has every column; what is not
known of a clip is left empty. Several labels of a cell are split by ``;``.
"""

from __future__ import annotations

import argparse
import csv
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

COLUMNS = (
    *("path", "start", "end", "split", "group"),
    *("kind", "package", "track", "artist"),  # of recordings
    *("drum", "program", "family", "pitch", "chord", "instruments"),  # of rendered notes, chords and pieces
    "alike",  # what a clip is to be near to: its track, the same note of the same instrument, the same drum
    "copy_of",  # the key of the clip that it is a worn copy of
    "draw",  # 0 to 99, at random: a share of the corpus is what lies below it
)
TABLES = ("music", "copies", "sounds", "notes", "pieces", "mixes")
"""The tables that there can be, without ``.csv``."""


def write_table(file: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Write a table whole, or leave the earlier one; its number of rows.

    Args:
        file: the table.
        rows: cells by column; seconds as floats, lists of labels as lists.
    """
    partial = file.with_name(f".{file.name}.partial")
    count = 0
    with partial.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({column: _cell(value) for column, value in row.items()})
            count += 1
    partial.replace(file)
    return count


def read_table(file: Path) -> Iterator[dict[str, str]]:
    """The rows of a table that `write_table` wrote."""
    with file.open(newline="", encoding="utf-8") as table:
        yield from csv.DictReader(table)


def one_label(text: str) -> str:
    """Text as one label, whatever it holds."""
    return " ".join(text.replace(";", ",").split())


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".")
    if isinstance(value, list | tuple):
        return ";".join(map(str, value))
    return str(value)


def main(arguments: list[str] | None = None) -> int:
    """Join the tables there are to ``corpus.csv``, or some of it under another name, and say what is in it."""
    parser = argparse.ArgumentParser(prog="python -m models.recipe.tables", description=__doc__)
    parser.add_argument("corpus", type=Path, help="with the tables of the other steps")
    told = "take that much of a kind at random, such as notes=20 copies=0; of others all"
    parser.add_argument("--share", type=_share, nargs="+", default=(), metavar="KIND=PERCENT", help=told)
    parser.add_argument("--name", default="corpus", help="of the table to write")
    options = parser.parse_args(arguments)
    corpus: Path = options.corpus
    files = [file for name in TABLES if (file := corpus / f"{name}.csv").is_file()]
    if not files:
        parser.error(f"{corpus}: none of {', '.join(f'{name}.csv' for name in TABLES)} is there")
    shares = dict(options.share)
    unknown = shares.keys() - {row["kind"] for file in files for row in read_table(file)}
    if unknown:
        parser.error(f"no clip is of kind {', '.join(sorted(unknown))}")
    rows = (row for file in files for row in read_table(file))
    drawn = (row for row in rows if draw(row) < shares.get(row["kind"], 100))
    target = corpus / f"{options.name}.csv"
    count = write_table(target, ({**row, "alike": alike(row), "draw": draw(row)} for row in drawn))
    kinds = Counter((row["kind"], row["split"]) for row in read_table(target))
    for (kind, split), number in sorted(kinds.items()):
        print(f"{kind:12} {split:6} {number:8}")
    print(f"{target.name:19} {count:8}")
    return 0


def draw(row: Mapping[str, object]) -> int:
    """A clip's lot, 0 to 99: always the same, and like none of its neighbours'."""
    return zlib.crc32(f"{row['path']} {row['start']}".encode()) % 100


def alike(row: Mapping[str, str]) -> str:
    """What clips near to this one share; "" if nothing is known of it."""
    if row["track"]:
        return one_label(row["track"])
    if row["drum"]:
        return f"drum {row['drum']}"
    return " ".join(row[column] for column in ("program", "pitch", "chord") if row[column])


def _share(text: str) -> tuple[str, int]:
    kind, _, percent = text.rpartition("=")
    return kind, int(percent)


if __name__ == "__main__":
    sys.exit(main())
