#!/usr/bin/env bash
# 128 bytes of ID3v1 behind an AC-3 cost its last frame.
#
# Versions: av 18.1.0 (FFmpeg 8), soundfile 0.14.0 (which writes the MP3).
# Guessed: an AC-3 frame says how long it is, so a tag behind the last one is left alone, as behind an MP3.
# Seen: FFmpeg's parser glues the tag to the last AC-3 frame and the decoder refuses the packet: 1,536 samples (32 ms) less
# and an error that looks like damage. MP3 loses nothing.
#
# Output:
#   mp3: 88200 without, 88200 with a tag, errors 0
#   ac3: 96768 without, 95232 with a tag, errors 1
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

TAG = b"TAG" + bytes(125)


def tagged(name):
    with open(name, "rb") as file, open(f"tagged-{name}", "wb") as out:
        out.write(file.read() + TAG)
    return f"tagged-{name}"


def decode(name):
    samples = errors = 0
    with av.open(name) as container:
        for packet in container.demux(audio=0):
            try:
                samples += sum(frame.samples for frame in packet.decode())
            except av.FFmpegError:
                errors += 1
    return samples, errors


tone = (0.3 * np.sin(np.arange(2 * 48000) * 0.06)).astype("f4")
soundfile.write("song.mp3", tone[:88200], 44100)
with av.open("song.ac3", "w") as container:
    stream = container.add_stream("ac3", rate=48000, layout="mono")
    frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
    frame.sample_rate = 48000
    resampler = av.AudioResampler("fltp", "mono", 48000, frame_size=1536)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))
seen = []
for name in ("song.mp3", "song.ac3"):
    whole, (samples, errors) = decode(name)[0], decode(tagged(name))
    seen.append(f"{name[5:]}: {whole} without, {samples} with a tag, errors {errors}")
print("\n".join(seen))
assert seen == [
    "mp3: 88200 without, 88200 with a tag, errors 0",
    "ac3: 96768 without, 95232 with a tag, errors 1",
]
PYTHON
