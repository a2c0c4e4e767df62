#!/usr/bin/env bash
# One vector of NaN is the first neighbour of every query in a usearch index, and in faiss' 8-bit index it has a cosine
# that looks like any other.
#
# Versions: usearch 2.26.6, faiss-cpu 1.15.1.
# Guessed: comparisons with NaN are false, so such a row is never among the neighbours, or the index refuses it.
# Seen: usearch takes it without a word and returns it before the query's own vector, at distance NaN, in float32, float16
# and bfloat16, graph and exact search alike. faiss' flat index leaves it out, and its 8-bit scalar quantizer makes it a
# vector at the edge of the range: second of all 100 where this was written, at a cosine of 0.15, nothing to be noticed by. One song embedded wrongly once is recommended with every song.
#
# Output:
#   usearch f32 first 9 nan
#   usearch f16 first 9 nan
#   usearch bf16 first 9 nan
#   faiss flat has 9 among ten: False
#   faiss 8 bit has 9 among five: True, cosines finite: True
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check usearch==2.26.6 faiss-cpu==1.15.1 numpy==2.4.6
cd "$room"
"$room/venv/bin/python" - <<'PYTHON'
import faiss
import numpy as np
from usearch.index import Index

vectors = np.random.default_rng(0).standard_normal((100, 512)).astype("f4")
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
query = vectors[3].copy()
vectors[9] = np.nan
seen = []
for kind in ("f32", "f16", "bf16"):
    index = Index(ndim=512, metric="cos", dtype=kind)
    index.add(np.arange(100), vectors)
    graph, exact = index.search(query, 5), index.search(query, 5, exact=True)
    assert graph.keys[0] == exact.keys[0]
    seen.append(f"usearch {kind} first {exact.keys[0]} {abs(exact.distances[0]):.4f}")
flat = faiss.IndexFlatIP(512)
flat.add(vectors)
seen.append(f"faiss flat has 9 among ten: {9 in flat.search(query[None], 10)[1][0]}")
small = faiss.IndexScalarQuantizer(512, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
small.train(vectors)
small.add(vectors)
cosines, rows = small.search(query[None], 5)
seen.append(f"faiss 8 bit has 9 among five: {9 in rows[0]}, cosines finite: {bool(np.isfinite(cosines).all())}")
print("\n".join(seen))
assert seen == [
    "usearch f32 first 9 nan",
    "usearch f16 first 9 nan",
    "usearch bf16 first 9 nan",
    "faiss flat has 9 among ten: False",
    "faiss 8 bit has 9 among five: True, cosines finite: True",
]
PYTHON
