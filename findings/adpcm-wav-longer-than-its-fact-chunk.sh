#!/usr/bin/env bash
# An ADPCM WAV says how many samples it has (its fact chunk), and neither libsndfile nor FFmpeg stops there.
#
# Versions: soundfile 0.14.0, PyAV 18.1.0.
# Guessed: the fact chunk is there for this: the last block is padded, and a decoder drops what is beyond the count.
# Seen: both return the padding as music. A second of MS ADPCM is 824 samples (19 ms) too long in both, though its fact chunk
# says 44,100 and FFmpeg's own stream duration says 44,100 too. libsndfile writes the padded count into the fact chunk of
# IMA ADPCM, so there it cannot even be told. Two files of one recording, PCM and ADPCM, differ in length.
#
# Output:
#   MS_ADPCM: fact 44100, FFmpeg's duration 44100, libsndfile decodes 44924, FFmpeg decodes 44924
#   IMA_ADPCM: fact 44979, FFmpeg's duration 44979, libsndfile decodes 44979, FFmpeg decodes 44979
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.14.0 av==18.1.0 numpy==2.4.6
cd "$room"
"$room/venv/bin/python" - <<'PYTHON'
import av
import numpy as np
import soundfile

tone = (0.3 * np.sin(2 * np.pi * 440 * np.arange(44100) / 44100)).astype("f4")
seen = []
for kind in ("MS_ADPCM", "IMA_ADPCM"):
    soundfile.write("tone.wav", tone, 44100, subtype=kind)
    with open("tone.wav", "rb") as file:
        data = file.read()
    at = data.index(b"fact")
    fact = int.from_bytes(data[at + 8 : at + 12], "little")
    sndfile = len(soundfile.read("tone.wav")[0])
    with av.open("tone.wav") as container:
        duration = container.streams.audio[0].duration
        ffmpeg = sum(frame.samples for frame in container.decode(audio=0))
    seen.append(
        f"{kind}: fact {fact}, FFmpeg's duration {duration}, libsndfile decodes {sndfile}, FFmpeg decodes {ffmpeg}"
    )
print("\n".join(seen))
assert seen == [
    "MS_ADPCM: fact 44100, FFmpeg's duration 44100, libsndfile decodes 44924, FFmpeg decodes 44924",
    "IMA_ADPCM: fact 44979, FFmpeg's duration 44979, libsndfile decodes 44979, FFmpeg decodes 44979",
]
PYTHON
