"""Waiting for what must come, for as long as it takes: no test depends on how busy the machine is."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

PATIENCE = 300.0
"""Seconds after which what has not come never will: a hang, and no busy machine. Less than pytest's own limit."""


def wait_until(condition: Callable[[], object], process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait for a condition; a process that was to bring it about must not end before."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None or condition(), process.communicate()[1].decode()
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.005)


def wait_for_line(process: subprocess.Popen[bytes], text: str) -> bytes:
    """Wait until a process, whose pipes must have no buffer, says something on standard error; all that it said."""
    assert process.stderr is not None
    said = b""
    while text.encode() not in said:
        line = process.stderr.readline()
        assert line, f"it ended without {text!r}: {said.decode()}"
        said += line
    return said
