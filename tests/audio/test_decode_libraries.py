"""What libsndfile and FFmpeg are known to get wrong or to say aloud, and rarer formats under the suffixes they have."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from poolembed.audio.decode import open_audio
from poolembed.errors import AudioError
from tests.audio.sounds import Heard, pyav, sndfile, tone

ENCODED = Path(__file__).parent / "encoded"
RATE = 44_100


def mp3_without_table(seconds: float) -> bytes:
    """A variable bit rate, of which nothing in the file says how long it lasts."""
    quiet = 0.001 * np.random.default_rng(0).normal(size=(int(seconds * RATE / 2), 1))
    loud = tone(440, RATE, seconds=seconds / 2) + 50 * quiet
    buffer = io.BytesIO()
    soundfile.write(
        buffer, np.concatenate([quiet, loud]), RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5
    )
    data = buffer.getvalue()
    first = data.index(b"\xff\xfb")
    assert b"Xing" in data[first : first + 200]
    return data[data.index(data[first : first + 2], first + 4) :]


def test_mp3_of_variable_bit_rate_without_a_table_is_read_whole(tmp_path: Path) -> None:
    # libsndfile 1.2.2 reads a part of it, or its last block twice.
    (tmp_path / "a.mp3").write_bytes(mp3_without_table(60))
    heard = Heard(tmp_path / "a.mp3")
    assert heard.note is None
    assert heard.seconds == pytest.approx(60, abs=0.1)
    assert heard.pitches(29, 31, 59) == [heard.pitches(29)[0], 440, 440]
    assert np.sqrt(np.mean(heard.signal[: 29 * RATE] ** 2)) < 0.01


def test_flac_without_a_length_in_blocks(tmp_path: Path) -> None:
    # soundfile seeks behind each block, for which libFLAC has to know the length.
    song = np.random.default_rng(0).uniform(-0.5, 0.5, (200_000, 2))
    flac = sndfile(song, RATE, "FLAC", "PCM_16")
    flac[21] &= 0xF0
    flac[22:26] = bytes(4)
    (tmp_path / "a").write_bytes(flac)
    heard = Heard(tmp_path / "a")
    assert (len(heard.signal), heard.note) == (200_000, None)
    np.testing.assert_allclose(heard.signal, song.mean(axis=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("count", [44_100, 4_096, 100, 1])
def test_the_last_samples_of_alac_in_caf(tmp_path: Path, count: int) -> None:
    # FFmpeg leaves the last packet out: 956 samples of 44 100.
    song = np.round(np.random.default_rng(0).uniform(0, 0.5, (count, 2)) * 32_768) / 32_768  # of one sign: in phase
    (tmp_path / "a").write_bytes(sndfile(song, RATE, "CAF", "ALAC_16"))
    np.testing.assert_array_equal(Heard(tmp_path / "a").signal, song.mean(axis=1).astype(np.float32))


def test_mp3_in_a_wav_is_decoded_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # libsndfile reads it too, by a decoder that writes to stderr.
    data = pyav(tmp_path / "a", "wav", ("libmp3lame", tone(440, RATE, 2, 3), RATE))
    heard = Heard(tmp_path / "a")
    assert heard.pitches(0.5, 2.5) == [440, 440]
    assert (heard.encoding.codec, heard.note) == ("mp3", None)
    data[-20_000:-10_000] = np.random.default_rng(0).bytes(10_000)
    (tmp_path / "a").write_bytes(data)
    assert Heard(tmp_path / "a").pitches(0.5) == [440]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["mp3", "ogg", "flac", "wav", "m4a", "ac3", "dts"])
def test_damage_of_any_kind_is_stepped_over_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    song = tone(440, 48_000, 2, 2)
    data = {
        "mp3": lambda: sndfile(song, 48_000, "MP3"),
        "ogg": lambda: sndfile(song, 48_000, "OGG"),
        "flac": lambda: sndfile(song, 48_000, "FLAC"),
        "wav": lambda: sndfile(song, 48_000, "WAV"),
        "m4a": lambda: pyav(tmp_path / "a", "ipod", ("aac", song, 48_000)),
        "ac3": lambda: pyav(tmp_path / "a", "ac3", ("ac3", song, 48_000)),
        "dts": lambda: bytearray((ENCODED / "tone.dts").read_bytes()),
    }[kind]()
    random = np.random.default_rng(0)
    for _ in range(12):
        damaged = bytearray(data)
        for at in random.integers(0, len(data) - 500, 3):
            damaged[at : at + 500] = random.bytes(500)
        for content in (damaged, damaged[: len(data) // 2], damaged[len(data) // 2 :], b"ID3" + damaged):
            (tmp_path / "a").write_bytes(content)
            try:
                with open_audio(str(tmp_path / "a")) as stream:
                    for _block in stream.blocks():
                        pass
            except AudioError:
                pass
    assert capfd.readouterr() == ("", "")


# By content, whatever the suffix.


def sphere(samples: NDArray[np.float64]) -> bytes:
    """NIST SPHERE, as speech corpora have it."""
    head = "NIST_1A\n   1024\n" + "".join(
        f"{name} {value}\n"
        for name, value in (
            ("sample_count -i", len(samples)), ("sample_n_bytes -i", 2), ("channel_count -i", 1),
            ("sample_byte_format -s2", "01"), ("sample_rate -i", 16_000), ("sample_coding -s3", "pcm"),
        )
    ) + "end_head\n"  # fmt: skip
    return head.encode().ljust(1024) + np.round(samples * 32_767).astype("<i2").tobytes()


def gsm() -> bytes:
    """Frames of GSM 06.10 as they are in a .gsm, out of a WAV, where two are packed into one."""
    wav = sndfile(tone(440, 8_000, seconds=2), 8_000, "WAV", "GSM610")
    data = wav[wav.index(b"data") + 8 :]
    frames = b""
    sizes = [6, 6, 5, 5, 4, 4, 3, 3] + [7, 2, 2, 6, *[3] * 13] * 4
    for at in range(0, len(data) - 64, 65):
        bits = np.unpackbits(np.frombuffer(data[at : at + 65], np.uint8), bitorder="little")[: 2 * 260]
        for half in (bits[:260], bits[260:]):
            fields = np.split(half, np.cumsum(sizes)[:-1])
            frames += np.packbits(np.concatenate([[1, 1, 0, 1], *[field[::-1] for field in fields]])).tobytes()
    return frames


def amr_wb() -> bytes:
    """AMR-WB: a header, and frames of the lowest rate of which every bit is 0."""
    return b"#!AMR-WB\n" + (b"\x04" + bytes(17)) * 100


def sv_dts_hd() -> bytes:
    """The chunks that a .dtshd has around DTS."""
    core = (ENCODED / "tone.dts").read_bytes()
    return (
        b"DTSHDHDR" + struct.pack(">Q", 28) + bytes(28)
        + b"STRMDATA" + struct.pack(">Q", len(core)) + core
    )  # fmt: skip


@pytest.mark.parametrize("suffix", ["", ".mp3", ".wav"])
@pytest.mark.parametrize("name", ["amb", "sph", "gsm", "ec3", "rm", "mpc", "thd", "mlp", "dtshd", "dts"])
def test_rarer_formats(tmp_path: Path, name: str, suffix: str) -> None:
    song = tone(440, 16_000, seconds=2)
    slow, fast = tone(440, 8_000, seconds=2), tone(440, 48_000, 2, 2)
    contents: dict[str, Callable[[], bytes | bytearray]] = {
        "amb": lambda: sndfile(np.concatenate([tone(440, 48_000, seconds=2)] * 4, axis=1), 48_000, "WAVEX"),
        "sph": lambda: sphere(song[:, 0]),
        "gsm": gsm,
        "ec3": lambda: pyav(tmp_path / "a", "eac3", ("eac3", fast, 48_000)),
        "rm": lambda: pyav(tmp_path / "a", "rm", ("real_144", slow, 8_000)),
        "mpc": (ENCODED / "musepack.mpc").read_bytes,
        # FFmpeg recognises them from 0.6 s on.
        "thd": lambda: (ENCODED / "tone.thd").read_bytes() * 3,
        "mlp": lambda: (ENCODED / "tone.mlp").read_bytes() * 3,
        "dtshd": sv_dts_hd,
        "dts": (ENCODED / "tone.dts").read_bytes,
    }
    (tmp_path / f"b{suffix}").write_bytes(contents[name]())
    heard = Heard(tmp_path / f"b{suffix}")
    assert heard.note is None
    if name != "mpc":
        assert heard.pitches(heard.seconds / 2) == [440]
    else:
        assert heard.seconds == pytest.approx(0.25, abs=0.05)


def test_amr_wb(tmp_path: Path) -> None:
    (tmp_path / "a.awb").write_bytes(amr_wb())
    with open_audio(str(tmp_path / "a.awb")) as stream:
        assert sum(map(len, stream.blocks())) == 100 * 320
        assert (stream.sample_rate, stream.encoding.codec) == (16_000, "amr_wb")
