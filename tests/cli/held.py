"""Runs of the command line that wait at a place of their work until told to go on.

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

GO = "go on"
"""The file, in the run's working directory, that lets it go on."""

_CODE = f"""
import sys, time
from pathlib import Path
from poolembed.cli import main

def wait():
    while not Path({GO!r}).exists():
        time.sleep(0.01)
"""

_SONG = """
from poolembed.embed.engine import Engine

def each(sources):
    for number, source in enumerate(sources):
        if number >= AFTER:
            wait()
        yield source

run = Engine.run
Engine.run = lambda self, sources, *rest, **options: run(self, each(sources), *rest, **options)
"""

_EPOCH = """
from poolembed.train.directory import Recording

def told(self, event):
    if getattr(event, "epoch", 0) > AFTER:
        wait()
    return keep(self, event)

keep = Recording.__call__
Recording.__call__ = told
"""

_PLACES = {"song": _SONG, "epoch": _EPOCH}


def held(place: str, after: int, *arguments: str | Path) -> list[str]:
    """A command line that runs until it has begun so many songs or ended so many epochs, and there waits for `GO`."""
    code = f"{_CODE}AFTER = {after}\n{_PLACES[place]}\nsys.exit(main())"
    return [sys.executable, "-c", code, *(os.fspath(argument) for argument in arguments)]


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
