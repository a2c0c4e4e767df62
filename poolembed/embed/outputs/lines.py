"""One song as a line of JSON, for ``embeddings.jsonl`` and for a pipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from poolembed.embed.manifest import FloatType
from poolembed.embed.outputs.plan import Job, Plan, job_for
from poolembed.embed.song import Embedded
from poolembed.errors import OutputError

if TYPE_CHECKING:
    from poolembed.audio.find import FoundFile

# No path can hold this: inside a JSON string a quote has a backslash before it.
_EMBEDDING = b', "embedding": '


def encode_line(
    label: dict[str, Any],
    embedding: NDArray[Any],
    times: NDArray[np.float64] | None = None,
    segments: NDArray[Any] | None = None,
) -> bytes:
    """A line of ASCII, newline included.

    Shape: ``embedding`` ``(D,)``; ``times`` ``(n,)`` and ``segments`` ``(n, D)`` both or neither.
    """
    line = _head(label) + _EMBEDDING + _floats(embedding)
    if times is not None and segments is not None:
        stretches = (
            b'{"time": %b, "embedding": %b}' % (repr(time).encode("ascii"), _floats(vector))
            for time, vector in zip(times.tolist(), segments, strict=True)
        )
        line += b', "timestamps": [' + b", ".join(stretches) + b"]"
    return line + b"}\n"


def relabel(line: bytes, label: dict[str, Any]) -> bytes:
    """A line of ``encode_line`` with another label and the same numbers, digit for digit."""
    return _head(label) + line[line.index(_EMBEDDING) :]


def _head(label: dict[str, Any]) -> bytes:
    return json.dumps(label).encode("ascii")[:-1]


def _floats(vector: NDArray[Any]) -> bytes:
    # The text of a NumPy scalar is the shortest that reads back as the same float32 (or float16): half the bytes
    # of the digits of a float64.
    return b"[" + ", ".join(map(str, vector)).encode("ascii") + b"]"


class JsonLinesStream:
    """Songs as lines of JSON on a stream: ``-o -``. Has the methods of an OutputDirectory and remembers nothing.

    Args:
        stream: binary, such as ``sys.stdout.buffer``; it is flushed after every song and not closed.
        dtype: float type of the vectors.
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
        times = segments = None
        if self._timestamps and song.segments is not None:
            times, segments = song.segments.times, song.segments.embeddings.astype(self._dtype)
        label = {"path": job.path, "duration": song.duration}
        line = encode_line(label, song.embedding.astype(self._dtype), times, segments)
        try:
            self._stream.write(line)
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
