"""The command line: one module per verb, each of which parses, calls the library once, and shows what came back.

Nothing here imports torch before a verb that needs it runs, so that help and shell completion answer at once. This
module imports next to nothing, so that from its first moment on Ctrl-C is taken as it should be.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

from poolembed.cli.encoding import speak_utf8
from poolembed.cli.stopping import take_ctrl_c
from poolembed.embed.crew import is_any_left
from poolembed.errors import PoolembedError, UsageError


def main() -> None:
    """Run the command line; every error becomes a message on stderr and an exit code."""
    try:
        with take_ctrl_c():
            speak_utf8()
            _run()
    except KeyboardInterrupt:  # out here, for Python lets it in anywhere: also where no command is being run yet
        sys.exit(128 + signal.SIGINT)
    except SystemExit as end:
        if is_any_left():  # in a decoder that hangs, with what Python would miss, and say so, when it tidies up
            _flush()
            os._exit(end.code if isinstance(end.code, int) else 1 if end.code else 0)
        raise


def _run() -> None:
    from poolembed.cli.app import app
    from poolembed.cli.faults import LOGGER, recording_faults

    with recording_faults():
        try:
            app()
        except PoolembedError as error:
            _say(f"poolembed: {error.message}")
            if error.hint:
                _say(f"  {error.hint}")
            sys.exit(2 if isinstance(error, UsageError) else 1)
        except OSError as error:
            # A closed pipe (`| head`) says nothing; a full disk behind standard output does.
            if not isinstance(error, BrokenPipeError):
                _say(f"poolembed: {error}")
            if sys.stdout is not None:  # Python would complain again when it flushes at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except MemoryError:
            _say("poolembed: not enough memory")
            sys.exit(1)
        except Exception as error:  # noqa: BLE001 - it is reported
            LOGGER.exception("%s", " ".join(sys.argv))
            _say(f"poolembed: a fault of poolembed: {type(error).__name__}: {error}")
            sys.exit(1)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.flush()


def _say(line: str) -> None:
    import typer

    with suppress(OSError):  # there may be nobody to read it any more
        typer.echo(line, err=True)
