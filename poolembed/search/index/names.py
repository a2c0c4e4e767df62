"""Many names in one run of bytes, of which only those that are asked for are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from poolembed.errors import VectorsError

_BLOCK = 4096


class Names(Sequence[str]):
    """Names as `pack` made them.

    Args:
        text: bytes, perhaps mapped from a file.
        ends: ``(N,)``, where each name ends.
        source: the file, for messages.

    Raises:
        VectorsError: on reading a name, if it is damaged.
    """

    def __init__(self, text: NDArray[np.uint8], ends: NDArray[np.int64], source: str) -> None:
        self._text = text
        self._ends = ends
        self._source = source

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        return self._read(row, row + 1)[0]

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _BLOCK):
            yield from self._read(first, min(first + _BLOCK, len(self)))

    def _read(self, first: int, last: int) -> list[str]:
        start = int(self._ends[first - 1]) if first else 0
        ends = (self._ends[first:last] - start).tolist()
        text = self._text[start : start + ends[-1]].tobytes()
        try:
            return [text[a:b].decode("utf-8", "surrogatepass") for a, b in zip([0, *ends], ends, strict=False)]
        except UnicodeDecodeError as error:
            raise VectorsError(
                f"{self._source} is damaged: it has a name that is no text", hint="delete it, and build it again"
            ) from error


def pack(names: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Names as bytes, and where each ends; names of any characters, those of paths that are not UTF-8 included.

    >>> text, ends = pack(["a", "", "bc"])
    >>> text.tobytes(), ends.tolist(), list(Names(text, ends, ""))
    (b'abc', [1, 1, 3], ['a', '', 'bc'])
    """
    encoded = [name.encode("utf-8", "surrogatepass") for name in names]
    ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    return np.frombuffer(b"".join(encoded), np.uint8), ends
