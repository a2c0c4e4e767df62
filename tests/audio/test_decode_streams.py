"""Files of several sounds: tracks beside each other, links and joined files one behind the other."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from poolembed.audio._ffmpeg import FFmpegDecoder, PacketDecoder
from poolembed.errors import AudioError
from tests.audio.sounds import Heard, pyav, sndfile, tone

# Tracks beside each other.


@pytest.mark.parametrize("default", [0, 1])
@pytest.mark.parametrize(
    ("container", "codecs"),
    [("matroska", ("flac", "flac")), ("matroska", ("aac", "libopus")), ("webm", ("libopus", "libopus")),
     ("ipod", ("aac", "aac")), ("ipod", ("alac", "aac")), ("mov", ("pcm_s16le", "pcm_s16le"))],
)  # fmt: skip
def test_the_default_track_is_heard_at_its_own_rate(
    tmp_path: Path, container: str, codecs: tuple[str, str], default: int
) -> None:
    rates = (48_000, 16_000) if "libopus" in codecs else (44_100, 48_000)
    pyav(
        tmp_path / "a",
        container,
        (codecs[0], tone(440, rates[0], seconds=3), rates[0]),
        (codecs[1], tone(880, rates[1], channels=2, seconds=2), rates[1]),
        default=default,
    )
    heard = Heard(tmp_path / "a")
    assert heard.note is None
    assert heard.rate == (48_000 if codecs[default] == "libopus" else rates[default])
    assert heard.seconds == pytest.approx((3, 2)[default], abs=0.1)
    assert heard.pitches(0.5, 1, 1.5) == [(440, 880)[default]] * 3
    assert heard.encoding.channels == 1 + default
    assert heard.encoding.codec == codecs[default].removeprefix("lib")


def test_graph_and_packets_hear_the_same_track(tmp_path: Path) -> None:
    pyav(
        tmp_path / "a", "matroska", ("flac", tone(440, 44_100), 44_100), ("flac", tone(880, 48_000), 48_000), default=1
    )
    descriptor = os.open(tmp_path / "a", os.O_RDONLY)
    try:
        signals = []
        for kind in (FFmpegDecoder, PacketDecoder):
            decoder = kind(descriptor)
            assert decoder.sample_rate == 48_000
            blocks = []
            while (block := decoder.read()) is not None:
                blocks.append(np.array(block))
            signals.append(np.concatenate(blocks, axis=1))
            decoder.close()
    finally:
        os.close(descriptor)
    np.testing.assert_array_equal(signals[0], signals[1])


def test_without_a_default_it_is_one_track_at_its_own_rate(tmp_path: Path) -> None:
    pyav(tmp_path / "a", "mov", ("pcm_s16le", tone(440, 44_100), 44_100), ("pcm_s16le", tone(880, 22_050), 22_050))
    heard = Heard(tmp_path / "a")
    assert (heard.rate, heard.pitches(0.5)) in [(44_100, [440]), (22_050, [880])]


@pytest.mark.parametrize(("codec", "tag", "other"), [("aac", b"mp4a", b"enca"), ("alac", b"alac", b"zzzz")])
def test_a_track_that_can_be_heard_is_beside_one_that_cannot(
    tmp_path: Path, codec: str, tag: bytes, other: bytes
) -> None:
    tracks = ((codec, tone(440, 44_100), 44_100), ("aac" if codec == "alac" else "alac", tone(880, 48_000), 48_000))
    data = pyav(tmp_path / "a", "ipod", *tracks, default=0)
    (tmp_path / "b").write_bytes(data.replace(tag, other))
    heard = Heard(tmp_path / "b")
    assert (heard.rate, heard.pitches(0.5), heard.note) == (48_000, [880], None)
    data = pyav(tmp_path / "a", "ipod", tracks[0], tracks[0])
    (tmp_path / "c").write_bytes(data.replace(tag, other))
    with pytest.raises(AudioError, match="protected by DRM, or in a codec"):
        Heard(tmp_path / "c")


# Films.


@pytest.mark.parametrize("late", [0, 1.5])
@pytest.mark.parametrize("container", ["mp4", "matroska", "mov", "asf", "avi"])
def test_a_film_may_outlast_its_sound_which_may_begin_late(tmp_path: Path, container: str, late: float) -> None:
    pyav(tmp_path / "a", container, ("aac" if container != "asf" else "wmav2", tone(440, 44_100, 2, 2), 44_100),
         picture=5, late=late)  # fmt: skip
    heard = Heard(tmp_path / "a")
    assert heard.note is None
    assert heard.seconds == pytest.approx(2, abs=0.1)
    assert heard.pitches(0.5, 1.5) == [440, 440]


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_film_that_is_cut_is_truncated(tmp_path: Path, share: float) -> None:
    data = pyav(tmp_path / "a", "matroska", ("aac", tone(440, 44_100, seconds=4), 44_100), picture=4)
    (tmp_path / "b").write_bytes(data[: int(share * len(data))])
    heard = Heard(tmp_path / "b")
    assert heard.note is not None and "truncated" in heard.note
    assert 0.5 < heard.seconds < 3.5


# One behind the other.

OGG = {
    "vorbis": lambda samples, rate, path: sndfile(samples, rate, "OGG", "VORBIS"),
    "opus": lambda samples, rate, path: pyav(path, "ogg", ("libopus", samples, rate)),
    "flac": lambda samples, rate, path: pyav(path, "ogg", ("flac", samples, rate)),
}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((48_000, 1), (48_000, 1)),
        ((48_000, 1), (24_000, 2)),
        ((48_000, 2), (48_000, 1)),
        ((48_000, 2), (24_000, 1)),
        ((48_000, 2), (24_000, 2)),
    ],
)
@pytest.mark.parametrize("codec", OGG)
def test_links_of_a_chained_ogg_are_heard_whole(
    tmp_path: Path, codec: str, first: tuple[int, int], second: tuple[int, int]
) -> None:
    links = [
        OGG[codec](tone(pitch, rate, channels, 2), rate, tmp_path / "link")
        for pitch, (rate, channels) in ((440, first), (880, second), (1320, first))
    ]
    (tmp_path / "a").write_bytes(b"".join(links))
    heard = Heard(tmp_path / "a")
    assert heard.note is None
    assert heard.rate == first[0]
    assert heard.seconds == pytest.approx(6, abs=0.05)
    assert heard.pitches(0.2, 1, 1.8, 2.2, 3, 3.8, 4.2, 5, 5.8) == [440] * 3 + [880] * 3 + [1320] * 3
    # As loud as they were, whatever their channels: the mean of equal channels.
    for middle in (1, 3, 5):
        part = heard.signal[int((middle - 0.5) * heard.rate) : int((middle + 0.5) * heard.rate)]
        assert np.sqrt(np.mean(part**2)) == pytest.approx(0.5 / 2**0.5, rel=0.05)


def test_links_of_other_codebooks_and_codecs_are_no_noise(tmp_path: Path) -> None:
    # The same rate and channels, and yet FFmpeg decodes the second with the codebooks of the first.
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (44_100, 2))
    low = io.BytesIO()
    soundfile.write(low, noise, 44_100, "VORBIS", format="OGG", compression_level=1.0)
    (tmp_path / "a").write_bytes(
        low.getvalue()
        + sndfile(tone(880, 44_100, 2), 44_100, "OGG", "VORBIS")
        + pyav(tmp_path / "opus", "ogg", ("libopus", tone(440, 48_000, 2), 48_000))
    )
    heard = Heard(tmp_path / "a")
    assert heard.note is None
    assert heard.seconds == pytest.approx(3, abs=0.1)
    assert heard.pitches(1.3, 1.7, 2.3, 2.7) == [880, 880, 440, 440]


def test_chained_ogg_that_breaks_off_is_truncated(tmp_path: Path) -> None:
    link = sndfile(tone(440, 44_100, 2, 4), 44_100, "OGG", "VORBIS")
    other = sndfile(tone(880, 48_000, 1, 30), 48_000, "OGG", "VORBIS")
    (tmp_path / "a").write_bytes(link + other[: len(other) // 2])
    heard = Heard(tmp_path / "a")
    assert heard.note is not None and "truncated: breaks off after" in heard.note
    assert 6 < heard.seconds < 31
    assert heard.pitches(3.8, 4.3, 6) == [440, 880, 880]


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_link_whose_header_is_damaged_costs_itself_alone(tmp_path: Path, damaged: int) -> None:
    links = [sndfile(tone(pitch, 44_100, 2, 2), 44_100, "OGG", "VORBIS") for pitch in (440, 880, 1320)]
    links[damaged][40:2_000] = bytes(1_960)
    (tmp_path / "a").write_bytes(b"".join(links))
    heard = Heard(tmp_path / "a")
    assert heard.note is not None and ("damaged" in heard.note or "breaks off" in heard.note)
    left = [pitch for index, pitch in enumerate((440, 880, 1320)) if index != damaged]
    assert heard.seconds == pytest.approx(4, abs=0.1)
    assert heard.pitches(0.5, 1.5, 2.5, 3.5) == [left[0]] * 2 + [left[1]] * 2


def test_other_things_between_links(tmp_path: Path) -> None:
    link = sndfile(tone(440, 44_100, 2, 2), 44_100, "OGG", "VORBIS")
    other = sndfile(tone(880, 48_000, 1, 2), 48_000, "OGG", "VORBIS")
    (tmp_path / "a").write_bytes(link + b"<html>" * 20_000 + other)
    heard = Heard(tmp_path / "a")
    assert heard.seconds == pytest.approx(4, abs=0.05)
    assert heard.pitches(1.8, 2.3) == [440, 880]


# Of which Vorbis makes several pages.
HISS = np.random.default_rng(0).uniform(-0.5, 0.5, (88_200, 1))


def headers_again(data: bytes) -> bytes:
    """A Vorbis file whose three headers come once more where its sound begins, as a tag editor left them."""
    at, lacing, packets = 0, b"", b""
    for _ in range(3):  # two pages of headers, one of sound
        page, body = at, at + 27 + data[at + 26]
        lacing += data[page + 27 : body]
        at = body + sum(data[page + 27 : body])
        packets += data[body:at]
    again = bytearray(data[page : page + 22] + bytes(4) + bytes([len(lacing)]) + lacing + packets)
    checksum = 0
    for byte in again:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = checksum << 1 ^ (0x104C11DB7 if checksum >> 31 else 0)
    again[22:26] = struct.pack("<I", checksum)
    return data[:page] + again + data[at:]


def test_headers_that_come_again_are_no_sound(tmp_path: Path) -> None:
    plain = bytes(sndfile(HISS, 44_100, "OGG", "VORBIS"))
    again = headers_again(plain)
    half = len(again) // 2
    hole = again[:half] + bytes(6_000) + again[half + 6_000 :]
    for name, data in {"plain": plain, "again": again, "cut": again[: half * 4 // 3], "hole": hole}.items():
        (tmp_path / name).write_bytes(data)
    heard, expected = Heard(tmp_path / "again"), Heard(tmp_path / "plain")
    assert heard.note is None
    assert (heard.encoding.codec, heard.rate) == ("vorbis", 44_100)
    np.testing.assert_allclose(heard.signal, expected.signal, atol=1e-5)
    cut = Heard(tmp_path / "cut")
    assert cut.note is not None and "truncated: breaks off after" in cut.note
    np.testing.assert_allclose(cut.signal, expected.signal[: len(cut.signal)], atol=1e-5)
    assert "of 2.0 s decoded" in str(Heard(tmp_path / "hole").note)


def test_ogg_in_the_place_of_samples(tmp_path: Path) -> None:
    ogg = bytes(sndfile(HISS, 44_100, "OGG", "VORBIS"))
    head = struct.pack("<4sIHHIIHHH", b"fmt ", 18, 0x674F, 2, 44_100, 16_000, 1, 16, 0)
    chunks = b"WAVE" + head + struct.pack("<4sI", b"data", len(ogg)) + ogg
    wav = struct.pack("<4sI", b"RIFF", len(chunks)) + chunks
    for name, data in {"ogg": ogg, "wav": wav, "cut": wav[: len(wav) * 2 // 3]}.items():
        (tmp_path / name).write_bytes(data)
    heard, expected = Heard(tmp_path / "wav"), Heard(tmp_path / "ogg")
    assert heard.note is None
    assert heard.encoding.codec == "vorbis"
    np.testing.assert_array_equal(heard.signal, expected.signal)
    cut = Heard(tmp_path / "cut")
    assert cut.note is not None and "truncated" in cut.note
    np.testing.assert_array_equal(cut.signal, expected.signal[: len(cut.signal)])


@pytest.mark.parametrize("second", [(48_000, 1), (44_100, 1), (22_050, 2), (32_000, 2)])
@pytest.mark.parametrize("container", ["mp3", "adts", "ac3", "flac"])
def test_joined_files_of_other_rates_and_channels_are_heard_whole(
    tmp_path: Path, container: str, second: tuple[int, int]
) -> None:
    if container == "ac3" and second[0] == 22_050:
        pytest.skip("AC-3 has no such rate")
    codec = {"mp3": "libmp3lame", "adts": "aac"}.get(container, container)
    rate, channels = second
    first = pyav(tmp_path / "a", container, (codec, tone(440, 44_100, 2, 2), 44_100))
    (tmp_path / "b").write_bytes(first + pyav(tmp_path / "a", container, (codec, tone(880, rate, channels, 2), rate)))
    heard = Heard(tmp_path / "b")
    assert heard.note is None
    assert heard.rate == 44_100
    assert heard.seconds == pytest.approx(4, abs=0.2)
    assert heard.pitches(0.3, 1.7, 2.5, 3.5) == [440, 440, 880, 880]
