"""``embeddings.parquet``: written whole, and read back, some thousand rows at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from poolembed.embed.manifest import WAY_OUT, Record, Settings
from poolembed.embed.song import Numbers
from poolembed.errors import OutputError, UsageError
from poolembed.files.reading import open_regular
from poolembed.identity import ModelIdentity
from poolembed.text import path_text

# A row group ends at whichever comes first, so that songs with many segments do not fill the memory.
GROUP_ROWS = 8192
GROUP_VECTORS = 65536


def require_pyarrow() -> None:
    """Check that Parquet can be written.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "--format parquet needs pyarrow", hint="from poolembed's checkout: pip install '.[parquet]'"
        ) from error


def write_parquet(
    file: BinaryIO, songs: Iterable[tuple[Record, Numbers]], model: ModelIdentity, settings: Settings
) -> None:
    """Write songs as a table: path, key, embedding, duration, size, mtime and, where asked for, times and segments."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetWriter(file, schema := _schema(model, settings)) as writer:
        for group in _groups(songs):
            writer.write_table(_table(group, schema, model.embedding_size), row_group_size=GROUP_ROWS)


def read_parquet(path: Path, model: ModelIdentity, settings: Settings) -> Iterator[Numbers]:
    """The numbers of each row, one row group in memory at a time.

    Raises:
        OutputError: the table is damaged, or is not of poolembed, or of other settings.
    """
    import pyarrow.parquet

    size = model.embedding_size
    with _telling(path), open_regular(path) as file, pyarrow.parquet.ParquetFile(file) as table:
        if not table.schema_arrow.equals(_schema(model, settings)):
            raise OutputError(f"{path} is not of poolembed, or of another version", hint=WAY_OUT)
        columns = ["embedding"] if settings.timestamps is None else ["embedding", "times", "segments"]
        for number in range(table.num_row_groups):
            group = table.read_row_group(number, columns=columns).combine_chunks()
            embeddings = _vectors(group["embedding"].chunk(0), size)
            if settings.timestamps is None:
                yield from map(Numbers, embeddings)
                continue
            ends = np.cumsum(group["times"].chunk(0).value_lengths().to_numpy())[:-1]
            times = np.split(group["times"].chunk(0).flatten().to_numpy(), ends)
            segments = np.split(_vectors(group["segments"].chunk(0).flatten(), size), ends)
            yield from map(Numbers, embeddings, times, segments)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """What is wrong with a file, in whatever way pyarrow says so, is an OutputError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
        told = (getattr(error, "strerror", None) or str(error)).partition("\n")[0]
        raise OutputError(f"{path} is damaged: {told}", hint=WAY_OUT) from error


def _groups(songs: Iterable[tuple[Record, Numbers]]) -> Iterator[list[tuple[Record, Numbers]]]:
    group: list[tuple[Record, Numbers]] = []
    vectors = 0
    for record, numbers in songs:
        count = 1 if numbers.times is None else 1 + len(numbers.times)
        if group and (len(group) == GROUP_ROWS or vectors + count > GROUP_VECTORS):
            yield group
            group, vectors = [], 0
        group.append((record, numbers))
        vectors += count
    if group:
        yield group


def _table(group: list[tuple[Record, Numbers]], schema: Any, size: int) -> Any:
    import pyarrow as pa

    records = [record for record, _ in group]
    numbers = [numbers for _, numbers in group]
    columns = {
        "path": pa.array([path_text(record.path) for record in records], pa.string()),
        "key": pa.array([path_text(record.key) for record in records], pa.string()),
        "embedding": _fixed_lists(np.stack([song.embedding for song in numbers]), size),
        "duration": pa.array([record.duration for record in records], pa.float64()),
        "size": pa.array([record.size for record in records], pa.int64()),
        "mtime": pa.array([record.mtime for record in records], pa.float64()),
    }
    if "times" in schema.names:
        times = [song.times for song in numbers if song.times is not None]
        segments = [song.segments for song in numbers if song.segments is not None]
        offsets = pa.array(np.cumsum([0, *map(len, times)]), pa.int32())
        columns["times"] = pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(times), pa.float64()))
        columns["segments"] = pa.ListArray.from_arrays(offsets, _fixed_lists(np.concatenate(segments), size))
    return pa.table(columns).cast(schema)


def _schema(model: ModelIdentity, settings: Settings) -> Any:
    import pyarrow as pa

    vector = pa.list_(pa.from_numpy_dtype(settings.numbers), model.embedding_size)
    fields = [
        ("path", pa.string()),
        ("key", pa.string()),
        ("embedding", vector),
        ("duration", pa.float64()),
        ("size", pa.int64()),
        ("mtime", pa.float64()),
    ]
    if settings.timestamps is not None:
        fields += [("times", pa.list_(pa.float64())), ("segments", pa.list_(vector))]
    return pa.schema(fields, {"poolembed_model": model.name, "poolembed_fingerprint": model.fingerprint})


def _fixed_lists(vectors: NDArray[Any], size: int) -> Any:
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), size)


def _vectors(lists: Any, size: int) -> NDArray[Any]:
    vectors: NDArray[Any] = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
    return vectors
