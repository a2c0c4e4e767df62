"""``embeddings.parquet``: a file that cannot grow, so every song waits in the journal until the run ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from poolembed.embed.manifest import WAY_OUT, Record, Settings
from poolembed.embed.outputs.journalled import JournalledSink, Vectors
from poolembed.embed.outputs.log import Log
from poolembed.embed.outputs.plan import Job
from poolembed.embed.outputs.sink import Place
from poolembed.embed.song import Embedded
from poolembed.errors import OutputError, UsageError
from poolembed.files.reading import open_regular
from poolembed.files.writing import writing
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


class ParquetSink(JournalledSink):
    """One table: path, key, embedding, duration, size, mtime and, where asked for, times and segments."""

    name = "embeddings.parquet"

    def __init__(self, directory: Path, model: ModelIdentity, settings: Settings) -> None:
        super().__init__(directory, model, settings)
        self._schema = _schema(model, self.dtype, segments=self.segments)

    def _count_rows(self, wanted: int) -> int:
        if not self.path.exists():
            return 0
        with self._reading() as table:
            if not table.schema_arrow.equals(self._schema):
                raise OutputError(f"{self.path} is not of poolembed, or of another version", hint=WAY_OUT)
            return int(table.metadata.num_rows)

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """The file as it is; what is wrong with it, in whatever way pyarrow says so, is an OutputError."""
        import pyarrow
        import pyarrow.parquet

        with writing(self.path):
            file = open_regular(self.path)
        try:
            with file, pyarrow.parquet.ParquetFile(file) as table:
                yield table
        except (pyarrow.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
            told = str(error).partition("\n")[0]
            raise OutputError(f"{self.path} is damaged: {told}", hint=WAY_OUT) from error

    def _write(self, row: int, job: Job, song: Embedded) -> Place:
        return self._to_journal(row, song)

    def _merge(self, log: Log, part: Path) -> None:
        import pyarrow.parquet

        group: list[tuple[Record, Vectors]] = []
        vectors = 0
        with part.open("wb") as file, pyarrow.parquet.ParquetWriter(file, self._schema) as writer:
            for record, row in self._rows_of(log, self._filed_rows()):
                if group and (len(group) == GROUP_ROWS or vectors + 1 + len(row[1]) > GROUP_VECTORS):
                    writer.write_table(self._table(group), row_group_size=GROUP_ROWS)
                    group, vectors = [], 0
                group.append((record, row))
                vectors += 1 + len(row[1])
            if group:
                writer.write_table(self._table(group), row_group_size=GROUP_ROWS)

    def _filed_rows(self) -> Iterator[Vectors]:
        """The rows of the file as it is, one row group in memory at a time."""
        size = self.model.embedding_size
        columns = ["embedding", "times", "segments"] if self.segments else ["embedding"]
        with self._reading() as table:
            for number in range(table.num_row_groups):
                group = table.read_row_group(number, columns=columns).combine_chunks()
                embeddings = _vectors(group["embedding"].chunk(0), size)
                if not self.segments:
                    yield from ((embedding, np.zeros(0), embedding[:0]) for embedding in embeddings)
                    continue
                counts = group["times"].chunk(0).value_lengths().to_numpy()
                times = group["times"].chunk(0).flatten().to_numpy()
                segments = _vectors(group["segments"].chunk(0).flatten(), size)
                first = 0
                for embedding, count in zip(embeddings, counts.tolist(), strict=True):
                    yield embedding, times[first : first + count], segments[first : first + count]
                    first += count

    def _table(self, group: list[tuple[Record, Vectors]]) -> Any:
        import pyarrow as pa

        records = [record for record, _ in group]
        vectors = [row for _, row in group]
        size = self.model.embedding_size
        columns = {
            "path": pa.array([path_text(record.path) for record in records], pa.string()),
            "key": pa.array([path_text(record.key) for record in records], pa.string()),
            "embedding": _fixed_lists(np.stack([embedding for embedding, _, _ in vectors]), size),
            "duration": pa.array([record.duration for record in records], pa.float64()),
            "size": pa.array([record.size for record in records], pa.int64()),
            "mtime": pa.array([record.mtime for record in records], pa.float64()),
        }
        if self.segments:
            ends = np.cumsum([0, *(len(times) for _, times, _ in vectors)])
            offsets = pa.array(ends, pa.int32())
            times = pa.array(np.concatenate([times for _, times, _ in vectors]), pa.float64())
            segments = _fixed_lists(np.concatenate([segments for _, _, segments in vectors]), size)
            columns["times"] = pa.ListArray.from_arrays(offsets, times)
            columns["segments"] = pa.ListArray.from_arrays(offsets, segments)
        return pa.table(columns).cast(self._schema)


def _schema(model: ModelIdentity, dtype: np.dtype[Any], *, segments: bool) -> Any:
    import pyarrow as pa

    vector = pa.list_(pa.from_numpy_dtype(dtype), model.embedding_size)
    fields = [
        ("path", pa.string()),
        ("key", pa.string()),
        ("embedding", vector),
        ("duration", pa.float64()),
        ("size", pa.int64()),
        ("mtime", pa.float64()),
    ]
    if segments:
        fields += [("times", pa.list_(pa.float64())), ("segments", pa.list_(vector))]
    return pa.schema(fields, {"poolembed_model": model.name, "poolembed_fingerprint": model.fingerprint})


def _fixed_lists(vectors: np.ndarray[Any, Any], size: int) -> Any:
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), size)


def _vectors(lists: Any, size: int) -> np.ndarray[Any, Any]:
    vectors: np.ndarray[Any, Any] = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
    return vectors
