"""Files with something wrong with them: what decodes is kept, and what does not is said."""

from __future__ import annotations

import io
import os
import resource
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from poolembed.audio.decode import open_audio
from poolembed.errors import AudioError
from tests.conftest import noise
from tests.encoders import dsf
from tests.waiting import PATIENCE

CLIPS = Path(__file__).parents[1] / "clips"
ENCODED = Path(__file__).parent / "encoded"
Signal = NDArray[np.float32]
Make = Callable[[bytes | bytearray], Path]


def decode(path: str | os.PathLike[str]) -> tuple[Signal, int, str | None]:
    with open_audio(os.fsdecode(path)) as stream:
        signal = np.concatenate([*stream.blocks()])
        return signal, stream.sample_rate, stream.note


def reason(path: str | os.PathLike[str]) -> str:
    with pytest.raises(AudioError) as caught:
        decode(path)
    message = str(caught.value)
    assert os.fsdecode(path) not in message
    assert "Errno" not in message and "Traceback" not in message
    assert caught.value.__cause__ is None
    return message


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(content: bytes | bytearray) -> Path:
        path = tmp_path / "song.bin"
        path.write_bytes(content)
        return path

    return write


def clip(name: str) -> bytearray:
    return bytearray((CLIPS / name).read_bytes())


def noise_file(path: Path, subtype: str, container: str, seconds: int = 4) -> bytearray:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (seconds * 8_000, 2))
    soundfile.write(path, samples, 8_000, subtype, format=container)
    return bytearray(path.read_bytes())


# The end is missing.


@pytest.mark.parametrize(("container", "subtype"), [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAVEX", "PCM_24"),
                                                    ("RF64", "PCM_16"), ("AIFF", "PCM_16")])  # fmt: skip
def test_truncated_samples(make: Make, tmp_path: Path, container: str, subtype: str) -> None:
    whole = noise_file(tmp_path / "whole", subtype, container)
    signal, _, note = decode(make(whole[: len(whole) // 2]))
    assert note == "truncated: 2.0 s of 4.0 s decoded"
    np.testing.assert_array_equal(signal, decode(tmp_path / "whole")[0][: len(signal)])


def test_a_single_missing_sample_is_noticed(make: Make, tmp_path: Path) -> None:
    whole = noise_file(tmp_path / "whole", "PCM_16", "WAV")
    assert decode(make(whole[:-4]))[2] == "truncated: 4.0 s of 4.0 s decoded"


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("drums/tabla-stroke.flac", "truncated: 1.2 s of 2.4 s decoded"),
        ("guitar/chord.mp3", "truncated: 5.0 s of 10.0 s decoded"),
        ("drums/tabla.ogg", "truncated: breaks off after 5.3 s"),
        ("guitar/slide.opus", "truncated: breaks off after 2.1 s"),
    ],
)
def test_truncated_clip_keeps_its_good_part(make: Make, name: str, note: str) -> None:
    whole, rate, _ = decode(CLIPS / name)
    data = clip(name)
    signal, _, said = decode(make(data[: len(data) // 2]))
    assert said is not None
    words, number = note.split(": ")
    assert words in said
    # A page of Opus is a second long.
    assert len(signal) / rate == pytest.approx(len(whole) / rate / 2, rel=0.15, abs=1.2)
    # The very last part may be concealment.
    sound = len(signal) - 5_000
    np.testing.assert_array_equal(signal[:sound], whole[:sound])
    assert ("breaks off" in said) == ("breaks off" in number)


def test_truncated_dsf(make: Make) -> None:
    data = dsf(0.5)
    assert decode(make(data))[2] is None
    assert decode(make(data[: len(data) // 2]))[2] == "truncated: 0.3 s of 0.5 s decoded"


def test_truncated_musepack(make: Make) -> None:
    data = (ENCODED / "musepack.mpc").read_bytes()
    whole, _, note = decode(make(data))
    assert (len(whole), note) == (11_520, None)
    # FFmpeg looks for a table at the end first, and finds nothing after that where there is none.
    assert reason(make(data[: len(data) // 2])) == "truncated: nothing of 0.2 s can be decoded"
    table = data.index(b"SO")
    data = data[:table] + b"XX" + data[table + 2 :]
    signal, _, note = decode(make(data[: len(data) // 2]))
    assert note == "truncated: 0.1 s of 0.2 s decoded"
    sound = len(signal) - 1_152  # the last frame is a part of one
    np.testing.assert_array_equal(signal[:sound], whole[:sound])


def faststart(name: str, path: Path) -> bytearray:
    """A clip remuxed with its header in front, so that it survives being cut."""
    with av.open(str(CLIPS / name)) as source, av.open(
        str(path), "w", format="ipod", options={"movflags": "+faststart"}
    ) as out:  # fmt: skip
        stream = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    return bytearray(path.read_bytes())


def test_truncated_m4a(make: Make, tmp_path: Path) -> None:
    data = faststart("ambient/drone.m4a", tmp_path / "whole")
    assert decode(make(data))[2] is None
    signal, rate, note = decode(make(data[: len(data) // 2]))
    assert note is not None
    assert "truncated: " in note and "of 4.4 s decoded" in note
    assert 1.5 < len(signal) / rate < 3


def test_m4a_without_its_header(make: Make) -> None:
    data = clip("ambient/drone.m4a")
    assert "header is damaged or missing" in reason(make(data[: len(data) // 2]))


# The middle is damaged.


@pytest.mark.parametrize("damage", ["noise", "zeros"])
@pytest.mark.parametrize(
    "name",
    ["drums/tabla-stroke.flac", "guitar/chord.mp3", "drums/tabla.ogg", "ambient/drone.m4a", "ambient/glass.opus"],
)
def test_damage_in_the_middle_costs_only_the_middle(make: Make, name: str, damage: str) -> None:
    whole, rate, _ = decode(CLIPS / name)
    data = clip(name)
    middle = slice(len(data) // 2, len(data) // 2 + 1_500)
    data[middle] = bytes(1_500) if damage == "zeros" else np.random.default_rng(0).bytes(1_500)
    signal, _, note = decode(make(data))
    assert len(whole) - len(signal) < 1.1 * rate
    np.testing.assert_array_equal(signal[: len(whole) // 4], whole[: len(whole) // 4])
    assert np.isfinite(signal).all()
    # AAC, Vorbis and Opus have no checksum of their own, and may take noise for music of the same length.
    lost = (len(whole) - len(signal)) / rate
    assert note is not None or (lost < 0.3 and not name.endswith(("flac", "mp3")))


def test_damaged_flac_goes_on_where_libsndfile_stops(make: Make) -> None:
    data = clip("drums/tabla-stroke.flac")
    data[len(data) // 2 : len(data) // 2 + 100] = bytes(100)
    signal, _, note = decode(make(data))
    whole = decode(CLIPS / "drums/tabla-stroke.flac")[0]
    assert note is not None and "damaged" in note
    # One block of the FLAC is lost; what comes before and behind it is not.
    assert 0 < len(whole) - len(signal) <= 4_608
    np.testing.assert_array_equal(signal[:45_000], whole[:45_000])
    np.testing.assert_array_equal(signal[-45_000:], whole[-45_000:])


def test_change_of_sample_rate_goes_on(make: Make) -> None:
    chord, later = clip("guitar/chord.mp3"), mono_mp3(22_050)
    signal, rate, note = decode(make(chord + later))
    assert (rate, note) == (44_100, None)
    assert len(signal) / rate == pytest.approx(13, abs=0.2)
    assert np.sqrt(np.mean(signal[-2 * rate : -rate] ** 2)) == pytest.approx(0.5 / 3**0.5, rel=0.1)


def mono_mp3(rate: int) -> bytes:
    """Three seconds of noise."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.random.default_rng(0).uniform(-0.5, 0.5, rate * 3), rate, format="MP3")
    return buffer.getvalue()


def test_change_of_channels_goes_on(make: Make) -> None:
    signal, rate, _ = decode(make(clip("guitar/chord.mp3") + mono_mp3(44_100)))
    assert len(signal) / rate == pytest.approx(13, abs=0.2)
    assert np.sqrt(np.mean(signal[-2 * rate : -rate] ** 2)) == pytest.approx(0.5 / 3**0.5, rel=0.1)


@pytest.mark.parametrize(
    "name", ["industrial.wav", "tabla.ogg", "breakbeat.mp3", "tabla-stroke.flac", "../ambient/drone.m4a"]
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_wrong_it_is_decoded_or_an_audio_error(make: Make, name: str, data: st.DataObject) -> None:
    content = clip(f"drums/{name}")[:30_000]
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.one_of(st.integers(0, 200), st.integers(0, len(content))))
        content[at : at + data.draw(st.sampled_from([0, 1, 4, 50]))] = data.draw(st.binary(max_size=8))
    try:
        signal, _, note = decode(make(content))
    except AudioError:
        return
    assert signal.size and np.isfinite(signal).all()
    assert note is None or note


# Not audio at all.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"hello, this is a shopping list\n" * 1000, "not audio"),
        (bytes(1 << 20), "not audio"),
        (np.random.default_rng(0).bytes(100_000), "not audio"),
        (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "not audio"),
        (b"ffconcat version 1.0\nfile 'a.mp3'\n", "not audio"),
        (b"RIFF\x24\0\0\0WAVE", "not audio"),
        (b"fLaC", "not audio"),
        (b"OggS", "not audio"),
        (b"ID3\3\0\0\x7f\x7f\x7f\x7f", "not audio"),
        (b"\xff", "not audio"),
    ],
)
@pytest.mark.parametrize("suffix", [".mp3", ".wav", ".au", ".m4a", ".txt"])
def test_not_audio(tmp_path: Path, content: bytes, message: str, suffix: str) -> None:
    path = tmp_path / f"song{suffix}"
    path.write_bytes(content)
    assert message in reason(path)


@pytest.mark.parametrize("container", ["WAV", "AIFF", "CAF"])
def test_no_samples(tmp_path: Path, container: str) -> None:
    soundfile.write(tmp_path / "a", np.zeros((0, 2)), 44_100, format=container)
    assert reason(tmp_path / "a") == "no audio samples in it"


def test_video_without_sound(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 64
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert reason(tmp_path / "a.mp4") == "no audio in it"


@pytest.mark.parametrize("tag", [b"drms", b"enca"])
def test_protected_m4a(make: Make, tag: bytes) -> None:
    assert "protected by DRM" in reason(make(clip("ambient/drone.m4a").replace(b"mp4a", tag, 1)))


# A header that lies.


def test_promise_of_two_thousand_million_samples_costs_no_memory(make: Make, tmp_path: Path) -> None:
    flac = clip("drums/tabla-stroke.flac")
    flac[21] |= 0x0F
    flac[22:26] = b"\xff" * 4
    wav = noise_file(tmp_path / "a.wav", "PCM_16", "WAV")
    at = wav.index(b"data") + 4
    wav[at : at + 4] = struct.pack("<I", 2**31 - 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert decode(make(flac))[2] == "truncated: 2.4 s of 1558264.8 s decoded"
    assert len(decode(make(wav))[0]) == 32_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_memory_does_not_grow_with_the_song(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.zeros(44_100 * 600), 44_100)  # ten minutes, 106 MB as float32
    with open_audio(str(tmp_path / "a.flac")) as stream:
        next(blocks := stream.blocks())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in blocks:
            pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB


# Samples that are not numbers.


def test_samples_that_are_not_finite_become_zero_and_are_counted(tmp_path: Path) -> None:
    samples = np.full((100_000, 2), 0.5)
    samples[10] = np.nan, 0.5
    samples[90_000] = np.inf, -np.inf
    samples[90_001] = 1e300, 0
    soundfile.write(tmp_path / "a.wav", samples, 44_100, "DOUBLE")
    signal, _, note = decode(tmp_path / "a.wav")
    assert note == "3 NaN or infinite samples taken as 0"
    assert np.flatnonzero(signal == 0).tolist() == [10, 90_000, 90_001]
    assert (np.delete(signal, [10, 90_000, 90_001]) == 0.5).all()


def test_no_finite_sample(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(100_000, np.nan), 44_100, "FLOAT")
    assert reason(tmp_path / "a.wav") == "every sample is NaN or infinite"


# Files that cannot be opened.


def test_missing_directory_and_impossible_names(tmp_path: Path) -> None:
    assert reason(tmp_path / "gone.mp3") == "cannot be opened: No such file or directory"
    assert reason(tmp_path) == "cannot be opened: it is a directory"
    assert reason("a\0b") == "cannot be opened: no file can have this name"


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # the superuser, who may run this, reads everything
    assert reason(tmp_path / "a.mp3") == "cannot be opened: Permission denied"


def test_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(reason(tmp_path / "pipe.wav")), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert said == ["cannot be opened: it is no regular file"]


@pytest.mark.parametrize("name", ["guitar/chord.mp3", "drums/tabla-stroke.flac"])
def test_file_that_is_deleted_meanwhile_is_still_read(make: Make, name: str) -> None:
    path = make(clip(name))
    with open_audio(str(path)) as stream:
        path.unlink()
        assert sum(map(len, stream.blocks())) == len(decode(CLIPS / name)[0])


@pytest.mark.parametrize("name", ["guitar/chord.mp3", "drums/tabla.ogg"])
def test_file_that_shrinks_meanwhile(make: Make, name: str) -> None:
    path = make(clip(name))
    with open_audio(str(path)) as stream:
        blocks = stream.blocks()
        next(blocks)
        os.truncate(path, 1_000)
        assert sum(map(len, blocks)) >= 0
    assert stream.note is None or stream.note


# A signalling NaN, on which the processor complains whatever is done with it; an infinity; the largest there is.
@pytest.mark.parametrize("bits", [0x7F800001, 0xFFBFFFFF, 0x7F800000, 0x7F7FFFFF, 0xFF7FFFFF])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_floats_that_are_none_are_counted_without_a_warning(
    tmp_path: Path, channels: int, subtype: str, bits: int
) -> None:
    samples = noise(100_000 * channels).reshape(-1, channels).astype(np.float32)
    for place in (0, 70_000):  # in the first block and in a later one
        samples.view(np.uint32)[place] = bits
    soundfile.write(tmp_path / "a.wav", samples, 44_100, subtype)
    with open_audio(str(tmp_path / "a.wav")) as stream:
        decoded = np.concatenate([*stream.blocks()])
    assert np.isfinite(decoded).all()
    assert len(decoded) == 100_000
    assert stream.note is not None and ("taken as 0" in stream.note or "full scale" in stream.note)
