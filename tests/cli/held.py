"""Runs of the command line that come to a song and stay there.

So what a test does to them falls where it should, however fast or slow the machine is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

_CODE = """
import sys, threading
from poolembed.cli import main
from poolembed.embed.engine import Engine

def each(sources):
    for number, source in enumerate(sources):
        if number >= AFTER:
            threading.Event().wait()
        yield source

run = Engine.run
Engine.run = lambda self, sources, *rest, **options: run(self, each(sources), *rest, **options)
sys.exit(main())
"""


def held(after: int, *arguments: str | Path) -> list[str]:
    """A command line that runs until it has begun so many songs, and there waits for ever."""
    return [sys.executable, "-c", _CODE.replace("AFTER", str(after)), *(os.fspath(argument) for argument in arguments)]


@contextmanager
def running(arguments: list[Any], **options: Any) -> Iterator[Popen[bytes]]:
    """A process in the background, in a group of its own, with pipes that have no buffer; gone in the end."""
    process = Popen(arguments, stdout=PIPE, stderr=PIPE, bufsize=0, start_new_session=True, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
