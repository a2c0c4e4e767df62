#!/usr/bin/env bash
# DuckDB's cosine of a vector of zeros is NaN, and NaN is the largest number there is: ORDER BY cosine DESC puts it first.
#
# Version: duckdb 2.0.1.
# Guessed: NULL, as a division by zero is in DuckDB (1 / 0 is NULL), and so at the end; or NaN, and at the end too.
# Seen: list_cosine_similarity and array_cosine_similarity give NaN, and NaN comes before 1.0 in descending order: a silent
# track is the nearest neighbour of every song. list_inner_product gives 0 and does not have this.
#
# Output:
#   list_cosine_similarity: silent nan, same 1.0, other 0.6
#   list_inner_product: same 1.0, other 0.6, silent 0.0
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check duckdb==2.0.1
cd "$room"
"$room/venv/bin/python" - <<'PYTHON'
import duckdb

songs = "(VALUES ('same', [0.6, 0.8]::FLOAT[]), ('other', [1.0, 0.0]::FLOAT[]), ('silent', [0.0, 0.0]::FLOAT[])) song(name, v)"
seen = []
for function in ("list_cosine_similarity", "list_inner_product"):
    query = f"SELECT name, {function}(v, [0.6, 0.8]::FLOAT[]) AS score FROM {songs} ORDER BY score DESC"
    rows = duckdb.execute(query).fetchall()
    seen.append(f"{function}: " + ", ".join(f"{name} {score:.1f}" for name, score in rows))
print("\n".join(seen))
assert seen == [
    "list_cosine_similarity: silent nan, same 1.0, other 0.6",
    "list_inner_product: same 1.0, other 0.6, silent 0.0",
]
PYTHON
