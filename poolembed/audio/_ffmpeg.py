"""The `Decoder` for everything that FFmpeg reads, through PyAV."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import av
import av.filter
import numpy as np
import soxr
from numpy.typing import NDArray

from poolembed.audio._decoders import DamagedError, Part, block_size
from poolembed.audio._payload import payload
from poolembed.audio._promise import Promise, promise_of_stream
from poolembed.audio._tail import is_foreign
from poolembed.audio.encoding import encoding_of_stream
from poolembed.audio.faults import raise_want
from poolembed.audio.resample import RATES
from poolembed.errors import AudioError

Frames = NDArray[np.float32]
"""Samples, ``(channels, n)``."""

# Every error uses up some of the file, so this is never reached; should a decoder not move on, it ends the loop.
_ERRORS_IN_A_ROW = 100_000

# Formats of bare frames, in which everything that is no frame is skipped: tags of joined songs, say.
_BARE_FRAMES = frozenset({"mp3", "aac", "ac3", "eac3", "dts", "dtshd", "truehd", "mlp", "loas", "flac"})
_ENCRYPTED_TAGS = frozenset({"drms", "enca", "aavd"})
# More channels than any microphone array has; libsndfile has the same limit.
_MOST_CHANNELS = 1024

_NOT_AUDIO = "not audio, or its header is damaged or missing"

# Tags in some other encoding than UTF-8 are no reason not to listen. PyAV 19 reads any bytes, as surrogate escapes, and
# has no such argument; those before it refuse the file unless they are told.
_ANY_TAGS: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}


class FFmpegDecoder:
    """`Decoder` for everything that FFmpeg reads.

    The file is demuxed and decoded *inside* a filter graph (``amovie``), which hands over a whole block at a time. The
    usual loop over PyAV packets and frames takes and drops the GIL several times per 20 ms of audio, so that two
    threads decode no more than one does; with the graph they decode twice as much.

    Args:
        descriptor: of the file, open for reading.
        part: the bytes to decode; all of them if None.

    Raises:
        AudioError: there is no audio in it that FFmpeg decodes.
        OSError, MemoryError: open files or memory ran out, as everywhere here.
    """

    def __init__(self, descriptor: int, part: Part | None = None) -> None:
        options = _options(descriptor, part)
        self._descriptor, self._part = descriptor, part
        self._graph: av.filter.Graph | None = None
        self._sink: av.filter.context.FilterContext | None = None
        try:
            with _container(descriptor, part) as container:
                stream = choose_stream(container)
                self.sample_rate, self.promise = stream.codec_context.sample_rate, promise_of_stream(container, stream)
                channels, index = stream.codec_context.channels, stream.index
                self._is_bare = container.format.name in _BARE_FRAMES
                self.encoding, start = encoding_of_stream(container, stream)
            self.payload = None if start is None else payload(descriptor, start)
            os.lseek(descriptor, 0, os.SEEK_SET)
            self._graph = graph = av.filter.Graph()
            source = graph.add(
                "amovie",
                filename=_url(part),
                format_opts=":".join(f"{name}={value}" for name, value in options.items()).replace(",", "\\,"),
                # Left to itself the graph may take another stream than PyAV does.
                stream_index=str(index),
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
            self.close()
            raise_want(error)
            if isinstance(error, av.DecoderNotFoundError):
                raise AudioError("in a codec that FFmpeg does not know") from None
            raise AudioError(_NOT_AUDIO) from None
        self.errors = 0
        self._sink = sink

    def read(self) -> Frames | None:
        """See `Decoder.read`."""
        if self._sink is None:
            return None
        for _ in range(_ERRORS_IN_A_ROW):
            try:
                frame = self._sink.pull()
            except EOFError:
                if self.errors and self._is_bare:
                    self.errors = self._damaged_packets()
                return None
            except av.PatchWelcomeError:
                raise DamagedError(
                    "a graph is of one format, and the stream changes", is_damage=self.errors > 0 and not self._is_bare
                ) from None
            except av.FFmpegError as error:  # a damaged packet; the next pull goes on behind it
                raise_want(error)
                self.errors += 1
                continue
            assert isinstance(frame, av.AudioFrame)
            if frame.samples:
                return _samples(frame)
        raise DamagedError("nothing more can be decoded")

    def _damaged_packets(self) -> int:
        """Packets that do not decode and are no tags or padding either, which the graph does not tell from them."""
        errors = [0]

        def count() -> None:
            errors[0] += 1

        try:
            with _container(self._descriptor, self._part) as container:
                for _ in decoded(container, choose_stream(container), count):
                    pass
        except (av.FFmpegError, AudioError) as error:  # not even a packet can be read any more
            raise_want(error)
            count()
        return errors[0]

    def close(self) -> None:
        """See `Decoder.close`."""
        # In PyAV 19 a graph and its filters hold each other, and would keep the file open until the garbage collector
        # comes round, which it rarely does to what has lived for a whole song.
        for held in gc.get_referents(self._graph):
            if isinstance(held, dict):
                held.clear()
        self._graph = self._sink = None


class PacketDecoder:
    """`Decoder` for what the graph of `FFmpegDecoder` refuses or gets wrong, packet by packet.

    Those are streams that change their rate, channels or sample format halfway (what comes then is resampled to the
    rate that they begin with), that are not of the format that the graph was set up for (as it happens with MP2 and
    mono TTA), and the links of a chained Ogg file.

    Args:
        descriptor: of the file, open for reading.
        parts: what is to be decoded of it, one after the other; all if there is none.
        sample_rate: of what is returned, in Hz; that of the first part that can be decoded if None.

    Raises:
        AudioError: there is no audio in any of its parts that FFmpeg decodes.
    """

    def __init__(self, descriptor: int, parts: Sequence[Part] = (), sample_rate: int | None = None) -> None:
        self._descriptor = descriptor
        left: list[Part | None] = [*parts] or [None]
        self.errors = 0
        while True:
            try:
                with _container(descriptor, left[0]) as container:
                    stream = choose_stream(container)
                    self.sample_rate = sample_rate or stream.codec_context.sample_rate
                    channels = stream.codec_context.channels
                    self.promise = Promise() if len(parts) > 1 else promise_of_stream(container, stream)
                    self.encoding, start = encoding_of_stream(container, stream)
                break
            except (av.FFmpegError, AudioError) as error:
                raise_want(error)
                if len(left) == 1:
                    raise error if isinstance(error, AudioError) else AudioError(_NOT_AUDIO) from None
            del left[0]
            self.errors += 1
        self.payload = None if start is None else payload(descriptor, 0 if len(parts) > 1 else start)
        self._container: av.container.InputContainer | None = None
        self._blocks = Gathered(at_rate(self._decode(left), self.sample_rate), block_size(channels))

    def _decode(self, parts: Sequence[Part | None]) -> Iterator[tuple[int, Frames]]:
        for part in parts:
            self.close()
            try:
                self._container = _container(self._descriptor, part)
                stream = choose_stream(self._container)
                yield from decoded(self._container, stream, self._count)
            except (av.FFmpegError, AudioError) as error:
                raise_want(error)
                if part == parts[-1]:
                    raise DamagedError("nothing more can be read") from None
                self.errors += 1

    def _count(self) -> None:
        self.errors += 1

    def read(self) -> Frames | None:
        """See `Decoder.read`."""
        return self._blocks.read()

    def close(self) -> None:
        """See `Decoder.close`."""
        if self._container is not None:
            self._container.close()
            self._container = None


class Gathered:
    """Frames, as long as they come, as blocks of a size that is worth handing over.

    Args:
        frames: of any length.
        size: of a block, in samples.
    """

    def __init__(self, frames: Iterator[Frames], size: int) -> None:
        self._frames = frames
        self._size = size
        self._next: Frames | None = None
        self._stop: DamagedError | None = None

    def read(self) -> Frames | None:
        """See `Decoder.read`: frames of as many channels as the first, so that the last may be a short block."""
        parts = [] if self._next is None else [self._next]
        self._next = None
        while sum(part.shape[1] for part in parts) < self._size and self._stop is None:
            try:
                part = next(self._frames, None)
            except av.FFmpegError as error:
                raise_want(error)
                self._stop = DamagedError("nothing more can be read")
            except DamagedError as error:
                self._stop = error
            else:
                if part is None:
                    break
                if parts and len(part) != len(parts[0]):
                    self._next = part
                    break
                parts.append(part)
        if parts:
            return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        if self._stop is not None:
            raise self._stop
        return None


def at_rate(decoded: Iterator[tuple[int, Frames]], sample_rate: int) -> Iterator[Frames]:
    """Frames of any rates and channels, all at one rate.

    Args:
        decoded: rate in Hz and samples.
        sample_rate: the rate wanted, in Hz.

    Raises:
        DamagedError: the rate changes to one that is none of music.
    """
    for (rate, channels), run in itertools.groupby(decoded, key=lambda each: (each[0], len(each[1]))):
        if rate == sample_rate:
            yield from map(itemgetter(1), run)
            continue
        if rate not in RATES:
            raise DamagedError(f"the sample rate changes to {rate} Hz")
        stream = soxr.ResampleStream(rate, sample_rate, channels, dtype="float32", quality="HQ")
        for _, frames in run:
            yield stream.resample_chunk(np.ascontiguousarray(frames.T)).T
        yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True).T


def choose_stream(container: av.container.InputContainer) -> av.AudioStream:
    """The one stream of a container that is decoded.

    FFmpeg's choice, for that is what people hear of the file elsewhere: the one marked as the default, else the one of
    most data. The first of the others if that one cannot be decoded.

    Raises:
        AudioError: none can be.
    """
    best = container.streams.best("audio")
    streams: list[av.AudioStream] = sorted(container.streams.audio, key=lambda stream: stream is not best)
    if not streams:
        raise AudioError("no audio in it")
    # None of these attributes is there without a decoder.
    known = [stream for stream in streams if stream.codec_context is not None and not _is_encrypted(stream)]
    if not known:
        raise AudioError("protected by DRM, or in a codec that FFmpeg does not know")
    for stream in known:
        codec = stream.codec_context
        if codec.sample_rate > 0 and 0 < codec.channels <= _MOST_CHANNELS:
            return stream
    codec = known[0].codec_context
    raise AudioError(f"its header is damaged: {codec.channels} channels at {codec.sample_rate} Hz")


def decoded(
    container: av.container.InputContainer, stream: av.AudioStream, on_error: Callable[[], None]
) -> Iterator[tuple[int, Frames]]:
    """Rate and samples of a stream's frames; `on_error` is called for each packet that is damaged."""
    converter, converted = av.AudioResampler("flt"), None
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            raise_want(error)
            if not is_foreign(bytes(packet)):
                on_error()
            continue
        for frame in frames:
            assert isinstance(frame, av.AudioFrame)
            kind = frame.format.name, frame.layout.name, frame.sample_rate
            if kind != converted:
                converter, converted = av.AudioResampler("flt"), kind
            for packed in converter.resample(frame):
                if packed.samples:
                    yield frame.sample_rate, _samples(packed)


def _options(descriptor: int, part: Part | None) -> dict[str, str]:
    """FFmpeg gets a descriptor and not a path: no name is too odd for it, or taken for a URL ("concat:...").

    With every other protocol off, a playlist in disguise cannot make it open anything else.
    """
    return {"fd": str(descriptor), "protocol_whitelist": "fd" if part is None else "fd,subfile"}


def _url(part: Part | None) -> str:
    return "fd:" if part is None else f"subfile,,start,{part[0]},end,{part[1]},,:fd:"


def _container(descriptor: int, part: Part | None) -> av.container.InputContainer:
    os.lseek(descriptor, 0, os.SEEK_SET)
    container = av.open(_url(part), options=_options(descriptor, part), **_ANY_TAGS)
    assert isinstance(container, av.container.InputContainer)
    return container


def _samples(frame: av.AudioFrame) -> Frames:
    """A frame of interleaved floats, as a view of it."""
    channels = frame.layout.nb_channels
    if not channels:
        raise DamagedError("no channels in it")
    samples = np.frombuffer(memoryview(frame.planes[0]), np.float32, frame.samples * channels)
    return samples.reshape(-1, channels).T


def _is_encrypted(stream: av.AudioStream) -> bool:
    try:
        return stream.codec_context.codec_tag in _ENCRYPTED_TAGS
    except UnicodeDecodeError:  # a tag that is a number rather than four letters
        return False


def read_metadata(descriptor: int) -> dict[str, str]:
    """What a file says of itself, by FFmpeg's names for it; what is said of the sound comes after what is of the file.

    Bytes that are not UTF-8 become U+FFFD, with every PyAV.

    Raises:
        AudioError: FFmpeg does not read it.
    """
    try:
        with _container(descriptor, None) as container:
            told = container.metadata
            for stream in container.streams.audio[:1]:
                told = {**told, **stream.metadata}
            return {
                name: text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name, text in told.items()
            }
    except av.FFmpegError as error:
        raise_want(error)
        raise AudioError("not audio, or its header is damaged or missing") from None
