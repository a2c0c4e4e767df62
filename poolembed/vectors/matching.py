"""Which vector belongs to which clip, by their names."""

from __future__ import annotations

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence

from poolembed.errors import VectorsError
from poolembed.text import path_text
from poolembed.vectors.reading import Vectors


def match(vectors: Vectors, keys: Sequence[str]) -> list[int | None]:
    """The row of each key's vector, or None where there is none.

    A vector belongs to a clip if their keys are equal, or else if the end of one's path is the other's whole path:
    ``/data/esc10/audio/a.ogg`` and ``audio/a.ogg``. Separators, ``./`` and how seconds are spelt in ``#t=1.50,2`` do
    not count.

    Args:
        vectors: from `read_vectors`.
        keys: of clips, each different (`poolembed.labels.Clip.key`).

    Raises:
        VectorsError: a clip could be two vectors', or a vector two clips'; the message names both.
    """
    rows: list[int | None] = [None] * len(keys)
    wanted = [_normal(key) for key in keys]
    exact = defaultdict(list)
    for row, key in enumerate(vectors.keys):
        exact[_normal(key)].append(row)
    for number, key in enumerate(wanted):
        if key in exact:
            rows[number] = _only(exact[key], vectors, keys[number])
    taken = {row for row in rows if row is not None}
    by_name = defaultdict(list)
    for row, path in enumerate(vectors.paths):
        if row not in taken:
            parts = _normal(path).split("/")
            by_name[parts[-1]].append((row, parts))
    owner: dict[int, int] = {}
    for number, key in enumerate(wanted):
        if rows[number] is None:
            parts = key.split("/")
            fitting = [row for row, other in by_name[parts[-1]] if _is_end(parts, other)]
            if fitting:
                row = rows[number] = _only(fitting, vectors, keys[number])
                if owner.setdefault(row, number) != number:
                    raise VectorsError(
                        f"the vector of {vectors.paths[row]} in {vectors.source} could be that of "
                        f"{keys[owner[row]]} and of {keys[number]}",
                        hint="longer paths, in the list of paths or in the table, tell them apart",
                    )
    return rows


def _only(rows: Sequence[int], vectors: Vectors, key: str) -> int:
    if len(rows) > 1:
        first, second = (f"{vectors.paths[row]} (row {row})" for row in rows[:2])
        raise VectorsError(
            f"{key} could be {first} and {second} of {vectors.source}",
            hint="longer paths, in the list of paths or in the table, tell them apart",
        )
    return rows[0]


def _normal(path: str) -> str:
    """A path as it is compared."""
    path, fragment = re.fullmatch(r"(.*?)(#t=[0-9.,]+)?", path, re.DOTALL).groups()  # type: ignore[union-attr]
    if fragment:
        seconds = [part.rstrip("0").rstrip(".") if "." in part else part for part in fragment[3:].split(",")]
        fragment = "#t=" + ",".join(part or "0" for part in seconds)
    return path_text(posixpath.normpath(path.replace("\\", "/") if os.sep == "\\" else path)) + (fragment or "")


def _is_end(one: Sequence[str], other: Sequence[str]) -> bool:
    shared = min(len(one), len(other))
    return one[-shared:] == other[-shared:]
