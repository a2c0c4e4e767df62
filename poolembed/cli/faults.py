"""Faults of poolembed itself: their tracebacks go to a file, to be reported, and the user is told which."""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import typer

from poolembed import __version__

LOGGER = logging.getLogger("poolembed")
"""Where the library logs them."""

_REPEATED = "  (the same traceback as before)"


class FaultLog(logging.Handler):
    """Takes what is logged of faults; makes no file before there is one.

    Attributes:
        path: of the file; None means one in the system's directory for temporary files.
        written: something is in it.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.path: Path | None = None
        self.written = False
        self._file: IO[str] | None = None
        self._seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a fault; its traceback once, however many songs have it. Where that fails there is no record."""
        with suppress(OSError):
            if self._file is None:
                self._file = self._open()
            head, _, traceback = self.format(record).partition("\n")
            is_known = traceback in self._seen
            self._seen.add(traceback)
            self._file.write(f"{head}\n{_REPEATED if is_known else traceback}\n\n")
            self._file.flush()
            self.written = True

    def _open(self) -> IO[str]:
        if self.path is None or not self.path.parent.is_dir():
            import tempfile

            handle, name = tempfile.mkstemp(prefix="poolembed-faults-", suffix=".log")
            os.close(handle)
            self.path = Path(name)
        file = self.path.open("a", encoding="utf-8", errors="backslashreplace")
        file.write(f"poolembed {__version__}, Python {sys.version.split()[0]}, {platform.platform()}\n\n")
        return file

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        super().close()


_log: FaultLog | None = None


def keep_faults_in(path: Path) -> None:
    """From here on faults go to a file at `path`, which is made if there are any."""
    if _log is not None:
        _log.path = path


@contextmanager
def recording_faults() -> Iterator[None]:
    """Record the faults inside the block, and say at its end where they are."""
    global _log  # noqa: PLW0603 - as the logger is, to which it belongs
    _log = log = FaultLog()
    log.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    LOGGER.addHandler(log)
    try:
        yield
    finally:
        LOGGER.removeHandler(log)
        log.close()
        _log = None
        if log.written:
            with suppress(OSError):
                typer.echo(f"\nfaults of poolembed itself are in {log.path}; please report them", err=True)
