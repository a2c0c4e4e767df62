#!/usr/bin/env bash
# Embeddings as half floats in Parquet: older DuckDB reads bytes, older polars says that the file is broken.
#
# Versions: duckdb 1.2.2 and 1.3.2, polars 1.20.0 and 1.25.2, pyarrow 26.0.1 (which writes the file).
# Guessed: FLOAT16 is a logical type of Parquet since 2023, so a reader of 2024 either reads it or says that it does not know it.
# Seen: DuckDB 1.2 returns every number as a blob of two bytes, without a word, so that a cosine over the column is a type error far
# from its cause. polars 1.20 calls the file out of specification. DuckDB 1.3 and polars 1.25 read the numbers.
#
# Output:
#   duckdb 1.2.2: [b'\x00\x00', b'\x00<', b'\x00@', b'\x00B']
#   duckdb 1.3.2: [0.0, 1.0, 2.0, 3.0]
#   polars 1.20.0: ComputeError
#   polars 1.25.2: [0.0, 1.0, 2.0, 3.0]
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
cd "$room"
pip=("$room/venv/bin/pip" install --quiet --disable-pip-version-check)
"${pip[@]}" pyarrow==26.0.1 numpy==2.4.6
"$room/venv/bin/python" - <<'PYTHON'
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

vectors = np.arange(8, dtype=np.float16)
pq.write_table(pa.table({"embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors), 4)}), "songs.parquet")
PYTHON
cat > read.py <<'PYTHON'
import sys

if sys.argv[1] == "duckdb":
    import duckdb

    first = duckdb.sql("select embedding from 'songs.parquet'").fetchall()[0][0]
    print(f"duckdb {duckdb.__version__}: {list(first)}")
else:
    import polars

    try:
        first = polars.read_parquet("songs.parquet")["embedding"][0].to_list()
    except polars.exceptions.ComputeError as error:
        first = type(error).__name__
    print(f"polars {polars.__version__}: {first}")
PYTHON
for version in duckdb==1.2.2 duckdb==1.3.2 polars==1.20.0 polars==1.25.2; do
    "${pip[@]}" "$version"
    "$room/venv/bin/python" read.py "${version%%==*}"
done | tee seen
diff seen - <<'SEEN'
duckdb 1.2.2: [b'\x00\x00', b'\x00<', b'\x00@', b'\x00B']
duckdb 1.3.2: [0.0, 1.0, 2.0, 3.0]
polars 1.20.0: ComputeError
polars 1.25.2: [0.0, 1.0, 2.0, 3.0]
SEEN
