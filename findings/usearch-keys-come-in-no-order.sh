#!/usr/bin/env bash
# What a usearch index gives back is in another order and of another type than what it was given.
#
# Version: usearch 2.26.6.
# Guessed: after add(arange(n), vectors), `index.keys` is 0 to n - 1, the matrix at the start of the saved file has vector i in row
# i, and `index.get(keys)` is an array of shape (n, D), as its annotation has it and as `search` takes it.
# Seen: the keys come in the order of a hash table. With one thread rows of the file are in the order of adding; once a key is
# removed and another added, that one has the row of the first. `get` of several keys is a tuple of arrays, which `search`
# refuses. So a row of the file means nothing without the keys, and keys have to be asked for, not counted.
#
# Output:
#   keys in order: False
#   rows of the file in order of adding: True
#   the row of the key that was removed is now of key 500
#   get of several keys: tuple
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check usearch==2.26.6 numpy==2.4.6
cd "$room"
"$room/venv/bin/python" - <<'PYTHON'
import struct
from pathlib import Path

import numpy as np
from usearch.index import Index

vectors = np.random.default_rng(0).standard_normal((501, 16)).astype("f4")
index = Index(ndim=16, metric="l2sq", dtype="f32")
index.add(np.arange(500), vectors[:500], threads=1)


def rows() -> np.ndarray:
    """The matrix that the file begins with: rows and bytes a row as 32-bit numbers, then the rows."""
    index.save("a.usearch")
    data = Path("a.usearch").read_bytes()
    count, width = struct.unpack("<II", data[:8])
    return np.frombuffer(data, "<f4", count * width // 4, 8).reshape(count, -1)


seen = [f"keys in order: {np.array_equal(np.asarray(index.keys), np.arange(500))}"]
seen.append(f"rows of the file in order of adding: {np.array_equal(rows(), vectors[:500])}")
index.remove(7)
index.add(500, vectors[500], threads=1)
moved = [key for key in range(501) if np.array_equal(rows()[7], vectors[key])]
seen.append(f"the row of the key that was removed is now of key {moved[0]}")
seen.append(f"get of several keys: {type(index.get(np.arange(3))).__name__}")
print("\n".join(seen))
assert seen == [
    "keys in order: False",
    "rows of the file in order of adding: True",
    "the row of the key that was removed is now of key 500",
    "get of several keys: tuple",
]
PYTHON
