#!/usr/bin/env bash
# The first audio stream of a container and the one that FFmpeg plays are not the same.
#
# Version: av 18.1.0 (FFmpeg 8).
# Guessed: streams.audio[0], which every example of PyAV decodes, and the filter amovie, which plays a file by default, take
# the same track of a film.
# Seen: amovie takes what av_find_best_stream says, the track with the default flag. Who sets its graph up by the rate of
# streams.audio[0] hears the other language at another pitch, and nothing complains.
#
# Output:
#   streams.audio[0]: 440 Hz tone at 44100 Hz
#   amovie: 1000 Hz tone at 48000 Hz
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
cd "$room"
"$room/venv/bin/python" - <<'PYTHON'
import av
import av.filter
import numpy as np
from av.stream import Disposition

with av.open("film.mka", "w") as container:
    tracks = []
    for frequency, rate in ((440, 44100), (1000, 48000)):
        stream = container.add_stream("flac", rate=rate, layout="mono")
        stream.disposition = Disposition.default if rate == 48000 else Disposition(0)
        tone = (0.3 * 32767 * np.sin(2 * np.pi * frequency * np.arange(2 * rate) / rate)).astype("i2")
        tracks.append((stream, rate, tone))
    for stream, rate, tone in tracks:
        for start in range(0, len(tone), 4096):
            frame = av.AudioFrame.from_ndarray(tone[None, start : start + 4096], format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def describe(name, samples, rate):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return f"{name}: {round(spectrum.argmax() * rate / len(samples))} Hz tone at {rate} Hz"


with av.open("film.mka") as container:
    stream = container.streams.audio[0]
    first = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(stream)])
    seen = [describe("streams.audio[0]", first.astype("f8"), stream.rate)]
graph = av.filter.Graph()
source, sink = graph.add("amovie", filename="film.mka"), graph.add("abuffersink")
source.link_to(sink)
graph.configure()
parts = []
try:
    while True:
        frame = sink.pull()
        parts.append(frame.to_ndarray()[0])
        rate = frame.sample_rate
except EOFError:
    pass
seen.append(describe("amovie", np.concatenate(parts).astype("f8"), rate))
print("\n".join(seen))
assert seen == ["streams.audio[0]: 440 Hz tone at 44100 Hz", "amovie: 1000 Hz tone at 48000 Hz"]
PYTHON
