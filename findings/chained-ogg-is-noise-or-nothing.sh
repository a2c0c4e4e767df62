#!/usr/bin/env bash
# The second link of a chained Ogg Vorbis is noise in FFmpeg and absent in libsndfile, and neither says a word.
#
# Versions: av 18.1.0 (FFmpeg 8), soundfile 0.14.0 (libsndfile 1.2.2).
# Guessed: 'cat a.ogg b.ogg' is a valid Ogg (RFC 3533), as web radios send it; both decode both, or stop with an error.
# Seen: where the links have the same rate and channels and were encoded at different qualities, FFmpeg decodes the second
# with the codebooks of the first: the right length, no error, a hundredth of the level, and no tone of 1,000 Hz in it.
# libsndfile ends after the first link, and its header count is that of the first too.
#
# Output:
#   FFmpeg: 4.0 s, first link 440 Hz, second link 1000 Hz: False, its peak below a tenth of what was written: True
#   libsndfile: 2.0 s
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

time = np.arange(2 * 44100) / 44100
links = []
for frequency, compression in ((440, 0.9), (1000, 0.0)):
    soundfile.write("link.ogg", 0.3 * np.sin(2 * np.pi * frequency * time), 44100, compression_level=compression)
    with open("link.ogg", "rb") as file:
        links.append(file.read())
with open("chained.ogg", "wb") as file:
    file.write(b"".join(links))
with av.open("chained.ogg") as container:
    heard = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], 1)[0]


def pitch(samples):
    return int(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * 44100 / len(samples))


first, second = heard[22050:66150], heard[110250:154350]
seen = [
    f"FFmpeg: {len(heard) / 44100:.1f} s, first link {pitch(first)} Hz, second link 1000 Hz: {pitch(second) == 1000}, "
    f"its peak below a tenth of what was written: {bool(np.abs(second).max() < 0.03)}",
    f"libsndfile: {len(soundfile.read('chained.ogg')[0]) / 44100:.1f} s",
]
print("\n".join(seen))
assert seen == [
    "FFmpeg: 4.0 s, first link 440 Hz, second link 1000 Hz: False, its peak below a tenth of what was written: True",
    "libsndfile: 2.0 s",
]
PYTHON
