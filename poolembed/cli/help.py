"""``poolembed help VERB``: the same as ``poolembed VERB --help``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

HELP = """\
\b
Examples:
  poolembed help embed
"""


def show_help(
    context: typer.Context,
    verb: Annotated[str | None, typer.Argument(metavar="VERB", help="Of which.", show_default="of all")] = None,
) -> None:
    """Show the help of a verb."""
    whole: Any = context.parent
    if verb is None:
        typer.echo(whole.get_help())
        return
    name, command, _ = whole.command.resolve_command(whole, [verb])
    command.make_context(name, ["--help"], parent=whole)
