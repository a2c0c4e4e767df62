"""How long songs are, as they were decoded; no tag is asked, for what tags say is often a guess."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from poolembed.embed.manifest import NAME, read_manifest
from poolembed.errors import OutputError
from poolembed.search.collection import Collection
from poolembed.text import path_text


def read_lengths(collection: Collection) -> dict[str, float]:
    """Path -> seconds, of the songs whose length the collection's manifest or table tells.

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
