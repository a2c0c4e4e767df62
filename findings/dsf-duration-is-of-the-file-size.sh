#!/usr/bin/env bash
# A DSF file that is cut in half claims to be half as long.
#
# Version: av 18.1.0 (FFmpeg 8).
# Guessed: the header of a DSF states its number of samples, so the duration of the stream is that number, and a file of which
# half is missing is told by what it promises and does not hold, as a WAV or a FLAC is.
# Seen: FFmpeg reckons the duration from the size of the file and leaves the number in the header alone: one second is one
# second whole, and half a second when half of the bytes are gone. So nothing is missing as far as the stream says.
#
# Output:
#   whole: 1.0 s by the header, 1.01 s by the stream
#   half:  1.0 s by the header, 0.50 s by the stream
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0
cd "$room"
"$room/venv/bin/python" - <<'PYTHON'
import struct
from pathlib import Path

import av

RATE, BLOCK = 2_822_400, 4096  # bits a second, bytes a block
blocks = -(-RATE // (8 * BLOCK))
data = b"\x69" * (blocks * BLOCK)  # as many ones as zeros: silence
form = struct.pack("<4sQIIIIIIQII", b"fmt ", 52, 1, 0, 1, 1, RATE, 1, RATE, BLOCK, 0)
body = form + struct.pack("<4sQ", b"data", 12 + len(data)) + data
whole = struct.pack("<4sQQQ", b"DSD ", 28, 28 + len(body), 0) + body
seen = []
for name, content in (("whole: ", whole), ("half:  ", whole[: len(whole) // 2])):
    Path("a.dsf").write_bytes(content)
    stated = struct.unpack("<Q", content[64:72])[0] / RATE
    with av.open("a.dsf") as file:
        stream = file.streams.audio[0]
        seen.append(f"{name}{stated:.1f} s by the header, {float(stream.duration * stream.time_base):.2f} s by the stream")
print("\n".join(seen))
assert seen == ["whole: 1.0 s by the header, 1.01 s by the stream", "half:  1.0 s by the header, 0.50 s by the stream"]
PYTHON
