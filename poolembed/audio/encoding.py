"""How a file's audio is encoded, by the account of what decodes it; neither a suffix nor a tag is believed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from poolembed.audio.faults import raise_want

if TYPE_CHECKING:
    import av
    import soundfile

# libsndfile's names for what is no PCM, and FFmpeg's for the same; True where nothing is lost.
_SUBTYPES = {
    "ULAW": ("pcm_mulaw", False),
    "ALAW": ("pcm_alaw", False),
    "MS_ADPCM": ("adpcm_ms", False),
    "IMA_ADPCM": ("adpcm_ima_wav", False),
    "VOX_ADPCM": ("adpcm_ima_oki", False),
    "G721_32": ("adpcm_g726", False),
    "G723_24": ("adpcm_g726", False),
    "G723_40": ("adpcm_g726", False),
    "GSM610": ("gsm_ms", False),
    "MPEG_LAYER_I": ("mp1", False),
    "MPEG_LAYER_II": ("mp2", False),
    "MPEG_LAYER_III": ("mp3", False),
    "VORBIS": ("vorbis", False),
    "OPUS": ("opus", False),
    "ALAC_16": ("alac", True),
    "ALAC_20": ("alac", True),
    "ALAC_24": ("alac", True),
    "ALAC_32": ("alac", True),
    "DWVW_12": ("dwvw", True),
    "DWVW_16": ("dwvw", True),
    "DWVW_24": ("dwvw", True),
}
_PCM_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}
# Containers whose samples have their high bytes first unless they say otherwise.
_BIG_ENDIAN = frozenset({"AIFF", "AU", "CAF", "SVX", "AVR", "SD2", "PVF", "WVE"})

_WAVPACK_HYBRID = 1 << 3


@dataclass(frozen=True, slots=True)
class Encoding:
    """How audio is stored.

    Attributes:
        codec: FFmpeg's name of it, whichever library decodes: "flac", "mp3", "aac", "alac", "pcm_s16le", …
        lossless: whether the codec gives back exactly what it was given; None where the file does not tell. A codec
            cannot know what it was given: a FLAC made from an MP3 is lossless too.
        sample_rate: in Hz, as decoded.
        channels: how many, as decoded.
        bits: of a sample, where nothing is lost and they are known.
        bitrate: kb/s on average, of the audio alone and the seconds decoded; None where nothing is lost, and where
            other sound or film is in the file.
    """

    codec: str
    lossless: bool | None
    sample_rate: int
    channels: int
    bits: int | None = None
    bitrate: float | None = None


def encoding_of_sndfile(file: soundfile.SoundFile) -> Encoding:
    """The encoding of a file that libsndfile has open."""
    subtype: str = file.subtype
    bits = _PCM_BITS.get(subtype)
    lossless: bool | None = True
    if file.format == "FLAC":
        codec = "flac"
    elif bits is not None:
        is_big = file.endian == "BIG" or (file.endian != "LITTLE" and file.format in _BIG_ENDIAN)
        kind = "f" if subtype in ("FLOAT", "DOUBLE") else "u" if subtype == "PCM_U8" else "s"
        codec = f"pcm_{kind}{bits}" + ("" if bits == 8 else "be" if is_big else "le")
    elif subtype == "IMA_ADPCM" and file.format == "AIFF":
        codec, lossless = "adpcm_ima_qt", False
    else:
        codec, lossless = _SUBTYPES.get(subtype, (subtype.lower(), None))
        if lossless:
            bits = int(subtype.rpartition("_")[2])
    return Encoding(codec, lossless, file.samplerate, file.channels, bits)


def encoding_of_stream(container: av.container.InputContainer, stream: av.AudioStream) -> tuple[Encoding, int | None]:
    """The encoding of a stream that FFmpeg has open, and where in the file its sound begins.

    Args:
        container: just opened. Packets are read from it, so it is of no use for decoding afterwards.
        stream: one of its.

    Returns:
        The encoding, and the position of the first packet; None where that is not known, and where there is other sound
        or film in the file.
    """
    from av import FFmpegError
    from av.stream import Disposition

    context = stream.codec_context
    codec = context.codec.canonical_name
    pictures = {each.index for each in container.streams.video if each.disposition & Disposition.attached_pic}
    start, head = None, b""
    # Pictures come first, each in one packet.
    try:
        for packet in itertools.islice(container.demux(), 1000):
            if packet.stream.index == stream.index:
                start, head = packet.pos, bytes(packet)[:32]
                break
    except FFmpegError as error:  # decoding finds that out as well, and may go on behind it
        raise_want(error)
    lossless = _is_lossless(context, codec, head)
    bits = _bits(context, codec, head) if lossless else None
    alone = len(container.streams.audio) + len(container.streams.video) - len(pictures) == 1
    encoding = Encoding(codec, lossless, context.sample_rate, context.channels, bits)
    return encoding, start if alone and start is not None and start >= 0 else None


def _is_lossless(context: av.AudioCodecContext, codec: str, head: bytes) -> bool | None:
    if codec.startswith("dsd_"):  # FFmpeg counts it among the lossy ones, for what it makes of it is PCM
        return True
    if codec == "wavpack":
        flags = _wavpack_flags(head)
        return None if flags is None else not flags & _WAVPACK_HYBRID
    if codec == "dts":  # a lossy core, to which Master Audio adds what it lacks
        return None if context.profile is None else context.profile.startswith("DTS-HD MA")
    if codec.startswith("atrac") and codec.endswith("al"):  # of which FFmpeg decodes the lossy core alone
        return None
    can_be = bool(context.codec.lossless), bool(context.codec.lossy)
    return can_be[0] if can_be[0] != can_be[1] else None


def _bits(context: av.AudioCodecContext, codec: str, head: bytes) -> int | None:
    if codec.startswith("dsd_"):
        return 1
    if codec.startswith("pcm_") and (digits := codec[5:].rstrip("abdelnpru_")).isdigit():
        return int(digits)
    extra = bytes(context.extradata or b"")
    if codec == "flac" and len(extra) == 34:  # STREAMINFO
        return ((extra[12] & 1) << 4 | extra[13] >> 4) + 1
    if codec == "alac" and len(extra) == 36:  # an atom's 12 bytes, then the cookie
        return extra[17]
    flags = _wavpack_flags(head) if codec == "wavpack" else None
    if flags is not None:
        return 8 * ((flags & 3) + 1) - (flags >> 13 & 31)
    # Of samples that are decoded to 32 bits, nothing says whether they had 24.
    return {"u8": 8, "s16": 16}.get(context.format.packed.name)


def _wavpack_flags(head: bytes) -> int | None:
    """The flags in the header of a WavPack block."""
    return int.from_bytes(head[24:28], "little") if head[:4] == b"wvpk" and len(head) >= 28 else None
