#!/usr/bin/env bash
# Two FLACs joined into one file are decoded as more sound than they hold.
#
# Version: av 18.1.0 (FFmpeg 8).
# Guessed: of 'cat stereo.flac mono.flac' FFmpeg decodes the first, and then the second, or stops with an error.
# Seen: two seconds at 44.1 kHz stereo and two at 48 kHz mono are decoded as 4.7 s without an error: frames of the second
# come, then a frame of the first again, then the second from its beginning. Two of the same format are as long as they
# should be.
#
# Output:
#   stereo, mono: longer than both by more than half a second: True, errors 0
#   stereo, stereo: longer than both by more than half a second: False, errors 0
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 soundfile==0.14.0 numpy==2.4.6
cd "$room"
"$room/venv/bin/python" - <<'PYTHON'
import av
import numpy as np
import soundfile

random = np.random.default_rng(0)
files = {}
for name, rate, channels in (("stereo", 44100, 2), ("mono", 48000, 1)):
    time = np.arange(2 * rate) / rate
    tone = 0.3 * np.sin(2 * np.pi * 440 * time) + 0.01 * random.standard_normal(len(time))
    soundfile.write(f"{name}.flac", np.stack([tone] * channels, 1), rate)
    with open(f"{name}.flac", "rb") as file:
        files[name] = file.read()
seen = []
for names in (("stereo", "mono"), ("stereo", "stereo")):
    with open("joined.flac", "wb") as file:
        file.write(b"".join(files[name] for name in names))
    seconds, errors = 0.0, 0
    with av.open("joined.flac") as container:
        for packet in container.demux(audio=0):
            try:
                seconds += sum(frame.samples / frame.sample_rate for frame in packet.decode())
            except av.FFmpegError:
                errors += 1
    print(f"{seconds:.2f} s")
    seen.append(f"{', '.join(names)}: longer than both by more than half a second: {seconds > 4.5}, errors {errors}")
print("\n".join(seen))
assert seen == [
    "stereo, mono: longer than both by more than half a second: True, errors 0",
    "stereo, stereo: longer than both by more than half a second: False, errors 0",
]
PYTHON
