"""AC-3 and DTS that pass themselves off as 16-bit stereo: a DTS-CD, or what came over S/PDIF (IEC 61937)."""

from __future__ import annotations

import contextlib
import itertools

import av
import numpy as np

from poolembed.audio._decoders import DamagedError, Decoder, block_size
from poolembed.audio._ffmpeg import Frames, Gathered, at_rate, choose_stream, decoded
from poolembed.audio._promise import Promise
from poolembed.audio.encoding import encoding_of_stream
from poolembed.audio.faults import raise_want
from poolembed.errors import AudioError

# How frames begin, in samples of 16 bits with their low byte first, and the demuxer that takes them.
_SYNCS = {
    b"\x72\xf8\x1f\x4e": "spdif",
    b"\xfe\x7f\x01\x80": "dts",
    b"\x7f\xfe\x80\x01": "dts",
    b"\xff\x1f\x00\xe8": "dts",  # 14 bits of each sample, which is quieter where no decoder is
    b"\x1f\xff\xe8\x00": "dts",
}
# A frame of DTS or AC-3 starts in any stretch of as many bytes. Those of E-AC-3 are 24 kB apart, and found if the first
# is whole.
_PERIOD = 1 << 14
# As many at the same distance from each other are no chance: 2^-32 for each.
_FRAMES = 4
# Occurrences of a sync word that are looked at; some may be chance.
_MOST = 64


def find_bitstream(blocks: list[Frames]) -> str | None:
    """FFmpeg's demuxer for what a song's samples hold; None if they are what they seem.

    Args:
        blocks: the first with any sound in it, ``(channels, n)``, and perhaps the next. It takes 30 µs.
    """
    if len(blocks[0]) != 2:
        return None
    first = _silence(blocks[0])
    start = _bytes(blocks[0][:, first : first + _PERIOD // 4])
    # Two words at a time, in numpy: looking for bytes takes ten times as long.
    pairs = [np.frombuffer(start[shift : len(start) - 4 + shift], "<u4") for shift in (0, 2)] if start else []
    for sync, demuxer in _SYNCS.items():
        wanted = np.frombuffer(sync, "<u4")[0]
        if any((each == wanted).any() for each in pairs):
            whole = b"".join(map(_bytes, (blocks[0][:, first:], *blocks[1:])))
            if _is_regular(whole, sync):
                return demuxer
    return None


def sound_is_late(block: Frames) -> bool:
    """Whether a block begins with so much silence that `find_bitstream` needs the next one too."""
    return not block[:, :64].any() and not block[:, : block.shape[1] // 2].any()


def _silence(block: Frames) -> int:
    """Samples of a block, which is not all silence, in front of the first sound."""
    return 0 if block[:, 0].any() else int(block.any(axis=0).argmax())


def _bytes(block: Frames) -> bytes:
    """The 16-bit samples that a block was made of, interleaved; nothing if it was made of others."""
    scaled = block.T.reshape(-1) * np.float32(32_768)
    with np.errstate(invalid="ignore"):
        words = scaled.astype("<i2")
    return words.tobytes() if (words == scaled).all() else b""


def _is_regular(data: bytes, sync: bytes) -> bool:
    found: list[int] = []
    at = data.find(sync)
    while at >= 0 and len(found) < _MOST:
        found.append(at)
        at = data.find(sync, at + 2)
    places = set(found)
    for first, second in itertools.combinations(found, 2):
        if all(first + count * (second - first) in places for count in range(2, _FRAMES)):
            return True
    return False


class BitstreamDecoder:
    """`Decoder` for AC-3 and DTS in what another decoder takes for samples.

    Args:
        demuxer: of FFmpeg, as `find_bitstream` says.
        blocks: of samples that have been read already.
        samples: where the others come from; closed with this one.

    Raises:
        AudioError: FFmpeg does not decode it.
    """

    def __init__(self, demuxer: str, blocks: list[Frames], samples: Decoder) -> None:
        self._samples = samples
        self.sample_rate = samples.sample_rate
        self.promise = Promise()
        self.errors = 0
        silent = _silence(blocks[0])
        try:
            self._words = _Words(blocks, samples)
            self._container = av.open(self._words, "r", format=demuxer)
            stream = choose_stream(self._container)
            self.encoding, _ = encoding_of_stream(self._container, stream)
        except av.FFmpegError as error:
            raise_want(error)
            raise AudioError("holds AC-3 or DTS in place of samples, and FFmpeg does not decode it") from None
        self.payload = samples.payload
        channels = stream.codec_context.channels
        silence = np.zeros((channels, silent), np.float32)
        frames = at_rate(decoded(self._container, stream, self._count), self.sample_rate)
        self._blocks = Gathered(itertools.chain([silence], frames), block_size(channels))

    @property
    def consumed(self) -> int:
        """How many of the other decoder's samples it has read."""
        return self._words.consumed

    def _count(self) -> None:
        self.errors += 1

    def read(self) -> Frames | None:
        """See `Decoder.read`."""
        return self._blocks.read()

    def close(self) -> None:
        """See `Decoder.close`."""
        self._container.close()
        self._samples.close()


class _Words:
    """A decoder's samples as a file of 16-bit words, which is read from its beginning to its end."""

    def __init__(self, blocks: list[Frames], samples: Decoder) -> None:
        self._bytes = b"".join(map(_bytes, blocks))
        self._samples = samples
        self.consumed: int = sum(block.shape[1] for block in blocks)

    def read(self, size: int) -> bytes:
        """As of any file; the end of the samples, damaged or not, is the end."""
        if not self._bytes:
            with contextlib.suppress(DamagedError):
                block = self._samples.read()
                if block is not None:
                    self._bytes = _bytes(block)
                    self.consumed += block.shape[1]
        data, self._bytes = self._bytes[:size], self._bytes[size:]
        return data
