"""Vectors to search in, opened without reading more of them than there is need for."""

from __future__ import annotations

import fnmatch
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.embed.manifest import NAME, read_manifest
from poolembed.embed.silence import is_silence
from poolembed.errors import OutputError, UsageError, VectorsError
from poolembed.identity import ModelIdentity
from poolembed.text import path_text
from poolembed.vectors import RowNumbers, check_rows, open_vectors

BLOCK = 4096
"""Rows that are looked at together, where the caller does not say."""


@dataclass(frozen=True)
class Collection:
    """Vectors and what they are of.

    Attributes:
        source: the file or directory as given, for messages.
        keys: N names: for what ``poolembed embed`` wrote paths below the folder that was embedded; for foreign vectors
            the lines of the file of paths, or the numbers of the rows.
        paths: N paths: for what ``poolembed embed`` wrote from the root, else as given.
        matrix: ``(N, D)`` as stored, read-only; mapped into memory if it is one ``.npy`` file. Its rows are checked
            when they are read through `blocks` or `unit_rows`, and by every search, not before.
        unit: the stored rows are of unit length.
        model: whose vectors they are, or None where nothing says so.
        stamp: a short digest that changes whenever the vectors or their paths do.
        origin: the collection that an index is of; None for every other.
    """

    source: str
    keys: Sequence[str]
    paths: Sequence[str]
    matrix: NDArray[Any]
    unit: bool
    model: ModelIdentity | None
    stamp: str
    origin: str | None = None

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def size(self) -> int:
        """D, the numbers in a vector."""
        return int(self.matrix.shape[1])

    @property
    def named(self) -> bool:
        """Whether there is more to call a row by than its number."""
        return not isinstance(self.keys, RowNumbers)

    def blocks(self, rows: int = BLOCK) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """All rows in order, so many at a time: ``(first row, (n, D) float32 of unit length)``.

        Raises:
            VectorsError: a row is zero, or not finite.
        """
        for first in range(0, len(self), rows):
            yield first, self.unit_rows(slice(first, first + rows))

    def unit_rows(self, rows: slice | Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Some rows: ``(n, D)`` float32 of unit length.

        Raises:
            VectorsError: a row is zero, or not finite.
        """
        block = np.array(self.matrix[rows], np.result_type(self.matrix.dtype, np.float32))
        norms = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
        if not np.all((norms > 0) & np.isfinite(norms)):
            check_rows(self.matrix, self.keys, self.source)  # names them all
        block /= norms[:, None]
        return block.astype(np.float32, copy=False)

    def silent(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some rows are silent songs, ``(n,)``, by their vectors; see `embed.silence`.

        Raises:
            VectorsError: a row is zero, or not finite.
        """
        blocks = (self.unit_rows(rows[first : first + BLOCK]) for first in range(0, len(rows), BLOCK))
        return np.concatenate([np.zeros(0, bool), *map(is_silence, blocks)])

    def cut(self, size: int) -> Collection:
        """The same songs by the first `size` numbers of each vector, as nested models are made for.

        Raises:
            UsageError: there are fewer numbers than that.
        """
        if not 1 <= size <= self.size:
            raise UsageError(f"the vectors of {self.source} have {self.size} numbers, so there are no first {size}")
        if size == self.size:
            return self
        return replace(self, matrix=self.matrix[:, :size], unit=False)

    def matching(self, include: Sequence[str], exclude: Sequence[str]) -> NDArray[np.bool_] | None:
        """Which rows globs let through: those that match one of `include`, if there are any, and none of `exclude`.

        A glob matches a song if it matches all of its key or all of its path. ``*`` matches ``/`` too.

        Returns:
            ``(N,)``; or None where all rows are let through because there are no globs.

        Raises:
            VectorsError: none is let through.
        """
        if not include and not exclude:
            return None
        wanted, unwanted = _matcher(include or ["*"]), _matcher(exclude)
        names = zip(self.keys, self.paths, strict=True)
        fitting = (any(map(wanted, both)) and not any(map(unwanted, both)) for both in names)
        allowed = np.fromiter(fitting, bool, len(self))
        if not allowed.any():
            raise VectorsError(
                f"none of the {len(self)} songs of {self.source} is left by the filters",
                hint=f"names are like {self.keys[0]}, and * matches / too",
            )
        return allowed


def open_collection(source: str | os.PathLike[str], paths: str | os.PathLike[str] | None = None) -> Collection:
    """Open vectors.

    Args:
        source: what `poolembed.vectors` reads. Of a directory that ``poolembed embed`` wrote, its one file will do.
        paths: for a bare matrix, a text file with the path of each row; without it, rows are called by their numbers.

    Raises:
        VectorsError: they cannot be read, or there are none.
        OutputError: the manifest is damaged.
    """
    place = Path(source)
    if paths is None and place.stem == "embeddings" and place.is_file() and (place.parent / NAME).is_file():
        place = place.parent
    stored = open_vectors(place, paths, numbered=True)
    # Numbers of 16 bits round a length by more than a search should be off.
    unit = stored.model is not None and stored.matrix.dtype == np.float32
    return Collection(os.fspath(source), stored.keys, stored.paths, stored.matrix, unit, stored.model, stored.stamp)


def read_durations(collection: Collection) -> dict[str, float]:
    """Path -> decoded seconds, of the songs whose length the collection's manifest or table tells; no tag is asked.

    Nothing is known of a bare matrix and of a Lance table; and of an index whose collection is gone.
    """
    source = Path(collection.source if collection.origin is None else collection.origin)
    folder = source if source.is_dir() else source.parent
    if source.is_dir() or (source.stem == "embeddings" and (folder / NAME).is_file()):
        with suppress(OutputError):
            records = read_manifest(folder / NAME).records.values()
            return _known((record.abspath, record.duration) for record in records if record.status == "ok")
    if source.suffix.lower() == ".jsonl":
        with suppress(OSError, ValueError), source.open("rb") as lines:
            rows = [json.loads(line) for line in lines]
            return _known((row.get("path"), row.get("duration")) for row in rows if isinstance(row, dict))
    if source.suffix.lower() == ".parquet":
        return _known(_columns(source))
    return {}


def _columns(source: Path) -> list[tuple[Any, Any]]:
    import pyarrow
    import pyarrow.parquet

    with (
        suppress(OSError, pyarrow.ArrowException),
        source.open("rb") as file,
        pyarrow.parquet.ParquetFile(file) as table,
    ):
        if "duration" in table.schema_arrow.names:
            columns = table.read(columns=["path", "duration"])
            paths = (path_text(path) if isinstance(path, str) else None for path in columns["path"].to_pylist())
            return list(zip(paths, columns["duration"].to_pylist(), strict=True))
    return []


def _known(pairs: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    return {
        path: float(seconds)
        for path, seconds in pairs
        if isinstance(path, str) and type(seconds) in (int, float) and 0 <= seconds < math.inf
    }


def _matcher(globs: Sequence[str]) -> Callable[[str], object]:
    patterns = [fnmatch.translate(os.path.expanduser(glob)) for glob in globs]  # noqa: PTH111
    return re.compile("|".join(patterns)).fullmatch if patterns else lambda name: None
