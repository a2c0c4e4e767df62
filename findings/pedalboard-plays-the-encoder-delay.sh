#!/usr/bin/env bash
# pedalboard returns an MP3's encoder delay and padding as music, and says that it knows the exact duration.
#
# Versions: pedalboard 0.9.26, soundfile 0.14.0 (which writes the file, with a LAME tag), PyAV 18.1.0.
# Guessed: all three read the LAME tag and return the 132,300 samples that were written, at their places.
# Seen: libsndfile and FFmpeg do. pedalboard has 1,332 samples more, everything 1,105 samples (25 ms) late, and
# exact_duration_known is True. Features computed with pedalboard are not those of the same file read with the others.
#
# Output:
#   soundfile 132300 samples, click at 44100
#   PyAV 132300 samples, click at 44100
#   pedalboard 133632 samples, click at 45205, exact_duration_known True
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check pedalboard==0.9.26 soundfile==0.14.0 av==18.1.0 numpy==2.4.6
cd "$room"
"$room/venv/bin/python" - <<'PYTHON'
import av
import numpy as np
import soundfile
from pedalboard.io import AudioFile

click = np.zeros(3 * 44100, "f4")
click[44100 - 8 : 44100 + 9] = np.hanning(17)
soundfile.write("click.mp3", click, 44100)
sndfile = soundfile.read("click.mp3")[0]
with av.open("click.mp3") as container:
    ffmpeg = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], 1)[0]
with AudioFile("click.mp3") as file:
    exact, pedalboard = file.exact_duration_known, file.read(file.frames)[0]
seen = [
    f"{name} {len(samples)} samples, click at {int(np.abs(samples).argmax())}"
    for name, samples in (("soundfile", sndfile), ("PyAV", ffmpeg), ("pedalboard", pedalboard))
]
seen[-1] += f", exact_duration_known {exact}"
print("\n".join(seen))
assert seen == [
    "soundfile 132300 samples, click at 44100",
    "PyAV 132300 samples, click at 44100",
    "pedalboard 133632 samples, click at 45205, exact_duration_known True",
]
PYTHON
