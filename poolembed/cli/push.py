"""``poolembed push``: embeddings into a table, on this machine or in an object store."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from poolembed.cli.options import CollectionPath, Json, Quiet, Rows
from poolembed.cli.progress import showing
from poolembed.cli.report import facts
from poolembed.cli.stopping import stop_on_signal
from poolembed.errors import UsageError
from poolembed.text import printable

if TYPE_CHECKING:
    from poolembed.search.push import Pushed

HELP = """\
\b
Examples:
  poolembed push --to music.lance                    ./embeddings into a table in this folder
  poolembed push embeddings/ --to s3://bucket/music.lance
  poolembed push other.npy --paths paths.txt --to gs://bucket/other.lance
  poolembed search song.mp3 --in s3://bucket/music.lance

A table is made where there is none. It knows a song by its path: songs that it does not have are added, those whose
embedding is another are replaced, all others are left alone, so that the same command after new songs writes only
those, and after a kill only the rest. Songs that are in the table alone stay there. One push to a table at a time.

Searches compare all vectors, and read them from where the table is.

The table is in the open format Lance, and needs no server. Credentials for s3://, gs:// and az:// come from the
environment (AWS_ACCESS_KEY_ID and so on). Needs: pip install '.[lance]' from the checkout
"""


def push(
    to: Annotated[
        str,
        typer.Option("--to", metavar="TABLE", help="A path or URI that ends in .lance.", show_default=False),
    ],
    collection: CollectionPath = "embeddings",
    paths: Rows = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Bring a table of songs up to date."""
    from poolembed.search.collection import open_collection
    from poolembed.search.lance import is_lance
    from poolembed.search.push import push as push_to

    if not is_lance(to):
        raise UsageError(
            f"{to} is not called as a table is", hint=f"its name ends in .lance: --to {to or 'music'}.lance"
        )
    opened = open_collection(collection, paths)
    with stop_on_signal(None if quiet else "finishing the rows in hand") as stop, showing(quiet) as progress:
        done = push_to(opened, to, progress=progress, stop=stop)
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(done), "table": to, "collection": collection}))
    if not quiet:
        facts(_facts(done, to))
    if stop.signal:
        raise typer.Exit(128 + stop.signal)


def _facts(done: Pushed, to: str) -> Iterator[tuple[str, str]]:
    for name, count, what in (
        ("new", done.new, ", added"),
        ("changed", done.changed, ", replaced"),
        ("unchanged", done.unchanged, ""),
        ("others", done.others, ", in the table alone, left there"),
        ("not reached", done.left, ", run the same command again to go on"),
    ):
        if count or name in ("new", "changed", "unchanged"):
            yield name, f"{count:,} songs{what}"
    yield "table", printable(to)
