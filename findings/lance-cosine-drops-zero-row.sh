#!/usr/bin/env bash
# A vector of zeros has no row in Lance's answer to a search by cosine, however many rows are asked for.
#
# Versions: pylance 14.0.2, pyarrow 26.0.1.
# Guessed: it comes at distance 1, as in every other index tried (hnswlib, usearch, voyager), or the search is refused.
# Seen: a table of 100 rows, 100 neighbours asked for: 99 rows by cosine, the zero row missing without a word; 100 by dot
# (the zero row at distance 1) and by l2. So who joins the answer to a list of songs loses the silent one.
#
# Output:
#   cosine 99 rows, zero row missing
#   dot 100 rows, zero row at 1.0000
#   l2 100 rows, zero row at 1.0000
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check pylance==14.0.2 pyarrow==26.0.1 numpy==2.4.6
cd "$room"
"$room/venv/bin/python" - <<'PYTHON'
import lance
import numpy as np
import pyarrow as pa

vectors = np.random.default_rng(0).standard_normal((100, 64)).astype("f4")
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
vectors[7] = 0
column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 64)
table = lance.write_dataset(pa.table({"id": np.arange(100), "vector": column}), "songs.lance")
seen = []
for metric in ("cosine", "dot", "l2"):
    query = {"column": "vector", "q": vectors[3], "k": 100, "metric": metric}
    answer = table.to_table(nearest=query, columns=["id", "_distance"]).to_pydict()
    distances = dict(zip(answer["id"], answer["_distance"], strict=True))
    zero = f"at {distances[7]:.4f}" if 7 in distances else "missing"
    seen.append(f"{metric} {len(distances)} rows, zero row {zero}")
    print(seen[-1])
assert seen == ["cosine 99 rows, zero row missing", "dot 100 rows, zero row at 1.0000", "l2 100 rows, zero row at 1.0000"]
PYTHON
