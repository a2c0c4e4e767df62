"""Locks that keep two runs apart; the operating system lets go of them when a process ends, however it ends."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from poolembed.errors import OutputError
from poolembed.files.writing import PART, Folders, refuse_link, writing


def lock_at(path: Path) -> FileLock:
    """A lock, not acquired yet.

    Raises:
        OSError: it would be taken through a symbolic link.
    """
    refuse_link(path)  # the library truncates what it opens
    return FileLock(path, timeout=0, thread_local=False)


@contextmanager
def claimed(lock: Path, in_use: str, way_on: str = "wait for it to end, or choose another -o") -> Iterator[None]:
    """Hold a directory, which is made if need be, for the block alone.

    Args:
        lock: a file in the directory.
        in_use: what the error says if another process holds it.
        way_on: the hint of that error.

    Raises:
        OutputError: another process holds it, or it cannot be made.
    """
    with writing(lock.parent):
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = lock_at(lock)
        try:
            held.acquire()
        except Timeout as error:  # an OSError too
            raise OutputError(in_use, hint=way_on) from error
    try:
        yield
    finally:
        held.release()


@contextmanager
def working(path: Path, way_on: str) -> Iterator[Path]:
    """A folder beside a file that is written whole, for what is not finished; gone in the end, and one run's alone."""
    work = working_folder(path)
    with writing(path, way_on):
        Folders(path.parent).check(work / "lock")
        work.mkdir(exist_ok=True)
        with claimed(work / "lock", f"another run is writing {path}"):
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)


def working_folder(path: Path) -> Path:
    """Where `working` works for a file; it is there while that goes on, and where a run was killed."""
    return path.with_name(f".{path.name}{PART}")
