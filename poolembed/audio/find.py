"""Audio files below directories, in one fixed order."""

# Strings, not Paths: a Path per entry costs more than the listing itself, and loses how an argument was spelt.
# ruff: noqa: PTH100, PTH110, PTH112, PTH113, PTH114, PTH116, PTH119, PTH122

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

# fmt: off
AUDIO_SUFFIXES: frozenset[str] = frozenset((
    ".3g2", ".3ga", ".3gp", ".8svx", ".aa3", ".aac", ".ac3", ".adts", ".adx", ".aif", ".aifc", ".aiff", ".aiffc",
    ".alac", ".amb", ".amr", ".ape", ".asf", ".at3", ".au", ".avr", ".awb", ".bonk", ".bwf", ".caf", ".dff", ".dsf",
    ".dss", ".dts", ".dtshd", ".eac3", ".ec3", ".f4a", ".flac", ".gsm", ".hca", ".hcom", ".ircam", ".latm", ".loas",
    ".m2a", ".m4a", ".m4b", ".m4p", ".m4r", ".mka", ".mlp", ".mp+", ".mp1", ".mp2", ".mp3", ".mp4", ".mpa", ".mpc",
    ".mpga", ".mpp", ".nist", ".oga", ".ogg", ".oma", ".opus", ".osq", ".paf", ".pvf", ".qcp", ".qoa", ".ra", ".rf64",
    ".rka", ".rm", ".shn", ".snd", ".sox", ".sph", ".spx", ".svx", ".tak", ".thd", ".tta", ".voc", ".vqf", ".w64",
    ".wav", ".wave", ".weba", ".webm", ".wma", ".wsd", ".wv", ".wve", ".xi", ".xwma",
))
"""Suffixes, in lower case, that are taken for audio below a directory. Video files are not."""

BESIDE_AUDIO: frozenset[str] = frozenset((
    ".accurip", ".bmp", ".cue", ".db", ".doc", ".docx", ".ffp", ".gif", ".htm", ".html", ".ico", ".ini", ".jpeg",
    ".jpg", ".json", ".jsonl", ".lnk", ".log", ".lrc", ".m3u", ".m3u8", ".md", ".md5", ".nfo", ".npy", ".npz", ".pdf",
    ".pls", ".png", ".rtf", ".sfv", ".sha1", ".sha256", ".srt", ".svg", ".tif", ".tiff", ".tsv", ".csv", ".txt",
    ".url", ".webp", ".wpl", ".wvc", ".xml", ".xspf",
))
"""Suffixes of what lies beside songs and is none; nobody needs to be told that it was passed over."""
# fmt: on


@dataclass(frozen=True, slots=True)
class FoundFile:
    """An audio file, and what to call it.

    Attributes:
        path: where it is: as given, or the directory argument joined with what is below it. Bytes that are not UTF-8
            are surrogate-escaped, as everywhere in Python, so that ``os.fsencode(path)`` is the exact name on disk.
        key: its path below the directory argument, ``/`` separated, with its suffix. For a file given by itself, the
            path as given made relative and without ``..`` or drive: ``../z/a.mp3`` is ``z/a.mp3``.
        root: base name of the directory argument (of its absolute path, so ``.`` has one too); ``""`` for a file given
            by itself.
    """

    path: str
    key: str
    root: str


def find_audio(
    arguments: Iterable[str | os.PathLike[str]],
    *,
    on_error: Callable[[str, str], None],
    passed_over: Counter[str] | None = None,
) -> list[FoundFile]:
    """Every audio file that the arguments name or contain, argument by argument.

    Directories are searched to any depth. The order depends on names alone: the entries of each directory, files and
    directories together, by name (code points), each directory in its entry's place. Symbolic links are followed, but
    no directory is entered twice: one below an argument is found by its own path, not by links to it. Hidden entries,
    and suffixes outside `AUDIO_SUFFIXES`, are left alone unless they are arguments themselves. A file that two
    arguments name or contain (same absolute path) counts for the first.

    Args:
        arguments: files and directories.
        on_error: called with a path and a short reason for what cannot be searched or is not there; the search goes on.
        passed_over: where to count, by their suffixes in lower case, the files below directories that are left alone
            because nothing says that they are audio; not the hidden ones, nor those of `BESIDE_AUDIO`.
    """
    found: list[FoundFile] = []
    others: Counter[str] = Counter()
    seen: set[str] = set()
    paths = [os.fsdecode(argument) for argument in arguments]
    named = {os.path.abspath(path) for path in paths if not _is_audio(path) and not os.path.isdir(path)}
    for path in paths:
        absolute = os.path.abspath(path)
        if os.path.isdir(path):
            _search(path, absolute, found, seen, named, others, on_error)
        elif not os.path.exists(path):
            on_error(path, "broken symbolic link" if os.path.islink(path) else "no such file or directory")
        elif not os.path.isfile(path):
            on_error(path, "not a regular file")
        elif absolute not in seen:
            seen.add(absolute)
            found.append(FoundFile(path, _key_of_file(path), ""))
    if passed_over is not None:
        passed_over.update({suffix: count for suffix, count in others.items() if suffix not in BESIDE_AUDIO})
    return found


def _is_audio(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in AUDIO_SUFFIXES


def _key_of_file(path: str) -> str:
    relative = os.path.normpath(os.path.splitdrive(path)[1]).replace(os.sep, "/")
    return "/".join(part for part in relative.split("/") if part not in ("", ".", ".."))


def _search(
    top: str,
    absolute: str,
    found: list[FoundFile],
    seen: set[str],
    named: set[str],
    others: Counter[str],
    on_error: Callable[[str, str], None],
) -> None:
    """Append what is below the directory ``top``; strings all the way, for speed on a million entries."""
    root = os.path.basename(absolute)
    base = absolute.rstrip(os.sep) + os.sep
    real = os.path.realpath(top)
    entered = {_identity(top)}
    # One entry per level of the directory being listed: what is left of it, and its key. A stack instead of recursion
    # because directories can be nested deeper than Python likes to recurse.
    stack = [(_entries(top, on_error), "")]
    while stack:
        entries, prefix = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        key = prefix + entry.name
        if _is_directory(entry):
            identity = _identity(entry.path)
            if identity not in entered and not (entry.is_symlink() and _is_found_below(real, entry.path)):
                if identity is not None:
                    entered.add(identity)
                stack.append((_entries(entry.path, on_error), key + "/"))
        elif (suffix := os.path.splitext(entry.name)[1].lower()) in AUDIO_SUFFIXES:
            reason = _why_not_a_file(entry)
            if reason is not None:
                on_error(entry.path, reason)
            elif base + key not in seen:
                seen.add(base + key)
                found.append(FoundFile(entry.path, key, root))
        elif not named or base + key not in named:  # the names are seldom needed, and take time to put together
            others[suffix] += 1


def _is_found_below(top: str, link: str) -> bool:
    """Whether what a link leads to has a path of its own below `top`, and none of it is hidden."""
    target, base = os.path.realpath(link), top.rstrip(os.sep) + os.sep
    return target.startswith(base) and f"{os.sep}." not in os.sep + target[len(base) :]


def _entries(directory: str, on_error: Callable[[str, str], None]) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as listing:
            entries = [entry for entry in listing if not entry.name.startswith(".")]
    except OSError as error:
        on_error(directory, f"cannot be searched: {error.strerror}")
        return iter(())
    entries.sort(key=_name)
    return iter(entries)


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _identity(directory: str) -> tuple[int, int] | None:
    try:
        status = os.stat(directory)
    except OSError:  # it vanished; listing it says so
        return None
    return status.st_dev, status.st_ino


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link to itself, say: as a file it gets its reason
        return False


def _why_not_a_file(entry: os.DirEntry[str]) -> str | None:
    try:
        if entry.is_file():
            return None
        entry.stat()
    except FileNotFoundError:
        return "broken symbolic link" if entry.is_symlink() else "no such file or directory"
    except OSError as error:
        return str(error.strerror)
    return "not a regular file"
