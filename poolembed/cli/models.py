"""``poolembed models``: the bundles at hand."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def models(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the models at hand: those that ship with poolembed, then those in $POOLEMBED_MODELS."""
    from rich.console import Console
    from rich.table import Table

    from poolembed.bundle import describe, list_bundles

    found = [describe(path) for path in list_bundles()]
    if as_json:
        typer.echo(json.dumps(found))
        return
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
