#!/usr/bin/env bash
# While a filter graph's `amovie` opens its file no other Python thread runs, however long the file takes to answer.
#
# Version: av 18.1.0.
# Guessed: all calls of PyAV that read a file let other threads run, as av.open and FilterContext.pull do.
# Seen: Graph.add("amovie", ...) opens and probes the file with Python's lock held. Here the file is a pipe whose writer
# rests for two seconds in the middle of a valid WAV header, as a share in the network may: a thread that notes the time
# every 10 ms has a gap of as long. With av.open on such a pipe it has none. So open with av.open first: what it reads is
# then in the cache.
#
# Output:
#   av.open: the other thread runs on: True
#   amovie: the other thread runs on: False
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0
cd "$room"
"$room/venv/bin/python" - <<'PYTHON'
import io
import os
import subprocess
import sys
import threading
import time
import wave

import av
import av.filter

song = io.BytesIO()
with wave.open(song, "wb") as file:
    file.setparams((1, 2, 8000, 0, "NONE", ""))
    file.writeframes(bytes(16000))
with open("song.wav", "wb") as file:
    file.write(song.getvalue())
# A process, not a thread: a thread would be stopped too.
WRITER = """
import sys, time
data = open("song.wav", "rb").read()
sys.stdout.buffer.write(data[:10]); sys.stdout.buffer.flush()
time.sleep(2)
sys.stdout.buffer.write(data[10:])
"""


def longest_gap(opening):
    ticks, over = [time.monotonic()], threading.Event()

    def tick():
        while not over.wait(0.01):
            ticks.append(time.monotonic())

    with subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE) as writer:
        thread = threading.Thread(target=tick)
        thread.start()
        opening(writer.stdout.fileno())
        over.set()
        thread.join()
        ticks.append(time.monotonic())
    return max(later - sooner for sooner, later in zip(ticks, ticks[1:]))


def with_open(descriptor):
    av.open("fd:", options={"fd": str(descriptor)}).close()


def with_amovie(descriptor):
    av.filter.Graph().add("amovie", filename="fd:", format_opts=f"fd={descriptor}")


seen = []
for name, opening in (("av.open", with_open), ("amovie", with_amovie)):
    seen.append(f"{name}: the other thread runs on: {longest_gap(opening) < 1}")
print("\n".join(seen))
assert seen == ["av.open: the other thread runs on: True", "amovie: the other thread runs on: False"]
PYTHON
