#!/usr/bin/env bash
# FFmpeg's flags do not say whether a codec loses anything.
#
# Version: av 18.1.0 (FFmpeg 8).
# Guessed: a codec is lossless or lossy, and DSD, which is samples as recorded, is lossless.
# Seen: DSD is lossy and not lossless. WavPack and DTS, which are one or the other by the file, are both at once. FLAC and MP3
# are as expected. So which of two copies is the original cannot be judged by these flags.
#
# Output:
#   flac lossless
#   mp3 lossy
#   dsd_lsbf lossy
#   wavpack lossless and lossy
#   dca lossless and lossy
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0
cd "$room"
"$room/venv/bin/python" - <<'PYTHON'
import av

seen = []
for name in ("flac", "mp3", "dsd_lsbf", "wavpack", "dca"):
    codec = av.Codec(name, "r")
    seen.append(f"{name} " + " and ".join(["lossless"] * codec.lossless + ["lossy"] * codec.lossy))
print("\n".join(seen))
assert seen == ["flac lossless", "mp3 lossy", "dsd_lsbf lossy", "wavpack lossless and lossy", "dca lossless and lossy"]
PYTHON
