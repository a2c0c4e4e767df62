"""How long a file says it is, where its decoder does not tell: the only way to notice that its end is missing."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import BinaryIO, NamedTuple

import av

from poolembed.audio._chunks import Chunks

# Writers that stream put one of these for a size they do not know yet: 0xFFFFFFFF (ffmpeg), 0x7FFFF000 (sox), 0.
_UNKNOWN = 0x7FFF_0000
# Containers whose duration comes from a header. FFmpeg guesses that of the others from the bit rate.
_DURATION_IS_WRITTEN = frozenset({"mov", "matroska", "asf", "ogg", "flac", "ape", "wv", "tta", "caf"})


class Promise(NamedTuple):
    """A length by the file's own account.

    Attributes:
        samples: per channel; None where the file gives no length.
        slack: how many of them may be missing though nothing is wrong.
        cut: the end of the file is missing for sure, whatever was decoded.
    """

    samples: int | None = None
    slack: int = 0
    cut: bool = False


def read_promise(file: BinaryIO, chunks: Chunks | None) -> Promise:
    """The promise of a WAV, W64, AIFF, CAF, AU, MP3, Ogg, Matroska, DSF or Musepack file, from its bytes.

    An empty one for others.

    Args:
        file: open for reading; its position is moved.
        chunks: of the file, where it is made of chunks.
    """
    if chunks is not None:
        samples = _stored(file, chunks)
        return Promise(samples, cut=samples is None and _is_cut(chunks))
    file.seek(0)
    head = file.read(10)
    if head[:4] in _READERS:
        return _READERS[head[:4]](file)
    if head[:3] == b"ID3":
        # The tag's size has seven bits a byte; a tag may hold a picture of many megabytes.
        size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
        return _mp3(file, 10 + size)
    return _mp3(file, 0)


def _stored(file: BinaryIO, chunks: Chunks) -> int | None:
    """Samples by the header of a file of chunks."""
    if chunks.kind == b"FORM":
        comm, frame = chunks.find(b"COMM"), aiff_frame(file, chunks)
        if comm is None:
            return None
        file.seek(comm.start + 2)
        samples: int = struct.unpack(">I", file.read(4).ljust(4, b"\0"))[0]
        # sox states so many samples that they would fill 0x7F000000 bytes.
        return samples if samples and samples * max(frame, 1) < max(0x7F00_0000 - 1024, chunks.size) else None
    data = chunks.samples
    if data is None or data.size <= chunks.head:
        return None
    if chunks.kind == b"caff":
        desc = chunks.find(b"desc")
        file.seek(desc.start if desc else 0)
        kind, bytes_a_packet = struct.unpack("> 8x 4s 4x I", file.read(20).ljust(20, b"\0"))
        is_plain = kind in (b"lpcm", b"ulaw", b"alaw")
        return (data.size - chunks.head) // bytes_a_packet if is_plain and bytes_a_packet else None
    if data.size >= _UNKNOWN and chunks.kind in (b"RIFF", b"RIFX"):
        return None
    fmt = chunks.find(b"fmt ")
    file.seek(fmt.start if fmt else 0)
    codec, block_align = struct.unpack(
        "> H 10x H" if chunks.kind == b"RIFX" else "< H 10x H", file.read(14).ljust(14, b"\0")
    )
    # Only PCM, float, A-law, mu-law and extensible: in the others a block is more than one sample.
    return data.size // block_align if fmt and codec in (1, 3, 6, 7, 0xFFFE) and block_align else None


def _is_cut(chunks: Chunks) -> bool:
    """Whether the samples, in whatever codec, are stated to end behind the end of the file."""
    data = chunks.samples
    if data is None or data.size <= chunks.head:
        return False
    is_known = chunks.kind in (b"caff", b"riff", b"RF64", b"BW64") or data.size < 0x7F00_0000 - 1024
    return is_known and data.start + data.size > chunks.size


def aiff_frame(file: BinaryIO, chunks: Chunks) -> int:
    """Bytes of one sample of all channels of an AIFF; 0 where a codec takes no fixed number of them."""
    comm = chunks.find(b"COMM")
    if comm is None:
        return 0
    file.seek(comm.start)
    channels, _, bits, codec = struct.unpack("> H I H 10x 4s", file.read(min(comm.size, 22)).ljust(22, b"\0"))
    if codec.lower() in (b"ulaw", b"alaw"):
        return int(channels)
    is_stored = codec.lower() in (bytes(4), b"none", b"twos", b"sowt", b"fl32", b"fl64", b"in24", b"in32", b"raw ")
    return int(channels * (bits + 7 >> 3)) if is_stored else 0


def _au(file: BinaryIO) -> Promise:
    file.seek(0)
    head = file.read(24)
    size, codec, _, channels = struct.unpack_from(">IIII", head.ljust(24, b"\0"), 8)
    frame = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}.get(codec, 0) * channels
    return Promise(size // frame if frame and 0 < size < _UNKNOWN else None)


def _dsf(file: BinaryIO) -> Promise:
    """The header states samples of one bit, of which eight become one; FFmpeg counts those that are there instead."""
    file.seek(64)
    samples = int.from_bytes(file.read(8), "little") // 8
    return Promise(samples or None)


def _musepack(file: BinaryIO) -> Promise:
    """Of stream version 8: its first packet has, as a rule, a name, its size, a checksum, the version, the samples."""
    file.seek(4)
    packet = file.read(20)
    samples = 0
    for byte in packet[8:] if packet[:2] == b"SH" else b"":  # seven bits a byte, the highest first
        samples = samples << 7 | byte & 0x7F
        if byte < 0x80:
            return Promise(samples or None, slack=1152)  # a frame, of which encoders count more or less
    return Promise()


def _matroska(file: BinaryIO) -> Promise:
    """Whether the segment, which holds everything but the header, is larger than the file."""
    end = file.seek(0, 2)
    position = 4
    for is_segment in (False, True):
        file.seek(position)
        vint = file.read(8)
        length = 9 - vint[0].bit_length() if vint else 9
        if length > 8 or len(vint) < length:
            break
        size = int.from_bytes(vint[:length], "big") & (1 << 7 * length) - 1
        is_known = size != (1 << 7 * length) - 1
        position += length + size + 4  # and the name of the next
        if is_segment:
            return Promise(cut=is_known and position - 4 > end)
    return Promise()


def _ogg(file: BinaryIO) -> Promise:
    """Whether the last page is whole and marked as the last; a page is never longer than 65 307 bytes."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 2 * 65_307))
    tail = file.read()
    start = tail.rfind(b"OggS")
    page = tail[start:]
    if start < 0 or len(page) < 27 or len(page) < 27 + page[26]:
        return Promise(cut=True)
    is_whole = len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    is_last = bool(page[5] & 4)
    return Promise(cut=not (is_whole and is_last))


def _mp3(file: BinaryIO, start: int) -> Promise:
    """The frame count of a Xing, Info or VBRI header, which sits in the first frame."""
    file.seek(start)
    frame = file.read(64)
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # frame sync, layer III
        return Promise()
    is_mpeg1, is_mono = frame[1] & 0x18 == 0x18, frame[3] >> 6 == 3
    side_info = (17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17)
    xing, vbri = frame[4 + side_info :], frame[36:]
    if xing[:4] in (b"Xing", b"Info") and xing[7] & 1:
        frames = struct.unpack_from(">I", xing, 8)[0]
    elif vbri[:4] == b"VBRI":
        frames = struct.unpack_from(">I", vbri, 14)[0]
    else:
        return Promise()
    samples_per_frame = 1152 if is_mpeg1 else 576
    # The encoder's delay and padding, which are in the count and not in the music, are at most four frames.
    return Promise(frames * samples_per_frame, slack=4 * samples_per_frame)


_READERS = {b"OggS": _ogg, b".snd": _au, b"DSD ": _dsf, b"MPCK": _musepack, b"\x1a\x45\xdf\xa3": _matroska}


def promise_of_stream(container: av.container.InputContainer, stream: av.AudioStream) -> Promise:
    """The stated length of one stream, not of the container: a film's picture may outlast its sound."""
    if not _DURATION_IS_WRITTEN.intersection(container.format.name.split(",")):
        return Promise()
    seconds: Fraction | None = None
    if stream.duration and stream.time_base and container.format.name != "asf":
        seconds = stream.duration * stream.time_base
    elif "DURATION" in stream.metadata:
        seconds = _matroska_duration(stream.metadata["DURATION"])
        if seconds and stream.start_time and stream.time_base:
            seconds -= max(Fraction(0), stream.start_time * stream.time_base)
    elif container.duration and _is_alone(container):
        seconds = Fraction(container.duration, av.time_base)
    if seconds is None:
        return Promise()
    rate = stream.codec_context.sample_rate
    # A quarter of a second is more than any codec's delay, which muxers count in or not as they like.
    return Promise(max(0, int(seconds * rate)), slack=rate // 4)


def _matroska_duration(text: str) -> Fraction | None:
    """Seconds of ``00:03:25.123000000``, which is when a track ends."""
    try:
        hours, minutes, seconds = text.strip("\0 ").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except (ValueError, ZeroDivisionError):
        return None


def _is_alone(container: av.container.InputContainer) -> bool:
    pictures = [each for each in container.streams.video if each.disposition & av.stream.Disposition.attached_pic]
    return len(container.streams.audio) + len(container.streams.video) - len(pictures) == 1
