"""One song as a line of JSON, for ``embeddings.jsonl`` and for a pipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from poolembed.embed.manifest import WAY_OUT, FloatType, Record, Settings
from poolembed.embed.outputs.plan import Job, Plan, job_for
from poolembed.embed.song import Embedded, Numbers, numbers_of
from poolembed.errors import OutputError
from poolembed.files.reading import open_regular

if TYPE_CHECKING:
    from poolembed.audio.find import FoundFile

# No path can hold this: inside a JSON string a quote has a backslash before it.
_EMBEDDING = b', "embedding": '


def encode_line(label: dict[str, Any], numbers: Numbers) -> bytes:
    """A line of ASCII, newline included."""
    line = _head(label) + _EMBEDDING + _floats(numbers.embedding)
    if numbers.times is not None and numbers.segments is not None:
        stretches = (
            b'{"time": %b, "embedding": %b}' % (repr(time).encode("ascii"), _floats(vector))
            for time, vector in zip(numbers.times.tolist(), numbers.segments, strict=True)
        )
        line += b', "timestamps": [' + b", ".join(stretches) + b"]"
    return line + b"}\n"


def _head(label: dict[str, Any]) -> bytes:
    return json.dumps(label).encode("ascii")[:-1]


def _label(song: Job | Record, duration: float | None) -> dict[str, Any]:
    return {"path": song.path, "key": song.key, "duration": duration, "size": song.size, "mtime": song.mtime}


def _floats(vector: NDArray[Any]) -> bytes:
    # The text of a NumPy scalar is the shortest that reads back as the same float32 (or float16): half the bytes
    # of the digits of a float64.
    return b"[" + ", ".join(map(str, vector)).encode("ascii") + b"]"


def write_jsonl(
    file: BinaryIO, songs: Iterable[tuple[Record, Numbers]], kept: Iterator[bytes], changed: set[int]
) -> None:
    """Write songs as lines; numbers that have not changed are not put in digits again, which takes long.

    Args:
        file: open to write.
        songs: each row's.
        kept: the lines that there were, row by row.
        changed: rows whose numbers the lines do not have.
    """
    for record, numbers in songs:
        label = {**_label(record, record.duration), "row": record.row}
        line = next(kept, b"")
        if record.row in changed or (at := line.find(_EMBEDDING)) < 0:
            file.write(encode_line(label, numbers))
        else:
            file.write(_head(label) + line[at:])


def read_jsonl(path: Path, settings: Settings, size: int) -> Iterator[Numbers]:
    """The numbers of each line.

    Raises:
        OutputError: a line is no song's of this model and these settings.
    """
    with open_regular(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                song = json.loads(line)
                numbers = Numbers(np.array(song["embedding"], settings.numbers))
                if settings.timestamps is not None:
                    times = np.array([stretch["time"] for stretch in song["timestamps"]], "<f8")
                    vectors = [stretch["embedding"] for stretch in song["timestamps"]]
                    numbers = Numbers(
                        numbers.embedding, times, np.array(vectors, settings.numbers).reshape(len(times), size)
                    )
                if numbers.embedding.shape != (size,):
                    raise ValueError(numbers.embedding.shape)
            except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
                raise OutputError(f"{path} is damaged in line {number}", hint=WAY_OUT) from error
            yield numbers


class JsonLinesStream:
    """Songs as lines of JSON on a stream: ``-o -``. Has the methods of an OutputDirectory and remembers nothing.

    Args:
        stream: binary, such as ``sys.stdout.buffer``; it is flushed after every song and not closed.
        dtype: float type of the numbers.
        timestamps: write each song's segments too.
    """

    ordered = True

    def __init__(self, stream: BinaryIO, *, dtype: FloatType, timestamps: bool = False) -> None:
        self._stream = stream
        self._dtype = np.dtype(dtype)
        self._timestamps = timestamps

    def plan(self, found: Sequence[FoundFile]) -> Plan:
        """Every song, in order."""
        return Plan([job_for(file.path, file.key) for file in found], 0)

    def write(self, job: Job, song: Embedded) -> str | None:
        """Write a song; never fails one (None).

        Raises:
            BrokenPipeError: the reader went away.
            OutputError: the stream cannot be written, as when the disk is full.
        """
        numbers = numbers_of(song, len(song.embedding), self._dtype, segments=self._timestamps)
        try:
            self._stream.write(encode_line(_label(job, song.duration), numbers))
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write to the stream of JSON Lines: {error.strerror}") from error
        return None

    def fail(self, job: Job, reason: str) -> None:
        """A failed song has no line."""

    def close(self) -> None:
        """The stream belongs to the caller."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
