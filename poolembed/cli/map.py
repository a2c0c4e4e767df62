"""``poolembed map``: a collection as a page to look at and listen to."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from poolembed.cli.options import CollectionPath, Json, Overwrite, Quiet, Rows
from poolembed.cli.progress import showing
from poolembed.cli.report import SHOWN
from poolembed.text import printable, size

if TYPE_CHECKING:
    from poolembed.map import Made

HELP = """\
\b
Examples:
  poolembed map                                    ./embeddings -> map.html
  poolembed map embeddings/ -o ~/Music/map.html    beside the songs: both can be moved, or served, together
  poolembed map other.npy --paths paths.txt -o other.html

Open it in any browser: hover shows a song, a click plays it where it lies on this computer, and the box searches. The
page needs no network and no other file. The same collection always gives the same map.
"""


def map_songs(
    collection: CollectionPath = "embeddings",
    output: Annotated[str, typer.Option("--output", "-o", "--out", metavar="FILE", help="Where to.")] = "map.html",
    paths: Rows = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make a map of a collection: one HTML file that shows every song as a dot and plays it."""
    from pathlib import Path

    import poolembed
    from poolembed.map import make_map

    songs = poolembed.open(collection, paths)
    with showing(quiet) as progress:
        made = make_map(songs.collection, Path(output), overwrite=overwrite, progress=progress)
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(made), "path": str(made.path), "collection": collection}))
    if quiet:
        return
    if not songs.has_paths:
        typer.echo("no song can be played: rows have no paths; --paths names a file that has them", err=True)
    else:
        _missing(made)
    typer.echo(f"{made.songs:,} songs by {made.method} in {printable(str(made.path))}, {size(made.size)}", err=True)


def _missing(made: Made) -> None:
    for path in made.missing[:SHOWN]:
        typer.echo(f"not there: {printable(path)}", err=True)
    if len(made.missing) > SHOWN:
        typer.echo(f"not there: {len(made.missing) - SHOWN:,} more", err=True)
    if made.missing:
        typer.echo(f"{len(made.missing):,} of {made.songs:,} songs are on the map but cannot be played", err=True)
