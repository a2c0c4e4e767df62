"""The `Decoder` for everything that FFmpeg reads, through PyAV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.filter
import numpy as np
from numpy.typing import NDArray

from poolembed.audio._decoders import DamagedError, block_size, mean_of_channels
from poolembed.audio._graphs import new_graph
from poolembed.audio._promise import Promise
from poolembed.errors import AudioError

# Every error uses up some of the file, so this is never reached; should a decoder not move on, it ends the loop.
_ERRORS_IN_A_ROW = 100_000

# Containers whose duration comes from a header. FFmpeg guesses that of the others from the bit rate.
_DURATION_IS_WRITTEN = frozenset({"mov", "matroska", "asf", "ogg", "flac", "ape", "wv", "tta", "caf"})
_ENCRYPTED_TAGS = frozenset({"drms", "enca", "aavd"})

# Tags in some other encoding than UTF-8 are no reason not to listen. PyAV 19 reads any bytes, and has no such argument;
# those before it refuse the file unless they are told.
_ANY_TAGS: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}


class FFmpegDecoder:
    """`Decoder` for everything that FFmpeg reads.

    The file is demuxed and decoded *inside* a filter graph (``amovie``), which hands over a whole block at a time. The
    usual loop over PyAV packets and frames takes and drops the GIL several times per 20 ms of audio, so that two
    threads decode no more than one does; with the graph they decode twice as much.

    Args:
        descriptor: of the file, open for reading.

    Raises:
        AudioError: there is no audio in it that FFmpeg decodes.
    """

    def __init__(self, descriptor: int) -> None:
        options = _options(descriptor)
        try:
            with _container(descriptor) as container:
                self.sample_rate, channels, self.promise = _describe(container)
            os.lseek(descriptor, 0, os.SEEK_SET)
            graph = new_graph()
            source = graph.add(
                "amovie",
                filename="fd:",
                format_opts=":".join(f"{name}={value}" for name, value in options.items()),
                dec_threads="1",
            )
            # Float samples in the file's own rate and channels: FFmpeg mixes nothing. Interleaved, because PyAV counts
            # nine planes in a frame of eight channels, and the ninth is not there.
            packed = graph.add("aformat", sample_fmts="flt")
            gather = graph.add("asetnsamples", n=str(block_size(channels)), p="0")
            sink = graph.add("abuffersink")
            source.link_to(gather)
            gather.link_to(packed)
            packed.link_to(sink)
            graph.configure()
        except av.FFmpegError as error:
            if isinstance(error, av.DecoderNotFoundError):
                raise AudioError("in a codec that FFmpeg does not know") from None
            raise AudioError("not audio, or its header is damaged or missing") from None
        self.errors = 0
        self._open: tuple[av.filter.Graph, av.filter.context.FilterContext] | None = graph, sink

    def read(self) -> NDArray[np.float32] | None:
        """See `Decoder.read`."""
        if self._open is None:
            return None
        _, sink = self._open
        for _ in range(_ERRORS_IN_A_ROW):
            try:
                frame = sink.pull()
            except EOFError:
                return None
            except av.PatchWelcomeError:
                raise DamagedError("a graph is of one format, and the stream changes") from None
            except av.FFmpegError:  # a damaged packet; the next pull goes on behind it
                self.errors += 1
                continue
            assert isinstance(frame, av.AudioFrame)
            if frame.samples:
                return _mono(frame)
        raise DamagedError("nothing more can be decoded")

    def close(self) -> None:
        """See `Decoder.close`."""
        self._open = None


class PacketDecoder:
    """`Decoder` for the few streams that the graph of `FFmpegDecoder` refuses, packet by packet.

    Those are the ones that change their channels or sample format halfway, or are not of the format that the graph
    was set up for (as it happens with MP2 and mono TTA).

    Args:
        descriptor: of the file, open for reading.

    Raises:
        AudioError: there is no audio in it that FFmpeg decodes.
    """

    def __init__(self, descriptor: int) -> None:
        try:
            self._container = _container(descriptor)
        except av.FFmpegError:
            raise AudioError("not audio, or its header is damaged or missing") from None
        self.sample_rate, channels, self.promise = _describe(self._container)
        self.errors = 0
        self._block = block_size(channels)
        self._frames = self._decode()
        self._stop: DamagedError | None = None

    def _decode(self) -> Iterator[NDArray[np.float32]]:
        converter, converted = av.AudioResampler("flt"), None
        for packet in self._container.demux(self._container.streams.audio[0]):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self.errors += 1
                continue
            for frame in frames:
                assert isinstance(frame, av.AudioFrame)
                if frame.sample_rate != self.sample_rate:
                    raise DamagedError(f"the sample rate changes to {frame.sample_rate} Hz")
                kind = frame.format.name, frame.layout.name
                if kind != converted:
                    converter, converted = av.AudioResampler("flt"), kind
                yield from map(_mono, converter.resample(frame))

    def read(self) -> NDArray[np.float32] | None:
        """See `Decoder.read`."""
        parts: list[NDArray[np.float32]] = []
        while sum(map(len, parts)) < self._block and self._stop is None:
            try:
                part = next(self._frames, None)
            except av.FFmpegError:
                self._stop = DamagedError("nothing more can be read")
            except DamagedError as error:
                self._stop = error
            else:
                if part is None:
                    break
                parts.append(part)
        if parts:
            return np.concatenate(parts)
        if self._stop is not None:
            raise self._stop
        return None

    def close(self) -> None:
        """See `Decoder.close`."""
        self._container.close()


def _options(descriptor: int) -> dict[str, str]:
    """FFmpeg gets a descriptor and not a path: no name is too odd for it, or taken for a URL ("concat:...").

    With every other protocol off, a playlist in disguise cannot make it open anything else.
    """
    return {"fd": str(descriptor), "protocol_whitelist": "fd"}


def _container(descriptor: int) -> av.container.InputContainer:
    os.lseek(descriptor, 0, os.SEEK_SET)
    container = av.open("fd:", options=_options(descriptor), **_ANY_TAGS)
    assert isinstance(container, av.container.InputContainer)
    return container


def _mono(frame: av.AudioFrame) -> NDArray[np.float32]:
    """Mean of the channels of a frame of interleaved floats."""
    channels = frame.layout.nb_channels
    samples = np.frombuffer(memoryview(frame.planes[0]), np.float32, frame.samples * channels)
    return mean_of_channels(samples.reshape(-1, channels).T)


def _describe(container: av.container.InputContainer) -> tuple[int, int, Promise]:
    """Sample rate, number of channels and stated length of a container's audio."""
    streams = container.streams.audio
    if not streams:
        raise AudioError("no audio in it")
    codec = streams[0].codec_context
    if codec is None or _is_encrypted(codec):
        raise AudioError("protected by DRM, or in a codec that FFmpeg does not know")
    rate = codec.sample_rate
    promise = Promise()
    if container.duration and _DURATION_IS_WRITTEN.intersection(container.format.name.split(",")):
        # A quarter of a second is more than any codec's delay, which muxers count in or not as they like.
        promise = Promise(int(Fraction(container.duration, av.time_base) * rate), slack=rate // 4)
    return rate, codec.channels, promise


def _is_encrypted(codec: av.CodecContext) -> bool:
    try:
        return codec.codec_tag in _ENCRYPTED_TAGS
    except UnicodeDecodeError:  # a tag that is a number rather than four letters
        return False
