#!/usr/bin/env bash
# WAVs of 24 valid bits in 32: what FFmpeg makes of them are samples of three bytes, and the sound is noise.
#
# Versions: av 18.1.0 (FFmpeg 8), soundfile 0.14.0 (libsndfile 1.2.2).
# Guessed: WAVE_FORMAT_EXTENSIBLE with a container of 32 bits and 24 valid ones is 32-bit PCM whose low byte is zero, for
# every reader: block align says 4 bytes a sample.
# Seen: libsndfile reads it so. FFmpeg takes the integers for floats ("pcm_f24le") and stops at no error: as many samples,
# the largest of them beyond 10^30.
#
# Output:
#   libsndfile: right: True
#   FFmpeg: pcm_f24le, 8000 samples, largest beyond 1e30: True
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 soundfile==0.14.0 numpy==2.4.6
cd "$room"
"$room/venv/bin/python" - <<'PYTHON'
import struct

import av
import numpy as np
import soundfile

tone = (0.3 * 2**23 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)).astype("i4") << 8
PCM = bytes.fromhex("0100000000001000800000aa00389b71")
form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 8000, 32000, 4, 32, 22, 24, 4) + PCM
data = tone.tobytes()
body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
with open("song.wav", "wb") as file:
    file.write(b"RIFF" + struct.pack("<I", len(body)) + body)
right = tone / 2**31
sndfile = soundfile.read("song.wav")[0]
with av.open("song.wav") as container:
    codec = container.streams.audio[0].codec_context.name
    ffmpeg = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
seen = [
    f"libsndfile: right: {bool(np.allclose(sndfile, right, atol=1e-6))}",
    f"FFmpeg: {codec}, {len(ffmpeg)} samples, largest beyond 1e30: {bool(np.abs(ffmpeg).max() > 1e30)}",
]
print("\n".join(seen))
assert seen == ["libsndfile: right: True", "FFmpeg: pcm_f24le, 8000 samples, largest beyond 1e30: True"]
PYTHON
