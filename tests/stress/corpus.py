"""Files to damage: a second or two of sound in every format that can be written here, and the ways of damaging them.

All of it follows from a seed: the same seed, on the same releases of soundfile and PyAV, gives the same files.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

Random = np.random.Generator
Signal = NDArray[np.float32]


@dataclass(frozen=True)
class Clean:
    """An undamaged file: ``name`` of the format, ``suffix`` with its dot, and its bytes."""

    name: str
    suffix: str
    data: bytes


# name, suffix, what soundfile calls it, sample rate, channels
_SOUNDFILE: list[tuple[str, str, str, str, int, int]] = [
    ("wav 16", ".wav", "WAV", "PCM_16", 22050, 2),
    ("wav 24", ".wav", "WAV", "PCM_24", 22050, 1),
    ("wav 32", ".wav", "WAVEX", "PCM_32", 22050, 2),
    ("wav 8", ".wav", "WAV", "PCM_U8", 22050, 1),
    ("wav float", ".wav", "WAV", "FLOAT", 22050, 2),
    ("wav double", ".wav", "WAV", "DOUBLE", 16000, 1),
    ("wav a-law", ".wav", "WAV", "ALAW", 16000, 1),
    ("wav ms adpcm", ".wav", "WAV", "MS_ADPCM", 22050, 1),
    ("wav ima adpcm", ".wav", "WAV", "IMA_ADPCM", 22050, 2),
    ("wav gsm", ".wav", "WAV", "GSM610", 8000, 1),
    ("rf64", ".rf64", "RF64", "PCM_16", 22050, 2),
    ("w64", ".w64", "W64", "PCM_24", 22050, 2),
    ("aiff 16", ".aiff", "AIFF", "PCM_16", 22050, 2),
    ("aiff 24", ".aif", "AIFF", "PCM_24", 22050, 1),
    ("aifc float", ".aifc", "AIFF", "FLOAT", 22050, 1),
    ("au 16", ".au", "AU", "PCM_16", 22050, 1),
    ("au mu-law", ".snd", "AU", "ULAW", 16000, 2),
    ("caf 16", ".caf", "CAF", "PCM_16", 22050, 2),
    ("caf alac", ".caf", "CAF", "ALAC_16", 22050, 2),
    ("flac 16", ".flac", "FLAC", "PCM_16", 44100, 2),
    ("flac 24", ".flac", "FLAC", "PCM_24", 22050, 1),
    ("voc", ".voc", "VOC", "PCM_16", 22050, 1),
    ("nist", ".nist", "NIST", "PCM_16", 16000, 1),
    ("ircam", ".sf", "IRCAM", "PCM_16", 22050, 1),
    ("avr", ".avr", "AVR", "PCM_16", 22050, 1),
]

# name, suffix, FFmpeg's muxer, encoders to try, sample rate, channels, options: of the muxer those with a colon
_FFMPEG: list[tuple[str, str, str, str, int, int, dict[str, str]]] = [
    ("mp3 cbr", ".mp3", "mp3", "libmp3lame", 44100, 2, {"b": "128k"}),
    ("mp3 vbr", ".mp3", "mp3", "libmp3lame", 22050, 1, {"flags": "+bitexact+qscale", "global_quality": "472"}),
    ("mp3 bare", ".mp3", "mp3", "libmp3lame", 44100, 1, {"b": "64k", ":write_xing": "0"}),
    ("mp2", ".mp2", "mp2", "mp2", 44100, 2, {}),
    ("ogg vorbis", ".ogg", "ogg", "libvorbis vorbis", 44100, 2, {"strict": "-2"}),
    ("ogg flac", ".oga", "oga", "flac", 22050, 2, {}),
    ("opus", ".opus", "opus", "libopus", 48000, 2, {"b": "64k"}),
    ("webm opus", ".webm", "webm", "libopus", 48000, 1, {}),
    ("mka vorbis", ".mka", "matroska", "libvorbis vorbis", 44100, 2, {"strict": "-2"}),
    ("mka flac", ".mka", "matroska", "flac", 22050, 1, {}),
    ("mka pcm", ".mka", "matroska", "pcm_s16le", 22050, 1, {}),
    ("m4a aac", ".m4a", "ipod", "aac", 44100, 2, {}),
    ("mp4 aac fragmented", ".mp4", "mp4", "aac", 44100, 1, {":movflags": "frag_keyframe+empty_moov"}),
    ("m4a alac", ".m4a", "ipod", "alac", 44100, 2, {}),
    ("mov pcm", ".mp4", "mov", "pcm_s24le", 22050, 2, {}),
    ("aac adts", ".aac", "adts", "aac", 44100, 2, {}),
    ("wma 2", ".wma", "asf", "wmav2", 44100, 2, {"b": "128k"}),
    ("wma 1", ".wma", "asf", "wmav1", 22050, 1, {"b": "64k"}),
    ("ac3", ".ac3", "ac3", "ac3", 48000, 2, {}),
    ("eac3", ".eac3", "eac3", "eac3", 48000, 2, {}),
    ("wavpack", ".wv", "wv", "wavpack", 44100, 2, {}),
    ("tta", ".tta", "tta", "tta", 44100, 2, {}),
    ("amr", ".amr", "amr", "libopencore_amrnb", 8000, 1, {"b": "12200"}),
    ("3gp amr", ".3gp", "3gp", "libopencore_amrnb", 8000, 1, {"b": "12200"}),
    ("real audio", ".ra", "rm", "real_144", 8000, 1, {}),
]


def clean_files() -> list[Clean]:
    """Every format that the libraries at hand can write; those that they cannot are left out."""
    files: list[Clean] = []
    for name, suffix, container, subtype, rate, channels in _SOUNDFILE:
        target = io.BytesIO()
        try:
            soundfile.write(target, _sound(rate, channels, len(files)), rate, format=container, subtype=subtype)
        except (soundfile.LibsndfileError, ValueError):
            continue
        files.append(Clean(name, suffix, _timeless(target.getvalue())))
    for name, suffix, muxer, encoders, rate, channels, options in _FFMPEG:
        for encoder in encoders.split():
            if (data := _encoded(muxer, encoder, rate, channels, options, len(files))) is not None:
                files.append(Clean(name, suffix, data))
                break
    return files


def _timeless(data: bytes) -> bytes:
    """Without the moment of writing, which libsndfile puts beside the peaks of floats."""
    at = data.find(b"PEAK", 0, 4096)
    return data if at < 0 else data[: at + 12] + bytes(4) + data[at + 16 :]


def _sound(rate: int, channels: int, seed: int) -> Signal:
    """1.2 to 2 s of a chord that swells, with some noise."""
    random = np.random.default_rng(seed)
    t = np.arange(int(rate * random.uniform(1.2, 2.0))) / rate
    tones = [np.sin(2 * np.pi * random.uniform(100, 3000) * t) for _ in range(3 * channels)]
    chord = np.array(tones).reshape(channels, 3, -1).sum(1) * (0.1 + 0.1 * np.sin(5 * t))
    signal: Signal = (chord.T + 0.02 * random.standard_normal((len(t), channels))).astype(np.float32)
    return signal


def _encoded(muxer: str, encoder: str, rate: int, channels: int, options: dict[str, str], seed: int) -> bytes | None:
    target = io.BytesIO()
    layout = "mono" if channels == 1 else "stereo"
    try:
        codec = av.Codec(encoder, "w")
        assert codec.audio_formats is not None
        formats = [one.name for one in codec.audio_formats]
        of_muxer = {name[1:]: value for name, value in options.items() if name.startswith(":")}
        of_codec = {name: value for name, value in options.items() if not name.startswith(":")}
        with av.open(target, "w", format=muxer, options={"fflags": "+bitexact", **of_muxer}) as container:
            stream: Any = container.add_stream(encoder, rate=rate, options={"flags": "+bitexact", **of_codec})
            stream.layout = layout
            stream.format = formats[0]
            sound = _sound(rate, channels, seed)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T), format="fltp", layout=layout)
            frame.sample_rate = rate
            frame.time_base = Fraction(1, rate)
            frame.pts = 0
            resampler = av.AudioResampler(formats[0], layout, rate)
            for whole in (frame, None):
                for part in resampler.resample(whole):
                    container.mux(stream.encode(part))
            container.mux(stream.encode(None))
    except (av.error.FFmpegError, ValueError, AssertionError):
        return None
    return target.getvalue() or None


# Ways of damaging


def _bits(data: bytearray, random: Random, other: bytes) -> bytes:
    for at in random.integers(0, len(data), random.integers(1, 65)).tolist():
        data[at] ^= 1 << int(random.integers(8))
    return bytes(data)


def _bytes(data: bytearray, random: Random, other: bytes) -> bytes:
    for _ in range(int(random.integers(1, 9))):
        first, last = _stretch(data, random, 64)
        data[first:last] = random.bytes(last - first)
    return bytes(data)


def _head(data: bytearray, random: Random, other: bytes) -> bytes:
    size = min(len(data), int(random.choice([16, 64, 256, 1024])))
    for at in random.integers(0, size, random.integers(1, 9)).tolist():
        data[at] = int(random.integers(256))
    return bytes(data)


def _sizes(data: bytearray, random: Random, other: bytes) -> bytes:
    """Fields of headers that say how much there is of something."""
    extremes = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, len(data)]
    for _ in range(int(random.integers(1, 4))):
        width = int(random.choice([1, 2, 4, 8]))
        at = int(random.integers(0, max(1, min(len(data), 512) - width)))
        value = int(random.choice(np.array(extremes, np.uint64))) % (1 << 8 * width)
        order = "little" if random.integers(2) else "big"
        data[at : at + width] = value.to_bytes(width, order)  # type: ignore[arg-type]
    return bytes(data)


def _cut_end(data: bytearray, random: Random, other: bytes) -> bytes:
    return bytes(data[: int(len(data) * random.random() ** 2)])


def _cut_start(data: bytearray, random: Random, other: bytes) -> bytes:
    return bytes(data[int(len(data) * random.random() ** 3) :])


def _cut_both(data: bytearray, random: Random, other: bytes) -> bytes:
    first, last = sorted(random.integers(0, len(data) + 1, 2).tolist())
    return bytes(data[first:last])


def _cut_inside(data: bytearray, random: Random, other: bytes) -> bytes:
    first, last = _stretch(data, random, len(data) // 2)
    return bytes(data[:first] + data[last:])


def _swap(data: bytearray, random: Random, other: bytes) -> bytes:
    size = int(random.choice([16, 256, 4096]))
    blocks = [bytes(data[at : at + size]) for at in range(0, len(data), size)]
    for _ in range(int(random.integers(1, 5))):
        a, b = random.integers(0, len(blocks), 2).tolist()
        blocks[a], blocks[b] = blocks[b], blocks[a]
    return b"".join(blocks)


def _zeros(data: bytearray, random: Random, other: bytes) -> bytes:
    for _ in range(int(random.integers(1, 4))):
        first, last = _stretch(data, random, len(data) // 3)
        data[first:last] = bytes(last - first)
    return bytes(data)


def _join(data: bytearray, random: Random, other: bytes) -> bytes:
    return bytes(data) + other


def _graft(data: bytearray, random: Random, other: bytes) -> bytes:
    """The head of one file and the rest of another."""
    cut = int(random.integers(1, min(len(data), len(other), 4096)))
    return bytes(data[:cut]) + other[cut:]


def _insert(data: bytearray, random: Random, other: bytes) -> bytes:
    at = int(random.integers(0, len(data) + 1))
    size = int(random.choice([1, 2, 3, 64, 1000, 20000]))
    return bytes(data[:at]) + random.bytes(size) + bytes(data[at:])


def _repeat(data: bytearray, random: Random, other: bytes) -> bytes:
    first, last = _stretch(data, random, 8192)
    return bytes(data[:last] + data[first:last] * int(random.integers(1, 9)) + data[last:])


def _stretch(data: bytearray, random: Random, longest: int) -> tuple[int, int]:
    first = int(random.integers(0, len(data)))
    return first, min(len(data), first + int(random.integers(1, max(2, longest))))


MUTATIONS: dict[str, Callable[[bytearray, Random, bytes], bytes]] = {
    "bits": _bits,
    "bytes": _bytes,
    "header": _head,
    "sizes": _sizes,
    "cut at the end": _cut_end,
    "cut at the start": _cut_start,
    "cut at both ends": _cut_both,
    "cut inside": _cut_inside,
    "blocks swapped": _swap,
    "zeros": _zeros,
    "joined": _join,
    "another's head": _graft,
    "inserted": _insert,
    "repeated": _repeat,
}


def mutated(files: list[Clean], seed: int, number: int) -> tuple[Clean, str, bytes]:
    """The file that is damaged, how, and what comes of it. All pairs of a format and a way come round in turn."""
    clean = files[number % len(files)]
    ways = list(MUTATIONS)
    way = ways[(number // len(files)) % len(ways)]
    random = np.random.default_rng([seed, number])
    other = files[int(random.integers(len(files)))] if random.integers(2) else clean
    data = MUTATIONS[way](bytearray(clean.data), random, other.data)
    while random.random() < 0.2 and len(data) > 16:  # and some are damaged more than once
        data = MUTATIONS[ways[int(random.integers(len(ways)))]](bytearray(data), random, other.data)
    return clean, way, data
