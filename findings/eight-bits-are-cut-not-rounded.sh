#!/usr/bin/env bash
# int8 in usearch and Float8 in voyager cut fractions off instead of rounding them, so that a vector is far from itself.
#
# Versions: usearch 2.26.6, voyager 2.2.3.
# Guessed: components times 127, rounded to the nearest; a unit vector of 512 numbers keeps its length within 1 %, and its
# distance to itself is below 0.01, as rounding by hand gives (0.0013).
# Seen: usearch stores 0.0586 * 127 = 7.44 as 7 and 6.9 as 6 (toward zero): the stored vector is 118 long and not 127. voyager
# compares what was cut as if it were whole: the cosine distance of a vector to itself is 0.138, farther than many copies of
# a song are from the original. The more numbers a vector has the smaller they are, and the more is lost.
#
# Output:
#   usearch: length 118 of 127, cut toward zero: True
#   voyager Float8: distance to itself 0.138
#   rounded by hand: length 127 of 127, distance 0.001
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check usearch==2.26.6 voyager==2.2.3 numpy==2.4.6
cd "$room"
"$room/venv/bin/python" - <<'PYTHON'
import numpy as np
from usearch.index import Index as Usearch
from voyager import Index as Voyager
from voyager import Space, StorageDataType

vectors = np.random.default_rng(0).standard_normal((100, 512)).astype("f4")
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
song = vectors[3]
index = Usearch(ndim=512, metric="cos", dtype="i8")
index.add(np.arange(100), vectors)
stored = np.asarray(index[3], dtype="f8")
cut = bool((np.abs(stored - np.trunc(song * 127)) <= 1e-9).mean() > 0.99)
seen = [f"usearch: length {np.linalg.norm(stored):.0f} of 127, cut toward zero: {cut}"]
graph = Voyager(Space.Cosine, 512, storage_data_type=StorageDataType.Float8)
graph.add_items(vectors)
rows, distances = graph.query(song, 1)
assert rows[0] == 3
seen.append(f"voyager Float8: distance to itself {distances[0]:.3f}")
rounded = np.round(song * 127)
near = 1 - float(rounded @ song) / np.linalg.norm(rounded)
seen.append(f"rounded by hand: length {np.linalg.norm(rounded):.0f} of 127, distance {near:.3f}")
print("\n".join(seen))
assert seen == [
    "usearch: length 118 of 127, cut toward zero: True",
    "voyager Float8: distance to itself 0.138",
    "rounded by hand: length 127 of 127, distance 0.001",
]
PYTHON
