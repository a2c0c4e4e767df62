"""Lengths that a file does not state, or states wrongly, and what lies behind its sound."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

import poolembed.audio.decode
from poolembed.audio._chunks import read_chunks
from poolembed.audio._promise import read_promise
from poolembed.audio._unfinished import missing_sizes
from poolembed.audio.decode import open_audio
from poolembed.audio.source import open_source
from poolembed.errors import AudioError
from tests.audio.sounds import Heard, pyav, sndfile, tone

RATE = 44_100
CHIRP = (0.5 * np.sin(np.arange(2 * RATE) ** 1.5 / 50)).reshape(-1, 2)  # nowhere alike, and the channels differ


def extensible(container: int, valid: int, samples: NDArray[np.float64]) -> bytearray:
    """A WAV of integers of so many bits, of which so many are valid, the others 0."""
    whole = np.round(samples * 2.0 ** (valid - 1)).astype(np.int64) << (container - valid)
    data = whole.astype("<i8").view(np.uint8).reshape(-1, 8)[:, : container // 8].tobytes()
    channels = samples.shape[1]
    align = channels * container // 8
    form = struct.pack("<HHIIHHHHI", 0xFFFE, channels, RATE, RATE * align, align, container, 22, valid, 3)
    form += struct.pack("<HHHHQ", 1, 0, 0, 0x10, 0x719B_3800_AA00_0080)
    return bytearray(
        b"RIFF" + struct.pack("<I", 60 + len(data)) + b"WAVEfmt " + struct.pack("<I", 40) + form
        + b"data" + struct.pack("<I", len(data)) + data
    )  # fmt: skip


def with_size(data: bytearray, name: bytes, offset: int, value: bytes) -> bytearray:
    """A file with another value so many bytes behind a chunk's name."""
    at = data.index(name) + offset
    return data[:at] + value + data[at + len(value) :]


def unfinished_wav(data: bytearray, size: int) -> bytearray:
    """As left by a writer that put this in place of the sizes."""
    value = struct.pack("<I", size)
    return with_size(with_size(data, b"RIFF", 4, value), b"data", 4, value)


def unfinished_rf64(data: bytearray, size: int) -> bytearray:
    """The same in the 64 bits of an RF64."""
    return with_size(data, b"ds64", 8, struct.pack("<QQQ", size, size, size))


def plain(data: bytearray, valid: int) -> bytearray:
    """The same with code 1, and as its bits those that are valid."""
    return with_size(with_size(data, b"fmt ", 8, struct.pack("<H", 1)), b"fmt ", 22, struct.pack("<H", valid))


@pytest.mark.parametrize("is_plain", [False, True], ids=["extensible", "plain"])
@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_F000])
@pytest.mark.parametrize(
    ("container", "valid"), [(32, 24), (32, 20), (32, 12), (32, 32), (24, 20), (24, 24), (16, 12), (16, 16)]
)
def test_wav_of_unknown_length_is_what_it_is_with_it(
    tmp_path: Path, container: int, valid: int, size: int, is_plain: bool
) -> None:
    data = extensible(container, valid, CHIRP)
    data = plain(data, valid) if is_plain else data
    (tmp_path / "whole").write_bytes(data)
    (tmp_path / "a").write_bytes(unfinished_wav(data, size))
    whole, heard = Heard(tmp_path / "whole"), Heard(tmp_path / "a")
    np.testing.assert_allclose(whole.signal, CHIRP.mean(axis=1), rtol=0, atol=max(2.0 ** (1 - valid), 1e-7))
    np.testing.assert_array_equal(heard.signal, whole.signal)
    assert (heard.rate, heard.note, whole.note) == (RATE, None, None)


@pytest.mark.parametrize("size", [0, (1 << 64) - 1, (1 << 63) - 1])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("kind", [b"RF64", b"BW64"])
def test_rf64_of_unknown_length(tmp_path: Path, kind: bytes, subtype: str, size: int) -> None:
    data = sndfile(CHIRP, RATE, "RF64", subtype)
    (tmp_path / "whole").write_bytes(data)
    (tmp_path / "a").write_bytes(unfinished_rf64(data, size).replace(b"RF64", kind, 1))
    heard = Heard(tmp_path / "a")
    np.testing.assert_array_equal(heard.signal, Heard(tmp_path / "whole").signal)
    assert heard.note is None


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU"])
def test_writer_that_was_killed(tmp_path: Path, container: str, subtype: str) -> None:
    with soundfile.SoundFile(tmp_path / "whole", "w", RATE, 2, subtype, format=container) as file:
        file.write(CHIRP)
        file.flush()
        (tmp_path / "a").write_bytes((tmp_path / "whole").read_bytes())
    heard = Heard(tmp_path / "a")
    np.testing.assert_array_equal(heard.signal, Heard(tmp_path / "whole").signal)
    assert heard.note is None


def test_length_in_a_header_that_was_never_filled_in(tmp_path: Path) -> None:
    cases: dict[str, bytearray] = {}
    w64, caf, au = (sndfile(CHIRP, RATE, kind, "PCM_16") for kind in ("W64", "CAF", "AU"))
    for size in (0, 24, -1, (1 << 63) - 1):
        cases[f"w64 {size}"] = with_size(w64, b"data", 16, struct.pack("<q", size))
    for size in (0, 4, -1):
        cases[f"caf {size}"] = with_size(caf, b"data", 4, struct.pack(">q", size))
    for size in (0, 0xFFFF_FFFF):
        cases[f"au {size}"] = with_size(au, b".snd", 8, struct.pack(">I", size))
    aiff = sndfile(CHIRP, RATE, "AIFF", "PCM_24")
    # The last is what sox writes to a pipe.
    for size, count in ((0, 0), (8, 0), (0xFFFF_FFFF, 0xFFFF_FFFF), (0x7F00_0008, 0x7F00_0000 // 6)):
        cases[f"aiff {size}"] = with_size(
            with_size(aiff, b"SSND", 4, struct.pack(">I", size)), b"COMM", 10, struct.pack(">I", count)
        )
    (tmp_path / "whole").write_bytes(aiff)
    fine = Heard(tmp_path / "whole").signal
    for name, data in cases.items():
        (tmp_path / "a").write_bytes(data)
        heard = Heard(tmp_path / "a")
        assert heard.note is None, name
        np.testing.assert_allclose(heard.signal, fine, rtol=0, atol=4e-5, err_msg=name)


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU"])
def test_tags_of_a_file_without_samples_are_no_samples(tmp_path: Path, container: str) -> None:
    with soundfile.SoundFile(tmp_path / "a", "w", RATE, 2, "PCM_16", format=container) as file:
        if container not in ("W64", "AU"):
            file.title = "nothing at all, and a title that is long enough to be taken for samples"
    with pytest.raises(AudioError, match="no audio samples in it"):
        Heard(tmp_path / "a")


@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF", "CAF", "AU"])
def test_the_end_of_it_is_missed(tmp_path: Path, container: str) -> None:
    data = sndfile(CHIRP, RATE, container, "PCM_16")
    (tmp_path / "a").write_bytes(data[: len(data) // 2])
    assert Heard(tmp_path / "a").note == "truncated: 0.5 s of 1.0 s decoded"


def test_wav_beyond_four_gigabytes(tmp_path: Path) -> None:
    # The headers alone: the file has a hole in place of its samples.
    data = unfinished_wav(extensible(16, 16, CHIRP[:0]), 0xFFFF_FFFF)
    with (tmp_path / "a").open("wb") as out:
        out.write(data)
        out.truncate(5 << 30)
    with (tmp_path / "a").open("rb") as file:
        chunks = read_chunks(file)
        assert chunks is not None and chunks.samples is not None and chunks.misfit is None
        assert read_promise(file, chunks).samples is None
    for size in (0, (1 << 64) - 1):
        rf64 = unfinished_rf64(sndfile(CHIRP[:0], RATE, "RF64", "PCM_16"), size)
        with (tmp_path / "b").open("wb") as out:
            out.write(rf64)
            out.truncate(5 << 30)
        with (tmp_path / "b").open("rb") as file:
            patches = missing_sizes(file, read_chunks(file))
        left = (5 << 30) - rf64.index(b"data") - 8
        assert struct.pack("<QQQ", (5 << 30) - 8, left, left // 4) in patches.values()


# Behind the sound.


def ape_tag() -> bytes:
    """An APEv2 tag of one item, with header and footer."""
    item = struct.pack("<II", 8, 0) + b"REPLAYGAIN_TRACK_GAIN\0-3.10 dB"
    ends = [b"APETAGEX" + struct.pack("<IIIIQ", 2000, len(item) + 32, 1, flags, 0) for flags in (0xA000_0000, 1 << 31)]
    return ends[0] + item + ends[1]


ID3V1 = b"TAG" + b"Title".ljust(30, b"\0") + b"Artist".ljust(30, b"\0") + bytes(65)
BEHIND = {
    "id3v1": ID3V1,
    "ape": ape_tag(),
    "both": ape_tag() + ID3V1,
    "zeros": bytes(5_000),
    "text": b"<html>404 not found</html>\n" * 100,
}


def bare_mp3(path: Path) -> bytearray:
    """An MP3 without tag and table."""
    data = pyav(path, "mp3", ("libmp3lame", tone(440, RATE, 2, 3), RATE))
    table = max(data.find(b"Info"), data.find(b"Xing"))
    first = data.rindex(b"\xff\xfb", 0, table)
    return data[data.index(data[first : first + 2], first + 4) :]


WRITERS: dict[str, Callable[[Path], bytearray]] = {
    "flac": lambda path: sndfile(tone(440, RATE, 2, 3), RATE, "FLAC"),
    "mp3": lambda path: pyav(path, "mp3", ("libmp3lame", tone(440, RATE, 2, 3), RATE)),
    "bare mp3": bare_mp3,
    "mp2": lambda path: pyav(path, "mp2", ("mp2", tone(440, RATE, 2, 3), RATE)),
    "ac3": lambda path: pyav(path, "ac3", ("ac3", tone(440, 48_000, 2, 3), 48_000)),
    "ac3 at 44.1 kHz": lambda path: pyav(path, "ac3", ("ac3", tone(440, RATE, 2, 3), RATE)),
    "eac3": lambda path: pyav(path, "eac3", ("eac3", tone(440, 48_000, 2, 3), 48_000)),
    "aac": lambda path: pyav(path, "adts", ("aac", tone(440, RATE, 2, 3), RATE)),
    "vorbis": lambda path: sndfile(tone(440, RATE, 2, 3), RATE, "OGG", "VORBIS"),
    "wav": lambda path: sndfile(tone(440, RATE, 2, 3), RATE, "WAV"),
    "aiff": lambda path: sndfile(tone(440, RATE, 2, 3), RATE, "AIFF"),
    "tta": lambda path: pyav(path, "tta", ("tta", tone(440, RATE, 2, 3), RATE)),
    "wavpack": lambda path: pyav(path, "wv", ("wavpack", tone(440, RATE, 2, 3), RATE)),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_lies_behind_the_sound_is_no_damage(tmp_path: Path, writer: str) -> None:
    data = WRITERS[writer](tmp_path / "a")
    (tmp_path / "whole").write_bytes(data)
    whole = Heard(tmp_path / "whole")
    assert whole.note is None
    for name, behind in BEHIND.items():
        (tmp_path / "a").write_bytes(data + behind)
        heard = Heard(tmp_path / "a")
        assert heard.note is None, name
        # Of an MP3 FFmpeg then keeps some of the padding that the table says to cut off.
        assert 0 <= len(heard.signal) - len(whole.signal) <= (1152 if writer == "mp3" else 0), name
        np.testing.assert_array_equal(heard.signal[: len(whole.signal)], whole.signal, name)


@pytest.mark.parametrize("writer", ["flac", "mp3", "bare mp3", "mp2", "aac"])
def test_joined_songs_are_one_without_damage(tmp_path: Path, writer: str) -> None:
    data = WRITERS[writer](tmp_path / "a")
    for between in (b"", BEHIND["id3v1"], BEHIND["ape"], BEHIND["text"]):
        (tmp_path / "a").write_bytes(data + between + data)
        heard = Heard(tmp_path / "a")
        assert heard.note is None, between
        assert heard.seconds == pytest.approx(6, abs=0.2), between
        assert heard.pitches(0.5, 2.5, 3.5, 5.5) == [440] * 4, between


@pytest.mark.parametrize("behind", ["id3v1", "zeros", "text"])
@pytest.mark.parametrize("writer", ["flac", "bare mp3", "ac3", "aac"])
def test_damage_is_noted_whatever_lies_behind(tmp_path: Path, writer: str, behind: str) -> None:
    data = WRITERS[writer](tmp_path / "a")
    middle = len(data) // 2
    data[middle : middle + 3_000] = np.random.default_rng(0).bytes(3_000)
    (tmp_path / "a").write_bytes(data + BEHIND[behind])
    note = Heard(tmp_path / "a").note
    assert note is not None and "damaged" in note


# Sizes that cannot be.


def refuse(*_: object) -> None:
    raise AssertionError("FFmpeg is given the file")


@pytest.mark.parametrize("where", ["in front", "behind"])
@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF", "CAF"])
def test_chunk_larger_than_its_file_is_kept_from_ffmpeg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: str, where: str
) -> None:
    data = sndfile(CHIRP, RATE, container, "PCM_16")
    name, size = {
        "WAV": (b"LIST", struct.pack("<I", 1 << 20)),
        "RF64": (b"LIST", struct.pack("<I", 1 << 20)),
        "W64": (b"LIST\xf3\xac\xd3\x11\x8c\xd1\0\xc0\x4f\x8e\xdb\x8a", struct.pack("<q", 1 << 20)),
        "AIFF": (b"ANNO", struct.pack(">I", 1 << 20)),
        "CAF": (b"info", struct.pack(">q", 1 << 20)),
    }[container]
    samples = b"SSND" if container == "AIFF" else b"data"
    at = data.index(samples) if where == "in front" else len(data)
    damaged = data[:at] + name + size + b"INFO" + data[at:]
    path = tmp_path / "a"
    path.write_bytes(damaged)
    with path.open("rb") as file:
        chunks = read_chunks(file)
    assert chunks is not None and chunks.misfit is not None
    assert (chunks.misfit.name, chunks.misfit.start) == (name[:4], at + len(name) + len(size))
    if where == "behind":  # where libsndfile stumbles too, and FFmpeg is given what is in front of it
        heard = Heard(path)
        (tmp_path / "whole").write_bytes(data)
        np.testing.assert_array_equal(heard.signal, Heard(tmp_path / "whole").signal)
        assert heard.note is None
    else:
        monkeypatch.setattr(poolembed.audio.decode, "FFmpegDecoder", refuse)
        with pytest.raises(AudioError), open_audio(str(path)) as stream:
            [*stream.blocks()]


def test_chunk_larger_than_its_file_is_cut_off_for_ffmpeg(tmp_path: Path) -> None:
    # libsndfile does not read this one, so FFmpeg has to.
    data = pyav(tmp_path / "a", "wav", ("adpcm_yamaha", tone(440, RATE, 2, 2), RATE))
    whole = Heard(tmp_path / "a")
    (tmp_path / "b").write_bytes(data + b"LIST" + struct.pack("<I", 1 << 20) + b"INFO")
    heard = Heard(tmp_path / "b")
    np.testing.assert_array_equal(heard.signal, whole.signal)
    assert heard.note is None


def test_tags_of_an_avi_larger_than_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pyav(tmp_path / "a", "avi", ("libmp3lame", tone(440, RATE, 2, 2), RATE), picture=2)
    assert Heard(tmp_path / "a").pitches(1) == [440]
    monkeypatch.setattr(poolembed.audio.decode, "FFmpegDecoder", refuse)
    (tmp_path / "a").write_bytes(data + b"LIST" + struct.pack("<I", 1 << 20) + b"INFO")
    with pytest.raises(AudioError, match="larger than the file"):
        Heard(tmp_path / "a")


@pytest.mark.parametrize("container", ["WAV", "AIFF", "CAF", "RF64", "W64"])
def test_chunks_of_ordinary_files_fit(container: str) -> None:
    for channels in (1, 2, 3):
        for count in (0, 1, 2, 3, 1_000):
            data = sndfile(np.zeros((count, channels)), RATE, container, "PCM_24")
            chunks = read_chunks(io.BytesIO(data))
            assert chunks is not None and chunks.misfit is None
            assert chunks.samples is not None
            # libsndfile counts the byte that pads an AIFF in.
            assert chunks.samples.size - count * channels * 3 - chunks.head in (0, container == "AIFF")


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (22, b"\0\0", "0 channels at 44100 Hz"),
        (22, b"\xff\xff", "[0-9]+ channels"),
        (24, b"\0\0\0\0", "not audio"),
        (24, b"\1\0\0\0", "1 Hz is not one of music"),
        (32, b"\0\0", None),
        (34, b"\0\0", "in a codec"),
        (34, b"\xff\xff", "in a codec"),
    ],
)
def test_headers_that_state_nonsense(tmp_path: Path, offset: int, value: bytes, message: str | None) -> None:
    data = sndfile(CHIRP, RATE, "WAV", "PCM_16")
    data[offset : offset + len(value)] = value
    (tmp_path / "a").write_bytes(data)
    if message is None:
        assert Heard(tmp_path / "a").note is None
        return
    with pytest.raises(AudioError, match=message), open_source(str(tmp_path / "a"), 16_000) as source:
        [*source.blocks()]


@pytest.mark.parametrize("container", ["WAV", "AIFF", "CAF", "AU", "W64"])
@pytest.mark.parametrize("subtype", ["ULAW", "ALAW"])
def test_half_of_it_is_truncated_in_a_codec_of_bytes_too(tmp_path: Path, container: str, subtype: str) -> None:
    data = sndfile(tone(440, RATE, 2, 4), RATE, container, subtype)
    (tmp_path / "a").write_bytes(data)
    assert Heard(tmp_path / "a").note is None
    (tmp_path / "a").write_bytes(data[: len(data) // 2])
    assert Heard(tmp_path / "a").note == "truncated: 2.0 s of 4.0 s decoded"


@pytest.mark.parametrize("container", ["WAV", "W64"])
@pytest.mark.parametrize("subtype", ["MS_ADPCM", "IMA_ADPCM"])
def test_half_of_it_breaks_off_in_a_codec_of_blocks(tmp_path: Path, container: str, subtype: str) -> None:
    data = sndfile(tone(440, RATE, 2, 4), RATE, container, subtype)
    (tmp_path / "a").write_bytes(data)
    assert Heard(tmp_path / "a").note is None
    (tmp_path / "a").write_bytes(data[: len(data) // 2])
    assert Heard(tmp_path / "a").note == "truncated: breaks off after 2.0 s"
