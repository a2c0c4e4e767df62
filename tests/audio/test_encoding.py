"""Codec, loss and bit rate are the decoder's: of real encoders, under any suffix."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from poolembed.audio.decode import open_audio
from poolembed.audio.encoding import Encoding
from poolembed.audio.source import open_source
from tests.conftest import noise
from tests.encoders import ENCODERS, encode

ENCODED = Path(__file__).parent / "encoded"

CODECS = {
    "flac.flac": ("flac", 16),
    "flac24.flac": ("flac", 24),
    "flac.ogg": ("flac", 16),
    "flac.mp4": ("flac", 16),
    "flac.mka": ("flac", 16),
    "alac.m4a": ("alac", 16),
    "alac.mp4": ("alac", 16),
    "alac.caf": ("alac", 16),
    "wavpack.wv": ("wavpack", 16),
    "wavpack.mka": ("wavpack", 16),
    "tta.tta": ("tta", 16),
    "pcm.wav": ("pcm_s16le", 16),
    "pcm24.wav": ("pcm_s24le", 24),
    "pcm8.wav": ("pcm_u8", 8),
    "float.wav": ("pcm_f32le", 32),
    "pcm.aiff": ("pcm_s16be", 16),
    "pcm.au": ("pcm_s16be", 16),
    "pcm.mka": ("pcm_s16le", 16),
    "dsd.dsf": ("dsd_lsbf_planar", 1),
}
LOSSY = {
    "mp3.mp3": "mp3",
    "mp3.wav": "mp3",
    "mulaw.wav": "pcm_mulaw",
    "alaw.au": "pcm_alaw",
    "adpcm.wav": "adpcm_ms",
    "ima.wav": "adpcm_ima_wav",
    "gsm.wav": "gsm_ms",
    "aac.m4a": "aac",
    "quicktime.m4a": "aac",
    "aac.aac": "aac",
    "vorbis.ogg": "vorbis",
    "opus.opus": "opus",
    "wma.wma": "wmav2",
    "mp2.mp2": "mp2",
    "ac3.ac3": "ac3",
    "eac3.ec3": "eac3",
}


def sound(name: str, seconds: float = 0.5) -> tuple[NDArray[np.float32], int]:
    """Noise at a rate and of channels that the encoding takes."""
    rate = 48_000 if name.startswith("opus") else 44_100
    return np.stack([noise(round(seconds * rate))] * (1 if name == "gsm.wav" else 2), axis=1), rate


def heard(path: Path) -> Encoding:
    """What is known once a file was decoded."""
    with open_audio(str(path)) as stream:
        for _ in stream.blocks():
            pass
        return stream.encoding


def test_every_encoder_is_tried() -> None:
    assert {*CODECS, *LOSSY} == {*ENCODERS, "dsd.dsf"}


@pytest.mark.parametrize("name", CODECS)
def test_lossless(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, name, *sound(name))
    encoding = heard(path)
    for suffix in (".mp3", ".wav"):
        path = path.rename(tmp_path / f"{name}{suffix}")
        assert heard(path) == encoding
    assert (encoding.codec, encoding.bits) == CODECS[name]
    assert encoding.lossless is True
    assert encoding.bitrate is None
    assert encoding.channels == (1 if name == "dsd.dsf" else 2)


@pytest.mark.parametrize("name", LOSSY)
def test_lossy(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, name, *sound(name, 4))
    encoding = heard(path)
    assert encoding.codec == LOSSY[name]
    assert encoding.lossless is False
    assert encoding.bits is None
    with open_source(str(path), 16_000) as source:
        for _ in source.blocks():
            pass
        whole = path.stat().st_size * 8e-3 / source.duration
    assert encoding.bitrate is not None
    assert 0.8 * whole < encoding.bitrate < whole + 0.1  # headers are not in it
    for suffix in (".flac", ".wav"):
        path = path.rename(tmp_path / f"{name}{suffix}")
        assert heard(path) == encoding


def test_a_lossy_wavpack() -> None:
    encoding = heard(ENCODED / "hybrid.wv")
    assert (encoding.codec, encoding.lossless) == ("wavpack", False)


def test_musepack() -> None:
    encoding = heard(ENCODED / "musepack.mpc")
    assert (encoding.codec, encoding.lossless) == ("musepack8", False)


def test_there_is_no_bit_rate_before_anything_is_decoded(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp3", "mp3.mp3", *sound("mp3.mp3"))
    with open_audio(str(path)) as stream:
        assert stream.encoding == Encoding("mp3", False, 44_100, 2)


@pytest.mark.parametrize("bitrate", [64, 128, 320])
def test_the_bit_rate_that_the_encoder_was_given(tmp_path: Path, bitrate: int) -> None:
    path = encode(tmp_path / "a.mp3", "mp3.mp3", *sound("mp3.mp3", 4), bitrate=bitrate)
    assert heard(path).bitrate == pytest.approx(bitrate, rel=0.02)


@pytest.mark.parametrize("name", ["mp3.mp3", "aac.m4a"])
def test_a_picture_is_not_in_the_bit_rate(tmp_path: Path, name: str) -> None:
    plain = encode(tmp_path / name, name, *sound(name, 4))
    pictured = tmp_path / f"pictured {name}"
    with_picture(plain, pictured)
    assert pictured.stat().st_size > plain.stat().st_size + 50_000
    assert heard(pictured).bitrate == pytest.approx(heard(plain).bitrate, rel=0.01)


def with_picture(plain: Path, pictured: Path) -> None:
    """The same sound with a cover of noise beside it."""
    from av.stream import Disposition

    pixels = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
    with (
        av.open(str(plain)) as old,
        av.open(str(pictured), "w", format="mp3" if plain.suffix == ".mp3" else "mp4") as new,
    ):
        audio = new.add_stream_from_template(old.streams.audio[0])
        cover = new.add_stream("png", rate=1)
        cover.width = cover.height = 160
        cover.pix_fmt = "rgb24"
        cover.disposition = Disposition.attached_pic
        for packet in cover.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")):
            new.mux(packet)
        for packet in old.demux(old.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = audio
                new.mux(packet)


def test_a_film_has_no_bit_rate_of_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    samples, rate = sound("aac.m4a")
    with av.open(str(path), "w") as container:
        film = container.add_stream("mpeg4", rate=25)
        film.width = film.height = 64
        film.pix_fmt = "yuv420p"
        stream = container.add_stream("aac", rate=rate, layout="stereo")
        for _ in range(12):
            container.mux(film.encode(av.VideoFrame(64, 64, "yuv420p")))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
        frame.sample_rate = rate
        container.mux([*film.encode(None), *stream.encode(frame), *stream.encode(None)])
    encoding = heard(path)
    assert (encoding.codec, encoding.lossless, encoding.bitrate) == ("aac", False, None)


def test_samples_in_memory_have_no_encoding() -> None:
    with open_source((noise(1000), 16_000), 16_000) as source:
        assert source.encoding is None


def ape_tag(size: int) -> bytes:
    """With its header, and one item."""
    item = (size - 8).to_bytes(4, "little") + bytes(4) + b"x\0" + b"v" * (size - 10)
    head = b"APETAGEX" + struct.pack("<III", 2000, len(item) + 32, 1)
    return head + struct.pack("<I", 0xA000_0000) + bytes(8) + item + head + struct.pack("<I", 0x8000_0000) + bytes(8)


ID3V1 = b"TAG" + bytes(125)
ID3V2 = b"ID3\3\0\0\0\4\0\0" + b"PRIV\0\0\x90\0\0\0" + b"\5" * 0x9000 + bytes(65_536 - 0x9000 - 10)
BEHIND = {
    "zeros": bytes(200_000),
    "ID3v1": ID3V1,
    "APE": ape_tag(50_000),
    "APE and ID3v1": ape_tag(50_000) + ID3V1,
    "lyrics": b"LYRICSBEGIN" + b"x" * 30_000 + b"030011LYRICS200" + ID3V1,
    "all of it": bytes(70_000) + ape_tag(50_000) + bytes(9) + ID3V1 + bytes(100_000),
}


@pytest.mark.parametrize("front", [b"", ID3V2], ids=["bare", "ID3v2"])
@pytest.mark.parametrize("behind", BEHIND)
def test_tags_and_padding_are_not_in_the_bit_rate(tmp_path: Path, behind: str, front: bytes) -> None:
    plain = encode(tmp_path / "a.mp3", "mp3.mp3", *sound("mp3.mp3", 4))
    padded = tmp_path / "b.mp3"
    padded.write_bytes(front + plain.read_bytes() + BEHIND[behind])
    assert heard(padded).bitrate == pytest.approx(heard(plain).bitrate, rel=0.01)


def test_boxes_that_hold_no_media_are_not_in_the_bit_rate(tmp_path: Path) -> None:
    plain = encode(tmp_path / "a.m4a", "aac.m4a", *sound("aac.m4a", 4))
    padded = tmp_path / "b.m4a"
    padded.write_bytes(plain.read_bytes() + struct.pack(">I", 100_008) + b"free" + bytes(100_000))
    assert heard(padded).bitrate == heard(plain).bitrate
