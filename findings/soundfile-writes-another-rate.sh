#!/usr/bin/env bash
# Five formats of libsndfile keep another sample rate than the one that they were written with, and nothing says so.
#
# Version: soundfile 0.14.0 (its own libsndfile).
# Guessed: a format that cannot hold a rate refuses it, as Opus does; what was written is read back at its own rate.
# Seen: HTK keeps the length of a sample in units of 100 ns, so 44,100 Hz come back as 44,247 (6 cents sharp, and a tenth of a
# second shorter every 30 s); XI keeps no rate: all is 44,100; WVE is 8,000 whatever was asked for; SVX and MPC2K keep 16
# bits: 96,000 Hz come back as 30,464. Samples are untouched. SDS is off by 1 to 6 Hz.
#
# Output:
#   HTK 44100 -> 44247
#   SDS 44100 -> 44101
#   XI 48000 -> 44100
#   WVE 44100 -> 8000
#   SVX 96000 -> 30464
#   MPC2K 96000 -> 30464
#   AVR 96000 -> 96000
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6
cd "$room"
"$room/venv/bin/python" - <<'PYTHON'
import numpy as np
import soundfile

tone = 0.5 * np.sin(np.arange(4000) * 0.05)
seen = []
for kind, rate in (
    ("HTK", 44100), ("SDS", 44100), ("XI", 48000), ("WVE", 44100), ("SVX", 96000), ("MPC2K", 96000), ("AVR", 96000)
):
    soundfile.write("tone", tone, rate, format=kind, subtype=soundfile.default_subtype(kind))
    seen.append(f"{kind} {rate} -> {soundfile.info('tone').samplerate}")
print("\n".join(seen))
assert seen == [
    "HTK 44100 -> 44247",
    "SDS 44100 -> 44101",
    "XI 48000 -> 44100",
    "WVE 44100 -> 8000",
    "SVX 96000 -> 30464",
    "MPC2K 96000 -> 30464",
    "AVR 96000 -> 96000",
]
PYTHON
