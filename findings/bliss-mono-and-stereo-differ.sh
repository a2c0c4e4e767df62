#!/usr/bin/env bash
# bliss hears the same recording louder when its two equal channels are stored as one: it is not nearest to itself.
#
# Versions: bliss-audio 0.2.0 (Python), soundfile 0.14.0 (makes the files).
# Guessed: a mono file and a stereo file of twice the same channel have the same analysis; mixing down takes the mean.
# Seen: the two differ in both loudness features by 0.067 (of a range of 2), as 3 dB do, since it mixes down with a factor of
# 0.707 a channel; and a file with one channel silent is as much lower. FLAC against WAV differs by less than 0.001.
#
# Output:
#   flac 0.000
#   stereo of equal channels 0.067
#   right channel silent 0.067
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check bliss-audio==0.2.0 soundfile==0.14.0 numpy==2.4.6
cd "$room"
"$room/venv/bin/python" - <<'PYTHON'
import os

import numpy as np
import soundfile
from bliss_audio import Song

time = np.arange(20 * 44100) / 44100
song = 0.3 * np.sin(2 * np.pi * 440 * time) * (np.sin(2 * np.pi * 2 * time) > 0)
song += 0.02 * np.random.default_rng(0).standard_normal(len(time))
versions = {
    "mono.wav": song,
    "flac.flac": song,
    "stereo of equal channels.wav": np.stack([song, song], 1),
    "right channel silent.wav": np.stack([song, 0 * song], 1),
}
features = {}
for name, samples in versions.items():
    soundfile.write(name, samples, 44100)
    features[name.partition(".")[0]] = np.array(Song(os.path.abspath(name)).analysis)
mono = features.pop("mono")
seen = [f"{name} {np.abs(vector - mono).max():.3f}" for name, vector in features.items()]
print("\n".join(seen))
assert seen == ["flac 0.000", "stereo of equal channels 0.067", "right channel silent 0.067"]
PYTHON
