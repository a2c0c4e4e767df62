"""``poolembed index``: for when comparing a song with every other is too slow."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from poolembed.cli.options import CollectionPath, Json, Quiet, Rows
from poolembed.cli.progress import showing
from poolembed.cli.report import facts
from poolembed.text import duration, printable, size

if TYPE_CHECKING:
    from poolembed.search.index import Built

HELP = """\
\b
Examples:
  poolembed index                                  ./embeddings -> music.index
  poolembed index embeddings/ -o ~/music.index     again after new songs: only they are added
  poolembed index other.npy --paths paths.txt -o other.index
  poolembed search song.mp3 --in music.index

Worth it from some hundred thousand songs on; below, plain search takes a fraction of a second. The index is measured
against exact search when it is built, and looks as far as it has to for 96 % of the ten nearest songs, if it can. It
holds the vectors and names, so that the collection is not needed to search it; while the collection is there, an index
that is older is refused. Needs: pip install '.[index]' from the checkout
"""


def index(
    collection: CollectionPath = "embeddings",
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", "--out", metavar="FILE", help="Where to; one that is there is brought up to date."
        ),
    ] = "music.index",
    paths: Rows = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Build an index of a collection."""
    from poolembed.search.index import build_index

    with showing(quiet) as progress:
        built = build_index(collection, output, paths=paths, progress=progress)
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(built), "output": output, "collection": collection}))
    if not quiet:
        facts(_facts(built, output))


def _facts(built: Built, output: str) -> list[tuple[str, str]]:
    model = "an unknown model" if built.model is None else f"the model {printable(built.model.name)}"
    return [
        ("indexed", f"{built.songs:,} songs, {built.dimensions} numbers each, of {model}"),
        ("added", f"{built.added:,}"),
        ("removed", f"{built.removed:,}"),
        ("recall@10", f"{built.recall:.3f} against exact search"),
        ("size", size(built.size)),
        ("time", duration(built.seconds)),
        ("index", printable(output)),
    ]
