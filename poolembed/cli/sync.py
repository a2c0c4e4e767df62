"""``poolembed sync``: the steps that `poolembed.toml` names, one after the other."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from poolembed.cli.embed import SOME_FAILED
from poolembed.cli.options import Quiet
from poolembed.errors import UsageError

HELP = """\
\b
Examples:
  poolembed sync
  poolembed sync embed index                       these steps alone
  17 3 * * *  cd ~/Music && poolembed sync -q      a line of a crontab

\b
  # poolembed.toml
  [sync]
  steps = ["embed", "index", "map"]
  [embed]
  paths = ["~/Music"]
  [map]
  overwrite = true

Every step is the verb with the options that poolembed.toml has for it; those behind embed take what embed wrote. A step
that fails ends it with the step's exit code; one in which some files failed does not, and is told by the exit code in
the end.
"""

STEPS = ("embed", "index", "push", "map", "duplicates")


def sync(
    context: typer.Context,
    steps: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STEP]...", help=f"Some of: {', '.join(STEPS)}.", show_default="those of the file"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Run the steps that poolembed.toml names."""
    if not steps:
        raise UsageError("there are no steps to run", hint='poolembed.toml names them: [sync] steps = ["embed", "map"]')
    if unknown := [step for step in steps if step not in STEPS]:
        raise UsageError(f"{unknown[0]} is no step", hint=f"the steps there are: {', '.join(STEPS)}")
    code = 0
    whole: Any = context.parent
    verbs = whole.command.commands
    with verbs["embed"].make_context("embed", [], parent=whole) as embed:
        written = embed.params["output"]
    # All of them before the first runs, so that a wrong option of the last is not found out after hours of embedding.
    contexts = [(step, verbs[step].make_context(step, ["-q"] if quiet else [], parent=whole)) for step in steps]
    for step, own in contexts:
        if not quiet:
            typer.echo(typer.style(step, bold=True), err=True)
        try:
            with own:
                if "collection" in own.params and own.get_parameter_source("collection").name == "DEFAULT":
                    own.params["collection"] = written
                own.command.invoke(own)
        except typer.Exit as end:
            if end.exit_code not in (0, SOME_FAILED):
                raise
            code = end.exit_code or code
    raise typer.Exit(code)
