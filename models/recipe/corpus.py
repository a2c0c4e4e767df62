"""``corpus.toml`` and ``never-train.txt`` as Python sees them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

import msgspec

HERE = Path(__file__).parent

Kind = Literal["music", "modules", "midi", "speech", "drums", "oneshots", "effects", "soundfonts"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What files serve as; the first that a file matches counts."""


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One Debian package; see the head of ``corpus.toml``."""

    name: str
    licence: str
    by: str
    artist: str = ""
    valid: bool = False
    archives: tuple[str, ...] = ()
    drop: dict[str, str] = {}
    music: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    midi: tuple[str, ...] = ()
    speech: tuple[str, ...] = ()
    drums: tuple[str, ...] = ()
    oneshots: tuple[str, ...] = ()
    effects: tuple[str, ...] = ()
    soundfonts: tuple[str, ...] = ()

    def kind(self, path: str) -> Kind | None:
        """What a file serves as, None if it is not taken.

        Args:
            path: in the package, ``/``-separated; an archive that is opened counts as a folder.
        """
        path = path.lower()
        if not path.endswith(SUFFIXES) or any(fnmatchcase(path, pattern.lower()) for pattern in self.drop):
            return None
        kinds = (kind for kind in KINDS if any(fnmatchcase(path, one.lower()) for one in getattr(self, kind)))
        return next(kinds, None)


SUFFIXES = (
    *(".ogg", ".oga", ".opus", ".mp3", ".flac", ".wav", ".aiff", ".aif", ".au"),
    *(".mod", ".xm", ".s3m", ".it"),
    *(".mid", ".midi"),
    *(".sf2", ".sf3"),
)
"""Of files that can be taken; in lower case."""

SMOKE = ("parsec47-data", "csound-soundfont")
"""Packages of a trial run: little to download, and each kind of step has something to do."""


class _Corpus(msgspec.Struct, forbid_unknown_fields=True):
    package: list[Package]


def read_corpus(path: Path = HERE / "corpus.toml") -> list[Package]:
    """The packages, in order.

    Raises:
        ValueError: the list is malformed, names a package twice, or names one that is never trained on.
    """
    packages = msgspec.toml.decode(path.read_bytes(), type=_Corpus).package
    names = [package.name for package in packages]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: named twice: {sorted({name for name in names if names.count(name) > 1})}")
    forbidden = never_train() & set(names)
    if forbidden:
        raise ValueError(f"{path}: never trained on: {sorted(forbidden)}")
    return packages


def never_train(path: Path = HERE / "never-train.txt") -> set[str]:
    """Names of the packages that belong to the held-out side."""
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return {line for line in lines if line}
