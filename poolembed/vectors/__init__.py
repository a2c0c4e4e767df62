"""Vectors on disk, of this project or of any other, and which of them belongs to which clip.

What is read:

- a directory that ``poolembed embed`` wrote, in any format; its ``manifest.jsonl`` says which;
- ``.jsonl`` and ``.parquet`` tables with ``path`` and ``embedding``, as ``poolembed embed`` writes them;
- a bare ``.npy`` matrix ``(N, D)``, with a text file that has the path of each row on a line of its own.

Nothing is ever unpickled.
"""

from poolembed.vectors.matching import match
from poolembed.vectors.reading import RowNumbers, Stored, Vectors, check_rows, open_vectors, read_vectors

__all__ = ["RowNumbers", "Stored", "Vectors", "check_rows", "match", "open_vectors", "read_vectors"]
