"""AC-3 and DTS where samples should be: they are decoded, and music that only looks like them is not."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from poolembed.audio._bitstream import find_bitstream
from tests.audio.sounds import Heard, pyav, sndfile, tone

DTS = (Path(__file__).parent / "encoded" / "tone.dts").read_bytes()
DTS_FRAME = 468  # bytes, of 512 samples
STORED = ["WAV", "W64", "AIFF", "RF64", "CAF", "AU", "FLAC"]

Words = NDArray[np.int16]


def dts_cd() -> Words:
    """``(n, 2)``: a frame of DTS in the first bytes of every 512 samples, zeros behind it; 4 s of 440 Hz."""
    frames = np.frombuffer(DTS, ">i2").reshape(-1, DTS_FRAME // 2).astype(np.int16)
    return np.pad(np.tile(frames, (10, 1)), ((0, 0), (0, 1024 - frames.shape[1]))).reshape(-1, 2)


def dts_cd_14() -> Words:
    """The same with 14 bits in each word, the sign extended, as most DTS-CDs have it."""
    bits = np.unpackbits(np.frombuffer(DTS, np.uint8).reshape(-1, DTS_FRAME), axis=1)
    bits = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 28))).reshape(len(bits), -1, 14)
    words = (bits * (1 << np.arange(13, -1, -1))).sum(axis=2)
    words = np.where(words >= 1 << 13, words - (1 << 14), words).astype(np.int16)
    return np.pad(np.tile(words, (10, 1)), ((0, 0), (0, 1024 - words.shape[1]))).reshape(-1, 2)


def spdif(frames: list[bytes], code: int, samples: int) -> Words:
    """``(n, 2)``: IEC 61937, each frame behind four words of preamble and in the place of so many samples."""
    bursts = []
    for frame in frames:
        words = np.frombuffer(frame + bytes(len(frame) % 2), ">u2")
        burst = np.concatenate([np.array([0xF872, 0x4E1F, code, len(frame) * 8], np.uint16), words.astype(np.uint16)])
        bursts.append(np.pad(burst, (0, 2 * samples - len(burst))))
    return np.concatenate(bursts).view(np.int16).reshape(-1, 2)


def spdif_ac3(tmp_path: Path) -> Words:
    """4 s of 440 Hz at 48 kHz."""
    pyav(tmp_path / "ac3", "ac3", ("ac3", tone(440, 48_000, 2, 4), 48_000))
    with av.open(str(tmp_path / "ac3")) as container:
        frames = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    return spdif(frames, 1, 1536)


def spdif_dts() -> Words:
    """4 s of 440 Hz at 44.1 kHz."""
    return spdif([DTS[at : at + DTS_FRAME] for at in range(0, len(DTS), DTS_FRAME)] * 10, 11, 512)


def words(kind: str, tmp_path: Path) -> tuple[Words, int, str]:
    """A disguised song, its rate in Hz and its codec."""
    if kind == "S/PDIF AC-3":
        return spdif_ac3(tmp_path), 48_000, "ac3"
    return {"DTS": dts_cd, "DTS 14": dts_cd_14, "S/PDIF DTS": spdif_dts}[kind](), 44_100, "dts"


KINDS = ["DTS", "DTS 14", "S/PDIF AC-3", "S/PDIF DTS"]


@pytest.mark.parametrize("container", STORED)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_decoded(tmp_path: Path, kind: str, container: str) -> None:
    samples, rate, codec = words(kind, tmp_path)
    (tmp_path / "a").write_bytes(sndfile(samples, rate, container, "PCM_16"))
    heard = Heard(tmp_path / "a")
    assert (heard.rate, heard.note) == (rate, None)
    assert heard.seconds == pytest.approx(4, abs=0.1)
    assert heard.pitches(0.25, 2, 3.75) == [440] * 3
    assert 0.05 < np.sqrt(np.mean(heard.signal**2)) < 0.5
    assert (heard.encoding.codec, heard.encoding.lossless) == (codec, False)


@pytest.mark.parametrize("subtype", ["PCM_24", "PCM_32", "FLOAT"])
def test_it_is_decoded_from_wider_samples(tmp_path: Path, subtype: str) -> None:
    (tmp_path / "a").write_bytes(sndfile(dts_cd() / 32_768, 44_100, "WAV", subtype))
    assert Heard(tmp_path / "a").pitches(0.5, 3) == [440, 440]


@pytest.mark.parametrize(("codec", "container"), [("alac", "ipod"), ("wavpack", "wv"), ("tta", "tta")])
def test_it_is_decoded_from_other_lossless_codecs(tmp_path: Path, codec: str, container: str) -> None:
    with av.open(str(tmp_path / "a"), "w", format=container) as out:
        stream = out.add_stream(codec, rate=44_100, layout="stereo")
        assert isinstance(stream, av.AudioStream)
        stream.format = "s16" if codec == "tta" else "s16p"
        samples = dts_cd()
        for start in range(0, len(samples), 4096):
            part = samples[start : start + 4096]
            planes = part.reshape(1, -1) if codec == "tta" else np.ascontiguousarray(part.T)
            frame = av.AudioFrame.from_ndarray(planes, format=stream.format.name, layout="stereo")
            frame.sample_rate, frame.pts = 44_100, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    heard = Heard(tmp_path / "a")
    assert heard.pitches(0.5, 3) == [440, 440]
    assert heard.note is None


@pytest.mark.parametrize("silence", [1, 777, 60_000, 65_536, 150_000])
@pytest.mark.parametrize("kind", KINDS)
def test_silence_in_front_of_it_stays(tmp_path: Path, kind: str, silence: int) -> None:
    samples, rate, _ = words(kind, tmp_path)
    (tmp_path / "a").write_bytes(sndfile(np.pad(samples, ((silence, 0), (0, 0))), rate, "WAV", "PCM_16"))
    heard = Heard(tmp_path / "a")
    assert heard.note is None
    seconds = silence / rate
    assert heard.seconds == pytest.approx(4 + seconds, abs=0.1)
    assert not heard.signal[:silence].any()
    assert heard.pitches(seconds + 0.25, seconds + 3.5) == [440, 440]
    # Within a frame, and what the first of them takes to begin.
    assert np.abs(heard.signal).argmax() - silence < 1.6 * rate
    assert np.flatnonzero(np.abs(heard.signal) > 0.02)[0] - silence == pytest.approx(0, abs=2048)


def test_it_is_truncated_as_the_samples_are(tmp_path: Path) -> None:
    data = sndfile(dts_cd(), 44_100, "WAV", "PCM_16")
    (tmp_path / "a").write_bytes(data[: len(data) // 2])
    heard = Heard(tmp_path / "a")
    assert heard.note is not None and "truncated: 2." in heard.note and "of 4." in heard.note
    assert heard.pitches(0.5, 1.5) == [440, 440]


# What is music after all.


def test_a_sync_word_here_and_there_is_music(tmp_path: Path) -> None:
    music = np.random.default_rng(0).integers(-9_000, 9_000, (100_000, 2)).astype(np.int16)
    sync = np.array([0xF872, 0x4E1F, 0x7FFE, 0x8001], np.uint16).view(np.int16).reshape(2, 2)
    # Three at one distance, and others at others.
    for at in (1_000, 3_000, 5_000, 5_700, 9_001, 20_000):
        music[at : at + 2] = sync
    (tmp_path / "a").write_bytes(sndfile(music, 44_100, "WAV", "PCM_16"))
    heard = Heard(tmp_path / "a")
    np.testing.assert_array_equal(heard.signal, music.astype(np.float32).mean(axis=1) / 32_768)
    assert heard.encoding.codec == "pcm_s16le"


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_noise_and_floats_are_music(channels: int) -> None:
    random = np.random.default_rng(0)
    block = random.integers(-32_768, 32_768, (65_536, channels)).astype(np.float32) / np.float32(32_768)
    assert find_bitstream([block.T]) is None
    block[10] = np.nan, *[np.inf] * (channels - 1)
    with np.errstate(all="raise"):
        assert find_bitstream([block.T]) is None


def test_sync_words_in_mono_or_in_floats_are_music() -> None:
    block = (dts_cd().astype(np.float32) / np.float32(32_768)).T
    assert find_bitstream([block]) == "dts"
    assert find_bitstream([block[:1]]) is None
    assert find_bitstream([block * np.float32(0.99)]) is None
