"""Sounds written in many encodings: by PyAV, by libsndfile, and a DSF by hand."""

from __future__ import annotations

import io
import struct
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import soundfile
from numpy.typing import NDArray


class Encoder(NamedTuple):
    """How one encoding is written: PyAV's codec and container, or libsndfile's format and subtype."""

    library: str
    codec: str
    container: str


ENCODERS = {
    "flac.flac": Encoder("sndfile", "PCM_16", "FLAC"),
    "flac24.flac": Encoder("sndfile", "PCM_24", "FLAC"),
    "flac.ogg": Encoder("av", "flac", "ogg"),
    "flac.mp4": Encoder("av", "flac", "mp4"),
    "flac.mka": Encoder("av", "flac", "matroska"),
    "alac.m4a": Encoder("av", "alac", "ipod"),
    "alac.mp4": Encoder("av", "alac", "mp4"),
    "alac.caf": Encoder("sndfile", "ALAC_16", "CAF"),
    "wavpack.wv": Encoder("av", "wavpack", "wv"),
    "wavpack.mka": Encoder("av", "wavpack", "matroska"),
    "tta.tta": Encoder("av", "tta", "tta"),
    "pcm.wav": Encoder("sndfile", "PCM_16", "WAV"),
    "pcm24.wav": Encoder("sndfile", "PCM_24", "WAV"),
    "pcm8.wav": Encoder("sndfile", "PCM_U8", "WAV"),
    "float.wav": Encoder("sndfile", "FLOAT", "WAV"),
    "pcm.aiff": Encoder("sndfile", "PCM_16", "AIFF"),
    "pcm.au": Encoder("sndfile", "PCM_16", "AU"),
    "pcm.mka": Encoder("av", "pcm_s16le", "matroska"),
    "mp3.mp3": Encoder("av", "libmp3lame", "mp3"),
    "mp3.wav": Encoder("av", "libmp3lame", "wav"),
    "mulaw.wav": Encoder("sndfile", "ULAW", "WAV"),
    "alaw.au": Encoder("sndfile", "ALAW", "AU"),
    "adpcm.wav": Encoder("sndfile", "MS_ADPCM", "WAV"),
    "ima.wav": Encoder("sndfile", "IMA_ADPCM", "WAV"),
    "gsm.wav": Encoder("sndfile", "GSM610", "WAV"),
    "aac.m4a": Encoder("av", "aac", "ipod"),
    "quicktime.m4a": Encoder("av", "aac", "mov"),
    "aac.aac": Encoder("av", "aac", "adts"),
    "vorbis.ogg": Encoder("sndfile", "VORBIS", "OGG"),
    "opus.opus": Encoder("av", "libopus", "ogg"),
    "wma.wma": Encoder("av", "wmav2", "asf"),
    "mp2.mp2": Encoder("av", "mp2", "mp2"),
    "ac3.ac3": Encoder("av", "ac3", "ac3"),
    "eac3.ec3": Encoder("av", "eac3", "eac3"),
}
"""By the name of a file."""


def encode(path: Path, name: str, samples: NDArray[np.floating[Any]], rate: int, *, bitrate: int = 128) -> Path:
    """Write ``(n, channels)`` as ``ENCODERS[name]``, or as a DSF; the suffix of the path says nothing.

    Args:
        path: of the file.
        name: of the encoding.
        samples: within -1 and 1.
        rate: Hz; opus takes 48 000 alone, GSM one channel.
        bitrate: kb/s, of PyAV's lossy encoders.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if name == "dsd.dsf":
        path.write_bytes(dsf(len(samples) / rate))
        return path
    encoder = ENCODERS[name]
    if encoder.library == "sndfile":
        soundfile.write(path, samples, rate, encoder.codec, format=encoder.container)
        return path
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
    with av.open(str(path), "w", format=encoder.container, options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(encoder.codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        offered = [each.name for each in stream.codec_context.codec.audio_formats or []]
        if stream.codec_context.codec.lossless and (whole := [name for name in ("s16", "s16p") if name in offered]):
            stream.format = whole[0]  # or FFmpeg takes 32 bits for floats
        else:
            stream.bit_rate = bitrate * 1000
        for start in range(0, len(samples), 4096):
            part = np.ascontiguousarray(samples[start : start + 4096].T, np.float32)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def dsf(seconds: float) -> bytes:
    """A DSF (DSD64, mono) of 440 Hz, by first-order sigma-delta modulation: how often there is a 1 is the signal."""
    rate, block = 2_822_400, 4096
    count = int(seconds * rate)
    signal = 0.5 + 0.2 * np.sin(2 * np.pi * 440 / rate * np.arange(count))
    ones = np.diff(np.floor(np.cumsum(signal)), prepend=0).astype(np.uint8)
    data = np.packbits(ones, bitorder="little").tobytes()
    data += b"\x69" * (-len(data) % block)
    head = struct.pack("<4sQQQ", b"DSD ", 28, 28 + 52 + 12 + len(data), 0)
    form = struct.pack("<4sQIIIIIIQII", b"fmt ", 52, 1, 0, 1, 1, rate, 1, count, block, 0)
    return head + form + struct.pack("<4sQ", b"data", 12 + len(data)) + data


def shorten(samples: NDArray[np.int16], rate: int) -> bytes:
    """A Shorten file (version 2) of mono 16-bit samples, every one of them stored by itself as a Rice code."""
    bits: list[str] = []

    def unsigned(value: int, low: int) -> None:
        bits.append("0" * (value >> low) + "1" + (format(value & ((1 << low) - 1), f"0{low}b") if low else ""))

    def number(value: int) -> None:
        low = value.bit_length()
        unsigned(low, 2)
        unsigned(value, low)

    header = io.BytesIO()
    with wave.open(header, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.setnframes(len(samples))
    stored = bytearray(header.getvalue())
    stored[4:8], stored[40:44] = struct.pack("<I", 36 + 2 * len(samples)), struct.pack("<I", 2 * len(samples))
    for value in (5, 1, 256, 0, 0, 0):  # little-endian 16 bits, a channel, samples a block, no prediction, no mean
        number(value)
    unsigned(9, 2)  # verbatim: the header of the WAV
    unsigned(len(stored), 5)
    for byte in stored:
        unsigned(byte, 8)
    for start in range(0, len(samples), 256):
        block = samples[start : start + 256].tolist()
        if len(block) < 256:
            unsigned(5, 2)  # from here on blocks are shorter
            number(len(block))
        unsigned(0, 2)  # samples as they are
        unsigned(12, 3)
        for sample in block:
            unsigned(2 * sample if sample >= 0 else -2 * sample - 1, 13)
    unsigned(4, 2)  # the end
    text = "".join(bits)
    text += "0" * (-len(text) % 32)
    return b"ajkg\2" + int(text, 2).to_bytes(len(text) // 8, "big")
