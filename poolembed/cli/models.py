"""``poolembed models``: the bundles at hand."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from poolembed.cli.embed import SOME_FAILED
from poolembed.errors import BundleError

HELP = """\
List the models at hand: those that ship with poolembed, then those in $POOLEMBED_MODELS.

\b
Examples:
  poolembed models
  poolembed models --json | jq .[].name
"""


def models(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the models at hand: those that ship with poolembed, then those in $POOLEMBED_MODELS."""
    from rich.console import Console
    from rich.table import Table

    from poolembed.bundle import describe, list_bundles

    found, broken = [], 0
    for path in list_bundles():
        try:
            found.append(describe(path))
        except BundleError as error:
            typer.echo(f"poolembed: {error}", err=True)
            broken += 1
    if as_json:
        typer.echo(json.dumps(found))
        raise typer.Exit(SOME_FAILED if broken else 0)
    table = Table("name", "dimension", "parameters", "size", "pooling", "licence", "about", box=None)
    for model in found:
        table.add_row(
            str(model["name"]),
            str(model["embedding_size"]),
            f"{int(str(model['parameters'])) / 1e6:.1f} M",
            f"{int(str(model['bytes'])) / 1e6:.1f} MB",
            str(model["pooling"]),
            str(model["license"]),
            str(model["about"]),
        )
    Console().print(table)
    raise typer.Exit(SOME_FAILED if broken else 0)
