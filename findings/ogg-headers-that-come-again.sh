#!/usr/bin/env bash
# FFmpeg refuses an Ogg Vorbis whose three headers come once more in front of its sound; libsndfile plays all of it.
#
# Versions: av 18.1.0 (FFmpeg 8), soundfile 0.14.0 (libsndfile 1.2.2).
# Guessed: such a stream is not as it should be, and yet it plays: a decoder "must ignore" a packet that is no audio where
# audio should be (Vorbis I, section 4.3), and FFmpeg does ignore an identification, or a comment with a setup, there.
# Seen: all three once more at the beginning of the page with the first sound, as they are in three songs of Debian's
# hyperrogue-music, and FFmpeg does not open the file ("Header processing failed"). libvorbis, and with it libsndfile, skips
# them.
#
# Output:
#   nothing again: FFmpeg 4.0 s, libsndfile 4.0 s
#   identification: FFmpeg 4.0 s, libsndfile 4.0 s
#   comment, setup: FFmpeg 4.0 s, libsndfile 4.0 s
#   identification, comment, setup: FFmpeg InvalidDataError, libsndfile 4.0 s
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

random = np.random.default_rng(0)
soundfile.write("plain.ogg", random.uniform(-0.5, 0.5, 4 * 44100), 44100)
with open("plain.ogg", "rb") as file:
    plain = file.read()


def page(at):
    """Where the lacing values of a page, its packets, and the next page begin."""
    body = at + 27 + plain[at + 26]
    return at + 27, body, body + sum(plain[at + 27 : body])


first, second = page(0), page(page(0)[2])
sound = second[2]
lacing, packets, after = page(sound)
setup = plain.index(b"\x05vorbis", second[1])
HEADERS = {
    "identification": plain[first[1] : first[2]],
    "comment": plain[second[1] : setup],
    "setup": plain[setup : second[2]],
}


def repeated(names):
    headers = [HEADERS[name] for name in names]
    laces = b"".join(b"\xff" * (len(header) // 255) + bytes([len(header) % 255]) for header in headers)
    laces += plain[lacing:packets]
    new = plain[sound : sound + 22] + bytes(4) + bytes([len(laces)]) + laces + b"".join(headers) + plain[packets:after]
    checksum = 0
    for byte in new:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = checksum << 1 ^ (0x104C11DB7 if checksum >> 31 else 0)
    return plain[:sound] + new[:22] + struct.pack("<I", checksum) + new[26:] + plain[after:]


def ffmpeg():
    try:
        with av.open("song.ogg") as container:
            samples = sum(frame.samples for frame in container.decode(audio=0))
    except av.FFmpegError as error:
        return type(error).__name__
    return f"{samples / 44100:.1f} s"


assert repeated([]) == plain
seen = []
for names in ([], ["identification"], ["comment", "setup"], list(HEADERS)):
    with open("song.ogg", "wb") as file:
        file.write(repeated(names))
    samples, _ = soundfile.read("song.ogg")
    what = ", ".join(names) or "nothing again"
    seen.append(f"{what}: FFmpeg {ffmpeg()}, libsndfile {len(samples) / 44100:.1f} s")
print("\n".join(seen))
assert seen == [
    "nothing again: FFmpeg 4.0 s, libsndfile 4.0 s",
    "identification: FFmpeg 4.0 s, libsndfile 4.0 s",
    "comment, setup: FFmpeg 4.0 s, libsndfile 4.0 s",
    "identification, comment, setup: FFmpeg InvalidDataError, libsndfile 4.0 s",
]
PYTHON
