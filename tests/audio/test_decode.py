"""Files with nothing wrong with them: every format gives the mean of its channels."""

from __future__ import annotations

import gc
import io
import os
import threading
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from poolembed.audio._ffmpeg import FFmpegDecoder
from poolembed.audio.decode import open_audio
from poolembed.audio.find import find_audio
from poolembed.audio.mixing import Downmix

CLIPS = Path(__file__).parents[1] / "clips"
Signal = NDArray[np.float32]


def decode(path: str | os.PathLike[str]) -> tuple[Signal, int, str | None]:
    with open_audio(os.fsdecode(path)) as stream:
        blocks = list(stream.blocks())
        assert all(block.dtype == np.float32 and 0 < block.size < 131_072 for block in blocks)
        signal = np.concatenate(blocks)
        assert stream.samples == len(signal)
        return signal, stream.sample_rate, stream.note


def reference(path: Path) -> tuple[Signal, int]:
    """What libsndfile reads, all at once."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return samples.mean(axis=1), rate


def music(channels: int = 2, seconds: float = 3, rate: int = 44_100) -> NDArray[np.float64]:
    """``(n, channels)``, another chord in each channel."""
    time = np.arange(int(seconds * rate)) / rate
    chords = [sum(np.sin(2 * np.pi * f * (c + 2) * time) for f in (110, 165, 220)) for c in range(channels)]
    return np.stack(chords, axis=1) / 4


def write_av(path: Path, samples: NDArray[Any], rate: int, codec: str, container: str, **options: str) -> None:
    """Encode ``(n, channels)`` with PyAV: formats that libsndfile does not write."""
    layout = {1: "mono", 2: "stereo", 8: "7.1"}[samples.shape[1]]
    with av.open(str(path), "w", format=container, options=options) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        for start in range(0, len(samples), 4096):
            part = np.ascontiguousarray(samples[start : start + 4096].T.astype(np.float32))
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate = rate
            frame.pts = start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def likeness(a: Signal, b: Signal) -> float:
    """Cosine between two signals over their common length."""
    n = min(len(a), len(b))
    return float(a[:n] @ b[:n] / (np.linalg.norm(a[:n]) * np.linalg.norm(b[:n])))


@pytest.mark.parametrize("file", find_audio([CLIPS], on_error=lambda *_: None), ids=lambda file: file.key)
def test_clips_decode_without_a_note(file: Any) -> None:
    signal, rate, note = decode(file.path)
    assert note is None
    assert 0.5 < len(signal) / rate < 12
    assert 0.01 < np.abs(signal).max() < 2


def test_there_are_clips_in_six_formats() -> None:
    assert {path.suffix for path in CLIPS.rglob("*.*")} == {".flac", ".m4a", ".md", ".mp3", ".ogg", ".opus", ".wav"}


@pytest.mark.parametrize("clip", ["drums/tabla-stroke.flac", "ambient/piano.flac", "drums/industrial.wav"])
def test_lossless_clips_are_what_libsndfile_reads(clip: str) -> None:
    signal, rate, _ = decode(CLIPS / clip)
    expected, expected_rate = reference(CLIPS / clip)
    assert rate == expected_rate
    np.testing.assert_array_equal(signal, expected)


# Two decoders of one lossy format round differently; Opus leaves decoders the most freedom.
@pytest.mark.parametrize(
    ("clip", "tolerance"),
    [("guitar/chord.mp3", 1e-5), ("drums/tabla.ogg", 1e-5), ("ambient/moon.ogg", 1e-5), ("ambient/glass.opus", 0.05)],
)
def test_lossy_clips_are_what_libsndfile_reads(clip: str, tolerance: float) -> None:
    signal, rate, _ = decode(CLIPS / clip)
    expected, expected_rate = reference(CLIPS / clip)
    assert rate == expected_rate
    assert len(signal) == len(expected)  # the encoder's delay and padding are cut off alike
    np.testing.assert_allclose(signal, expected, rtol=0, atol=tolerance)
    assert likeness(signal, expected) > 0.999


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"),
     ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("W64", "PCM_16"),
     ("RF64", "PCM_16")],
)  # fmt: skip
def test_stored_samples(tmp_path: Path, container: str, subtype: str, channels: int) -> None:
    path = tmp_path / "song"
    soundfile.write(path, music(channels), 44_100, subtype, format=container)
    signal, rate, note = decode(path)
    assert (rate, note) == (44_100, None)
    # numpy.mean adds the channels up in another order
    np.testing.assert_allclose(signal, reference(path)[0], rtol=0, atol=2e-7)


@pytest.mark.parametrize("rate", [8_000, 11_025, 48_000, 96_000, 192_000])
def test_sample_rates(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", music(2, 1, rate), rate)
    signal, decoded_rate, _ = decode(tmp_path / "a.wav")
    assert (decoded_rate, len(signal)) == (rate, rate)


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_ffmpeg_gives_the_mean_of_the_channels_as_libsndfile_does(tmp_path: Path, channels: int) -> None:
    # With its own coefficients for a downmix FFmpeg would weight centre and surround channels differently.
    path = tmp_path / "a.flac"
    soundfile.write(path, music(channels), 44_100, "PCM_24")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        decoder, blocks = FFmpegDecoder(descriptor), []
        while (block := decoder.read()) is not None:
            blocks.append(block)
        decoder.close()
        assert decoder.read() is None
    finally:
        os.close(descriptor)
    np.testing.assert_array_equal(np.concatenate([*Downmix(44_100).blocks(blocks)]), decode(path)[0])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("name", "codec", "container", "rate", "least"),
    [("a.m4a", "aac", "ipod", 44_100, 0.999), ("a.aac", "aac", "adts", 44_100, -1),
     ("a.m4a", "alac", "ipod", 44_100, 1), ("a.mka", "aac", "matroska", 44_100, 0.999),
     ("a.webm", "libopus", "webm", 48_000, 0.99), ("a.ac3", "ac3", "ac3", 48_000, -1),
     ("a.tta", "tta", "tta", 44_100, 0.999), ("a.mp2", "mp2", "mp2", 44_100, -1)],
)  # fmt: skip
def test_what_only_ffmpeg_reads(
    tmp_path: Path, name: str, codec: str, container: str, rate: int, least: float, channels: int
) -> None:
    samples = music(channels, rate=rate)
    write_av(tmp_path / name, samples, rate, codec, container)
    signal, decoded_rate, note = decode(tmp_path / name)
    assert (decoded_rate, note) == (rate, None)
    assert abs(len(signal) - len(samples)) < 0.1 * rate
    # Where the container says how much of the beginning is the encoder's delay, it is cut off. Otherwise only the
    # loudness can be compared.
    expected = samples.mean(axis=1).astype(np.float32)
    assert likeness(signal, expected) > least - 1e-4
    assert np.sqrt(np.mean(signal**2)) == pytest.approx(np.sqrt(np.mean(expected**2)), rel=0.05)


def test_lossless_mp4_is_exact(tmp_path: Path) -> None:
    samples = np.round(music() * 32_768) / 32_768
    write_av(tmp_path / "a.m4a", samples, 44_100, "alac", "ipod")
    np.testing.assert_array_equal(decode(tmp_path / "a.m4a")[0], samples.mean(axis=1).astype(np.float32))


def test_mp2_which_the_graph_refuses(tmp_path: Path) -> None:
    write_av(tmp_path / "a.mp2", music(), 44_100, "mp2", "mp2")
    signal, _, note = decode(tmp_path / "a.mp2")
    assert note is None
    assert len(signal) == pytest.approx(3 * 44_100, abs=4 * 1152)


@pytest.mark.parametrize(
    ("clip", "suffix"),
    [("drums/tabla-stroke.flac", "mp3"), ("ambient/drone.m4a", "wav"), ("guitar/chord.mp3", "wav"),
     ("drums/industrial.wav", "mp3"), ("drums/tabla.ogg", "flac"), ("guitar/slide.opus", "au"),
     ("guitar/chord.mp3", "")],
)  # fmt: skip
def test_a_suffix_that_lies_is_not_believed(tmp_path: Path, clip: str, suffix: str) -> None:
    lying = tmp_path / f"song.{suffix}"
    lying.write_bytes((CLIPS / clip).read_bytes())
    np.testing.assert_array_equal(decode(lying)[0], decode(CLIPS / clip)[0])


@pytest.mark.parametrize(
    "name", [b"caf\xe9 \xff.bin", b"new\nline.bin", b"concat:a|b.bin", b"http:x", b"-i", b"%d.bin"]
)
@pytest.mark.parametrize("clip", ["drums/industrial.wav", "ambient/drone.m4a"])
def test_any_name_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes, clip: str) -> None:
    monkeypatch.chdir(tmp_path)
    with open(name, "wb") as file:  # noqa: PTH123
        file.write((CLIPS / clip).read_bytes())
    assert len(decode(os.fsdecode(name))[0]) > 10_000


def with_cover(clip: Path) -> bytes:
    """An ID3v2 tag with a picture of 300 kB and a text that is not UTF-8, then the clip."""
    picture = (
        b"APIC" + (300_000 + 13).to_bytes(4, "big") + b"\0\0\0image/png\0\3\0" + b"\x89PNG\r\n\x1a\n" + bytes(299_992)
    )
    text = b"TIT2\0\0\0\6\0\0\3caf\xe9!"
    size = len(picture) + len(text)
    length = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + length + text + picture + clip.read_bytes()


@pytest.mark.parametrize("clip", ["guitar/chord.mp3", "drums/tabla-stroke.flac"])
def test_tags_and_cover_art_are_skipped(tmp_path: Path, clip: str) -> None:
    (tmp_path / "a.mp3").write_bytes(with_cover(CLIPS / clip))
    signal, _, note = decode(tmp_path / "a.mp3")
    assert note is None
    np.testing.assert_array_equal(signal, decode(CLIPS / clip)[0])


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff"])
def test_one_sample(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, np.array([0.5]), 44_100)
    assert decode(tmp_path / name)[0].tolist() == [0.5]


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_F000])
def test_wav_written_to_a_pipe_is_not_truncated(tmp_path: Path, size: int) -> None:
    soundfile.write(tmp_path / "a.wav", music(), 44_100, "PCM_16")
    wav = bytearray((tmp_path / "a.wav").read_bytes())
    at = wav.index(b"data") + 4
    wav[4:8] = wav[at : at + 4] = size.to_bytes(4, "little")
    (tmp_path / "b.wav").write_bytes(wav)
    signal, _, note = decode(tmp_path / "b.wav")
    assert note is None
    np.testing.assert_array_equal(signal, decode(tmp_path / "a.wav")[0])


def test_flac_that_does_not_state_its_length(tmp_path: Path) -> None:
    flac = bytearray((CLIPS / "drums/tabla-stroke.flac").read_bytes())
    flac[21] &= 0xF0  # the length is the 36 bits after the sample rate, channels and sample width
    flac[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(flac)
    signal, _, note = decode(tmp_path / "a.flac")
    assert note is None
    np.testing.assert_array_equal(signal, decode(CLIPS / "drums/tabla-stroke.flac")[0])


def test_chained_ogg_is_one_song(tmp_path: Path) -> None:
    clip = CLIPS / "guitar/slide.opus"
    (tmp_path / "a.opus").write_bytes(clip.read_bytes() * 2)
    signal, rate, note = decode(tmp_path / "a.opus")
    assert note is None
    assert len(signal) == pytest.approx(2 * len(decode(clip)[0]), abs=0.05 * rate)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc/self/fd to count in")
@pytest.mark.parametrize("clip", ["drums/tabla-stroke.flac", "guitar/chord.mp3", "ambient/drone.m4a"])
def test_nothing_stays_open(clip: str, request: pytest.FixtureRequest) -> None:
    gc.collect()
    gc.disable()  # that waits for nothing
    request.addfinalizer(gc.enable)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        with open_audio(str(CLIPS / clip)) as stream:
            next(stream.blocks())  # and then abandoned
        stream.close()
        decode(CLIPS / clip)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_many_threads_decode_what_one_does() -> None:
    paths = [file.path for file in find_audio([CLIPS], on_error=lambda *_: None)]
    expected = {path: decode(path)[0] for path in paths}
    wrong: list[str] = []

    def work(order: list[str]) -> None:
        wrong.extend(path for path in order if not np.array_equal(decode(path)[0], expected[path]))

    threads = [threading.Thread(target=work, args=(paths[i:] + paths[:i],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_decoding_says_nothing_on_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mp3 = bytearray((CLIPS / "guitar/chord.mp3").read_bytes())
    mp3[20_000:22_000] = bytes(2_000)
    (tmp_path / "a.mp3").write_bytes(mp3)
    decode(tmp_path / "a.mp3")
    assert capfd.readouterr() == ("", "")


def test_reader_of_one_file_twice_gives_nothing_more() -> None:
    with open_audio(str(CLIPS / "drums/industrial.wav")) as stream:
        assert sum(map(len, stream.blocks())) == len(
            soundfile.read(io.BytesIO((CLIPS / "drums/industrial.wav").read_bytes()))[0]
        )
        assert not list(stream.blocks())
