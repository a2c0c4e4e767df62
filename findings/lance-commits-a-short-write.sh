#!/usr/bin/env bash
# Lance commits a version whose data file was only partly written, and says that all went well.
#
# Versions: pylance 14.0.2, pyarrow 26.0.1; Linux.
# Guessed: where there is no room for a file, write_dataset raises and the table has no new version, as a transaction.
# Seen: with room for 400 bytes it raises. With room for 600, where only the last write of the file comes short, it
# returns, and the table that it leaves cannot be read. The limit here is the process' own (RLIMIT_FSIZE); a disk that has
# room for a part of the last write does the same. Whoever must be sure opens each new fragment once after writing.
#
# Output:
#   room for 400 bytes: write raises
#   room for 600 bytes: write returns, reading raises
#   room for all: write returns, 6 rows read
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check pylance==14.0.2 pyarrow==26.0.1
cd "$room"
"$room/venv/bin/python" -W ignore - <<'PYTHON'
import multiprocessing
import resource
import signal
import sys

import lance
import pyarrow as pa

table = pa.table({"number": pa.array(range(6)), "name": pa.array([f"song {n}" for n in range(6)])})


def write(name, room):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error instead of the process' end
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    try:
        lance.write_dataset(table, name)
    except Exception:
        sys.exit(1)


seen = []
for room in (400, 600, resource.RLIM_INFINITY):
    name = f"{room}.lance"
    process = multiprocessing.get_context("fork").Process(target=write, args=(name, room))
    process.start()
    process.join()
    line = f"room for {'all' if room == resource.RLIM_INFINITY else f'{room} bytes'}: write "
    if process.exitcode:
        seen.append(line + "raises")
        continue
    try:
        seen.append(line + f"returns, {lance.dataset(name).to_table().num_rows} rows read")
    except Exception:
        seen.append(line + "returns, reading raises")
print("\n".join(seen))
assert seen == [
    "room for 400 bytes: write raises",
    "room for 600 bytes: write returns, reading raises",
    "room for all: write returns, 6 rows read",
]
PYTHON
