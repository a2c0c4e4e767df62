"""The command line: one module per verb, each of which parses, calls the library once, and shows what came back.

Nothing here imports torch before a verb that needs it runs, so that help and shell completion answer at once. This
module imports next to nothing, so that from its first moment on Ctrl-C is taken as it should be.
"""

from __future__ import annotations

import os
import signal
import sys

from poolembed.cli.encoding import speak_utf8
from poolembed.cli.stopping import take_ctrl_c
from poolembed.errors import PoolembedError, UsageError


def main() -> None:
    """Run the command line; every deliberate error becomes a message on stderr and an exit code."""
    with take_ctrl_c():
        speak_utf8()
        _run()


def _run() -> None:
    import typer

    from poolembed.cli.app import app

    try:
        app()
    except PoolembedError as error:
        typer.echo(f"poolembed: {error.message}", err=True)
        if error.hint:
            typer.echo(f"  {error.hint}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except OSError as error:
        # A closed pipe (`| head`) says nothing; a full disk behind standard output does.
        if not isinstance(error, BrokenPipeError):
            typer.echo(f"poolembed: {error}", err=True)
        # Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
