"""Who made what a model is trained on: ``python -m models.recipe.attribution CORPUS`` prints it as Markdown.

For a model's card, from ``corpus.toml``, ``corpus.csv`` and ``tracks.csv``: of each package that is used its version,
licence and authors, and how much of it; then the artists that the tracks' tags name. What is rendered counts for the
soundfont that plays it, and a score for its package too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from models.recipe.corpus import Package, read_corpus
from models.recipe.tables import read_table

MUSIC21 = Package(
    name="music21 (scores, from PyPI)",
    licence="music21 BSD-3-Clause; the works are out of copyright, and their encodings forbid nothing",
    by="Michael Scott Asato Cuthbert and cuthbertLab; the encoders of its corpus",
)
"""The one source that is no Debian package."""

_SCORES = "music21/"  # the tracks of its scores begin with this


@dataclass
class Use:
    """How much of a package is used, and as what."""

    clips: int = 0
    seconds: float = 0.0
    kinds: set[str] = field(default_factory=set)

    def add(self, row: Mapping[str, str], kind: str) -> None:
        """One more clip."""
        self.clips += 1
        self.seconds += float(row["end"]) - float(row["start"])
        self.kinds.add(kind)


def main(arguments: list[str] | None = None) -> int:
    """Print the section."""
    parser = argparse.ArgumentParser(prog="python -m models.recipe.attribution", description=__doc__)
    parser.add_argument("corpus", type=Path, help="with corpus.csv and tracks.csv")
    parser.add_argument("--name", default="corpus", help="of the table that the model was trained on")
    options = parser.parse_args(arguments)
    corpus: Path = options.corpus
    table, tracks = corpus / f"{options.name}.csv", corpus / "tracks.csv"
    for file in (table, tracks):
        if not file.is_file():
            parser.error(f"{file} is not there; see the steps in models/recipe/README.md")
    rows = list(read_table(table))
    packages = read_corpus()
    versions = {package.name: version(corpus, package.name) for package in packages}
    print("\n".join(table_of(packages, rows, versions)))
    print("\n".join(("", *list_of(read_table(tracks), {row["path"] for row in rows}))))
    return 0


def table_of(
    packages: Iterable[Package], rows: Iterable[Mapping[str, str]], versions: Mapping[str, str]
) -> Iterator[str]:
    """The packages whose clips are used, as a table; then how much there is of all.

    Args:
        packages: of the corpus.
        rows: of the table that the model was trained on.
        versions: of packages, where they are known.
    """
    packages = list(packages)
    scored = {package.name for package in packages if package.midi}
    used: dict[str, Use] = defaultdict(Use)
    whole, mixed = Use(), 0
    for row in rows:
        whole.add(row, row["kind"])
        mixed += row["kind"] == "mixes"
        used[row["package"]].add(row, row["kind"])
        source = MUSIC21.name if row["track"].startswith(_SCORES) else row["track"].partition("/")[0]
        if row["kind"] == "pieces" and source in scored | {MUSIC21.name}:
            used[source].add(row, "scores")
    yield "| package | licence | by | as | clips | hours |"
    yield "|---|---|---|---|--:|--:|"
    for package in (*packages, MUSIC21):
        if package.name in used:
            use = used[package.name]
            name = f"{package.name} {versions.get(package.name, '')}".strip()
            kinds = ", ".join(sorted(use.kinds)) + ("; validation only" if package.valid else "")
            cells = (name, package.licence, package.by, kinds, f"{use.clips:,}", _hours(use))
            yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
    yield ""
    mixes = f", {mixed:,} clips of it mixes of the others" if mixed else ""
    yield f"In all {whole.clips:,} clips, {_hours(whole)} hours{mixes}. Clips of scores stand with their soundfont too."


def list_of(tracks: Iterable[Mapping[str, str]], used: set[str]) -> Iterator[str]:
    """The artists by package, with how many tracks each has.

    Args:
        tracks: rows of ``tracks.csv``.
        used: paths of the files that the model was trained on.
    """
    artists: dict[str, Counter[str]] = defaultdict(Counter)
    for track in tracks:
        if track["path"] in used and track["artist"]:
            artists[track["package"]][track["artist"]] += 1
    yield "Artists as the tracks' tags or the packages name them, with their number of tracks:"
    yield ""
    for package, names in sorted(artists.items()):
        listed = sorted(names.items(), key=lambda item: (-item[1], item[0].lower()))
        yield f"- {package}: {', '.join(f'{_plain(name)} ({number})' for name, number in listed)}"


def version(corpus: Path, package: str) -> str:
    """The version that ``models.recipe.fetch`` downloaded, empty if that is not known."""
    file = corpus / package / "package.json"
    if not file.is_file():
        return ""
    name: str = json.loads(file.read_text())["file"]
    return name.split("_")[1].replace("%3a", ":")


def _hours(use: Use) -> str:
    return f"{use.seconds / 3600:.2f}"


def _plain(name: str) -> str:
    """A name in which nothing is Markdown."""
    return "".join(f"\\{letter}" if letter in "\\*_[]<>`|" else letter for letter in name)


if __name__ == "__main__":
    sys.exit(main())
