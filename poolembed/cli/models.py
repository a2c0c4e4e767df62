"""``poolembed models``: the bundles at hand."""

from __future__ import annotations

import json

import typer

from poolembed.cli.embed import SOME_FAILED
from poolembed.cli.options import Json
from poolembed.cli.report import table
from poolembed.text import size

HELP = """\
\b
Examples:
  poolembed models
  poolembed models --json | jq .[].name
"""


def models(as_json: Json = False) -> None:
    """List the models at hand: those that ship with poolembed, then those in $POOLEMBED_MODELS."""
    from poolembed.bundle import describe_all

    found, broken = describe_all()
    for error in broken:
        typer.echo(f"poolembed: {error}", err=True)
    if as_json:
        typer.echo(json.dumps(found))
        raise typer.Exit(SOME_FAILED if broken else 0)
    rows = [["name", "pooling", "licence", "dimension", "parameters", "size", "about"]]
    for model in found:
        parameters = f"{int(str(model['parameters'])) / 1e6:.1f} M"
        rows.append(
            [
                *(str(model[key]) for key in ("name", "pooling", "license", "embedding_size")),
                parameters,
                size(int(str(model["bytes"]))),
                str(model["about"]),
            ]
        )
    typer.echo(table(rows, left=(0, 1, 2, 6)))
    raise typer.Exit(SOME_FAILED if broken else 0)
