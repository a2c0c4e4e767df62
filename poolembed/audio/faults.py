"""What nobody foresaw in the work on one song: it costs that song alone, and the traceback goes on record.

The record is the logger ``poolembed`` of the standard library's `logging`, silent unless somebody gives it a handler.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from poolembed.errors import AudioError, PoolembedError
from poolembed.text import printable

LOGGER = logging.getLogger("poolembed")
LOGGER.addHandler(logging.NullHandler())

_LONGEST = 300

_NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})
_NO_MEMORY = frozenset({errno.ENOMEM, errno.ENOBUFS})
# That nothing can be read just now, of whatever file.
_UNREADABLE = _NO_FILES | {errno.EIO, errno.ESTALE}


def raise_want(error: BaseException) -> None:
    """Raise again, as Python's own, an error that says what ran out and nothing of the file; return from any other.

    Called wherever a decoder that fails makes room for another, or a part that fails for the next: were either for want
    of something, the samples would be others than those of the next run.

    Raises:
        MemoryError: memory ran out.
        OSError: the files that the process, or the machine, may have open.
    """
    code = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or code in _NO_MEMORY:
        raise MemoryError(os.strerror(errno.ENOMEM)) from error
    if code in _NO_FILES:
        raise OSError(code, os.strerror(code)) from error


def reason_of(error: Exception, song: object) -> str:
    """Why a song failed, in a line; what is no `AudioError` is a fault, of which the traceback is logged.

    Args:
        error: what its decoding, or what is made of it, raised.
        song: its path, for the record; anything else is samples.

    Raises:
        PoolembedError: the error itself, where it is one that is not about the song.
    """
    if isinstance(error, AudioError):
        return error.message
    if isinstance(error, PoolembedError):
        raise error
    if isinstance(error, MemoryError):
        return "not enough memory for it"
    if isinstance(error, OSError) and error.errno in _UNREADABLE:
        return f"cannot be read: {error.strerror}"
    reason = f"a fault of poolembed: {summary_of(error)}"
    name = song if isinstance(song, str) else "samples"
    LOGGER.error("%r: %s", name, reason, exc_info=error)
    return reason


def summary_of(error: BaseException) -> str:
    """Type and message of an exception, on one line of reasonable length."""
    message = printable(" ".join(str(error).split()))
    if len(message) > _LONGEST:
        message = message[:_LONGEST] + "…"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


@contextmanager
def costing_the_song(song: object) -> Iterator[None]:
    """Turn every exception inside the block that is not poolembed's own into the `AudioError` of this song."""
    try:
        yield
    except PoolembedError:
        raise
    except Exception as error:
        raise AudioError(reason_of(error, song)) from error
