#!/usr/bin/env bash
# What an APE tag says of an MP3 is read by neither FFmpeg nor tinytag.
#
# Versions: av 18.1.0 (FFmpeg 8), tinytag 2.3.2, mutagen 1.48.1 (which writes the tag), soundfile 0.14.0 (which makes the MP3).
# Guessed: FFmpeg reads APEv2 at the end of a file, as it does for Monkey's Audio, Musepack, WavPack and TTA; so does tinytag.
# Seen: both find nothing in an MP3 that has this tag alone, as mp3gain and foobar2000 write it; the same tag behind a
# WavPack is read by FFmpeg.
#
# Output:
#   mp3: FFmpeg None, tinytag None
#   wv: FFmpeg Song
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 tinytag==2.3.2 mutagen==1.48.1 soundfile==0.14.0 numpy==2.4.6
cd "$room"
"$room/venv/bin/python" - <<'PYTHON'
import av
import numpy as np
import soundfile
from mutagen.apev2 import APEv2
from tinytag import TinyTag

tone = (0.3 * np.sin(np.arange(44100) * 0.06)).astype("f4")
soundfile.write("song.mp3", tone, 44100)
with av.open("song.wv", "w") as container:
    stream = container.add_stream("wavpack", rate=44100, layout="mono")
    frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
    frame.sample_rate = 44100
    resampler = av.AudioResampler(stream.codec_context.format.name, "mono", 44100, frame_size=4096)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))
for name in ("song.mp3", "song.wv"):
    tag = APEv2()
    tag["Title"] = "Song"
    tag.save(name)
titles = {}
for name in ("song.mp3", "song.wv"):
    with av.open(name) as container:
        titles[name] = {key.lower(): value for key, value in container.metadata.items()}.get("title")
seen = [f"mp3: FFmpeg {titles['song.mp3']}, tinytag {TinyTag.get('song.mp3').title}", f"wv: FFmpeg {titles['song.wv']}"]
print("\n".join(seen))
assert seen == ["mp3: FFmpeg None, tinytag None", "wv: FFmpeg Song"]
PYTHON
