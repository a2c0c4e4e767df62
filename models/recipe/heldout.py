"""Labelled tables of what is held out: ``python -m models.recipe.heldout CORPUS``.

From ``corpus.csv``, of the clips that validate: which instrument a note is of (``heldout-program.csv``), its pitch,
which drum a hit is, and which track a stretch of music is from. All have folds, as ``poolembed evaluate base
CORPUS/heldout-track.csv --folds fold`` reads them, and ``models.recipe.levels``. Keys of clips are those of
``corpus.csv``, so that teachers' vectors fit.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from models.recipe.segments import SECONDS
from models.recipe.tables import read_table
from models.recipe.takes import generator

KINDS = {
    "program": ("notes",),
    "pitch": ("notes",),
    "drum": ("drums", "drum notes"),
    "track": ("music", "modules"),
}
"""Labels, and the kinds of clips that they are asked of."""
FOLDS = 5

Row = dict[str, str]


def main(arguments: list[str] | None = None) -> int:
    """Write the tables and say what is in them; 0."""
    parser = argparse.ArgumentParser(prog="python -m models.recipe.heldout", description=__doc__)
    parser.add_argument("corpus", type=Path, help="with corpus.csv")
    parser.add_argument("--clips", type=int, default=2500, help="of each, at most; drawn at random")
    options = parser.parse_args(arguments)
    table: Path = options.corpus / "corpus.csv"
    if not table.is_file():
        parser.error(f"{table}: not there; models.recipe.tables writes it")
    held_out = [row for row in read_table(table) if row["split"] == "valid"]
    for label in KINDS:
        clips, labels = write(table.with_name(f"heldout-{label}.csv"), label, draw(held_out, label, options.clips))
        print(f"{label:8} {clips:5} clips, {labels:3} labels")
    return 0


def draw(held_out: Iterable[Row], label: str, count: int) -> list[Row]:
    """So many clips that have this label, at random, but always the same.

    Of a track every second clip can be drawn, for where one ends the next goes on with the same sound.
    """
    rows = [row for row in held_out if row["kind"] in KINDS[label] and row[label]]
    if label == "track":
        rows = [row for row in rows if round(float(row["start"]) / SECONDS) % 2 == 0]
    order = generator(f"held out {label}").permutation(len(rows))[:count]
    return [rows[number] for number in sorted(order)]


def write(file: Path, label: str, rows: Iterable[Row]) -> tuple[int, int]:
    """A table, the clips of each label dealt out to the folds in turn; its numbers of clips and of labels.

    Labels with fewer clips than there are folds are left out: somewhere there would be none to learn from or to ask.
    """
    by_label: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_label[row[label]].append(row)
    kept = {name: those for name, those in sorted(by_label.items()) if len(those) >= FOLDS}
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("path", "start", "end", "label", "fold"))
        for name, those in kept.items():
            for number, row in enumerate(those):
                writer.writerow((row["path"], row["start"], row["end"], name, number % FOLDS))
    return sum(map(len, kept.values())), len(kept)


if __name__ == "__main__":
    sys.exit(main())
