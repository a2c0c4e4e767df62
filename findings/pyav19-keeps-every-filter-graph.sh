#!/usr/bin/env bash
# From PyAV 19 on a filter graph that nobody refers to any more stays, with its decoder and its open file, until Python's
# cyclic collector happens to run.
#
# Versions: av 18.1.0 and av 19.0.2 (which needs Python 3.12: PYTHON=... names one if python3 is older).
# Guessed: as before, dropping the last reference closes the file that an `amovie` source has open.
# Seen: a graph and its filters refer to one another strongly in 19, where 18 had a weak reference, and there is no close().
# The collector counts objects, and a graph is a handful of them, so a program that decodes song after song this way has
# hundreds of files open before it runs, and meets the limit of 1,024.
#
# Output:
#   av 18.1.0: 0 of 10 files stay open, 0 after gc.collect()
#   av 19.0.2: 10 of 10 files stay open, 0 after gc.collect()
set -euo pipefail
python=
for candidate in "${PYTHON:-}" python3 python3.12 python3.13 python3.14; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2> /dev/null; then python=$candidate; break; fi
done
[ -n "$python" ] || { echo "needs Python 3.12 or later: PYTHON=/its/path $0" >&2; exit 1; }
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
cd "$room"
for version in 18.1.0 19.0.2; do
  "$python" -m venv "venv-$version"
  "venv-$version/bin/pip" install --quiet --disable-pip-version-check "av==$version"
  "venv-$version/bin/python" - <<'PYTHON' | tee -a seen
import gc
import os
import wave

import av
import av.filter

with wave.open("song.wav", "wb") as file:
    file.setparams((1, 2, 8000, 0, "NONE", ""))
    file.writeframes(bytes(16000))
gc.collect()
gc.disable()
before = len(os.listdir("/proc/self/fd"))
for _ in range(10):
    graph = av.filter.Graph()
    graph.add("amovie", filename="song.wav")
    del graph
dropped = len(os.listdir("/proc/self/fd")) - before
gc.collect()
collected = len(os.listdir("/proc/self/fd")) - before
print(f"av {av.__version__}: {dropped} of 10 files stay open, {collected} after gc.collect()")
PYTHON
done
diff seen - <<'EXPECTED'
av 18.1.0: 0 of 10 files stay open, 0 after gc.collect()
av 19.0.2: 10 of 10 files stay open, 0 after gc.collect()
EXPECTED
