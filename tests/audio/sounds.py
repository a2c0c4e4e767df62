"""Tones of known pitch at known times, ways of writing them, and what is heard of them."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from av.stream import Disposition
from numpy.typing import NDArray

from poolembed.audio.decode import open_audio
from poolembed.audio.encoding import Encoding

Signal = NDArray[np.float32]


class Heard:
    """A file, decoded."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        with open_audio(os.fsdecode(path)) as stream:
            self.signal: Signal = np.concatenate([*stream.blocks()])
            self.rate: int = stream.sample_rate
            self.note: str | None = stream.note
            self.encoding: Encoding = stream.encoding
        assert np.isfinite(self.signal).all()

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.signal) / self.rate

    def pitches(self, *times: float) -> list[int]:
        """The loudest frequency in the 0.2 s around each time, in Hz to the next ten; 0 where it is silent."""
        return [self._pitch(time) for time in times]

    def _pitch(self, time: float) -> int:
        middle, half = round(time * self.rate), self.rate // 10
        part = self.signal[max(0, middle - half) : middle + half]
        if np.abs(part).max() < 1e-3:
            return 0
        size = 10 * self.rate
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), size))
        return round(int(spectrum.argmax()) * self.rate / size / 10) * 10


def tone(pitch: float, rate: int, channels: int = 1, seconds: float = 1.0) -> NDArray[np.float64]:
    """``(n, channels)`` of one sine."""
    wave = 0.5 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)
    return np.repeat(wave[:, None], channels, axis=1)


def sndfile(samples: NDArray[Any], rate: int, container: str, subtype: str | None = None) -> bytearray:
    """``(n, channels)`` by libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, subtype, format=container)
    return bytearray(buffer.getvalue())


def pyav(
    path: Path,
    container: str,
    *tracks: tuple[str, NDArray[np.float64], int],
    default: int | None = None,
    picture: float = 0,
    late: float = 0,
) -> bytearray:
    """Tracks of sound by FFmpeg, side by side.

    Args:
        path: of the file.
        container: FFmpeg's name of it.
        tracks: codec, samples ``(n, channels)``, and rate in Hz.
        default: the track that is marked as the one to play; else FFmpeg marks as it likes.
        picture: seconds of film beside them.
        late: seconds after which the sound begins.
    """
    with av.open(str(path), "w", format=container) as out:
        streams = [_add(out, codec, samples, rate) for codec, samples, rate in tracks]
        if default is not None:
            for index, stream in enumerate(streams):
                stream.disposition = Disposition.default if index == default else Disposition(0)
        packets: list[Any] = []
        if picture:
            packets += _film(out, picture)
        for stream, (_, samples, rate) in zip(streams, tracks, strict=True):
            packets += _packets(stream, samples, rate, round(late * rate))
        for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * (packet.time_base or 1)):
            out.mux(packet)
    return bytearray(path.read_bytes())


def _add(out: av.container.OutputContainer, codec: str, samples: NDArray[np.float64], rate: int) -> av.AudioStream:
    stream = out.add_stream(codec, rate=rate, layout={1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]])
    assert isinstance(stream, av.AudioStream)
    if not stream.codec_context.codec.lossless:
        stream.bit_rate = 128_000
    return stream


def _packets(stream: av.AudioStream, samples: NDArray[np.float64], rate: int, first: int) -> Sequence[Any]:
    packets: list[Any] = []
    for start in range(0, len(samples), 4096):
        part = np.ascontiguousarray(samples[start : start + 4096].T, np.float32)
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=stream.codec_context.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = rate, first + start, Fraction(1, rate)
        packets += stream.encode(frame)
    return [*packets, *stream.encode(None)]


def _film(out: av.container.OutputContainer, seconds: float) -> Sequence[Any]:
    stream = out.add_stream("mpeg4", rate=25)
    assert isinstance(stream, av.VideoStream)
    stream.width = stream.height = 64
    packets: list[Any] = []
    for index in range(int(seconds * 25)):
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), index % 256, np.uint8), format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, 25)
        packets += stream.encode(frame)
    return [*packets, *stream.encode(None)]
