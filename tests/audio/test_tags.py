"""Tags of every format that has some, and of files that have none."""

from __future__ import annotations

import os
import struct
import unicodedata
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from poolembed.audio.tags import Tags, read_tags
from tests.conftest import noise
from tests.encoders import dsf, encode

RATE = 16_000
WORDS = {"title": "Für Elise", "artist": "L. van B.", "album": "Bagatelles"}


def tagged(path: Path, seconds: float = 1.0) -> Path:
    """A song with tags, by libsndfile; or by FFmpeg in what libsndfile cannot write."""
    samples = noise(round(seconds * RATE))
    if path.suffix in (".m4a", ".mp3"):
        _with_ffmpeg(path, samples, *(("aac", "ipod") if path.suffix == ".m4a" else ("libmp3lame", "mp3")))
        return path
    form, subtype = ("OGG", "OPUS") if path.suffix == ".opus" else (None, None)
    with soundfile.SoundFile(path, "w", RATE, 1, subtype, format=form) as file:
        for name, text in WORDS.items():
            setattr(file, name, text)
        file.write(samples)
    return path


def _with_ffmpeg(path: Path, samples: Any, codec: str, form: str, rate: int = RATE) -> None:
    with av.open(str(path), "w", format=form) as container:
        container.metadata.update(WORDS)
        stream = container.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate = 64_000
        for start in range(0, len(samples), 4096):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 4096], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3", "m4a"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    assert read_tags(tagged(tmp_path / f"a.{suffix}")) == Tags(**WORDS)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("pcm.mka", "matroska"),
        ("opus.webm", "webm"),
        ("aac.m4a", "mov"),
        ("alac.mp4", "mp4"),
        ("tta.tta", "tta"),
        ("wavpack.wv", "wv"),
        ("wma.wma", "asf"),
        ("flac.ogg", "ogg"),
        ("pcm.caf", "caf"),
    ],
)
def test_formats_of_ffmpeg(tmp_path: Path, name: str, form: str) -> None:
    codecs = {"pcm": "pcm_s16be", "opus": "libopus", "wma": "wmav2"}
    path = tmp_path / name
    _with_ffmpeg(path, noise(48_000), codecs.get(path.stem, path.stem), form, rate=48_000)
    assert read_tags(path) == Tags(**WORDS)


def ape_tag(items: dict[str, bytes], *, header: bool = True, flags: int = 0) -> bytes:
    """An APE tag of version 2."""
    body = b"".join(
        struct.pack("<II", len(value), flags) + name.encode() + b"\0" + value for name, value in items.items()
    )
    head, foot = (
        b"APETAGEX" + struct.pack("<IIIIQ", 2000, len(body) + 32, len(items), kind | (1 << 31) * header, 0)
        for kind in (1 << 29, 0)
    )
    return (head if header else b"") + body + foot


def id3v1(title: bytes) -> bytes:
    """An ID3v1 tag."""
    return (b"TAG" + title).ljust(128, b"\0")


APE = {name.title(): text.encode() for name, text in WORDS.items()}


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("behind", [b"", id3v1(b"")])
@pytest.mark.parametrize("name", ["mp3.mp3", "wavpack.wv", "tta.tta", "musepack.mpc"])
def test_ape_tags(tmp_path: Path, name: str, behind: bytes, header: bool) -> None:
    path = tmp_path / name
    if name == "musepack.mpc":
        path.write_bytes((Path(__file__).parent / "encoded" / name).read_bytes())
    else:
        encode(path, name, noise(4_000)[:, None], RATE)
    assert read_tags(path).title is None
    path.write_bytes(path.read_bytes() + ape_tag(APE, header=header) + behind)
    assert read_tags(path) == Tags(**WORDS)


def test_names_in_ape_tags_are_of_any_case_and_values_may_be_several(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp3", "mp3.mp3", noise(4_000)[:, None], RATE)
    items = {"TITLE": b"one\0two", "artist": b"A\0B", "Cover Art (Front)": b"x.png\0" + bytes(range(256))}
    path.write_bytes(path.read_bytes() + ape_tag(items))
    assert read_tags(path) == Tags("one, two", "A, B")
    path.write_bytes(path.read_bytes() + ape_tag({"Title": b"\xff\xfe binary"}, flags=2))
    assert read_tags(path).title is None  # no text


@pytest.mark.parametrize("field", [12, 16])
@pytest.mark.parametrize("value", [0, 1, 31, 33, 4096, 2**24, 2**31, 2**32 - 1])
def test_ape_tags_of_wrong_sizes(tmp_path: Path, field: int, value: int) -> None:
    path = encode(tmp_path / "a.mp3", "mp3.mp3", noise(4_000)[:, None], RATE)
    tag = bytearray(ape_tag(APE))
    tag[len(tag) - 32 + field : len(tag) - 28 + field] = struct.pack("<I", value)
    path.write_bytes(path.read_bytes() + tag)
    assert read_tags(path).title in (None, WORDS["title"])


@pytest.mark.parametrize("item", [bytes(3), bytes(8), struct.pack("<II", 2**32 - 1, 0) + b"Title\0x", b"\xff" * 40])
def test_damaged_items_of_ape_tags(tmp_path: Path, item: bytes) -> None:
    foot = b"APETAGEX" + struct.pack("<IIIIQ", 2000, len(item) + 32, 5, 0, 0)
    path = tmp_path / "a.mp3"
    path.write_bytes(bytes(100) + item + foot)
    assert read_tags(path) == Tags()


def test_id3_of_a_dsf(tmp_path: Path) -> None:
    frame = b"\3Title\0"
    frame = b"TIT2" + struct.pack(">IH", len(frame), 0) + frame
    data = bytearray(dsf(0.1))
    data[12:28] = struct.pack("<QQ", len(data) + 10 + len(frame), len(data))
    path = tmp_path / "a.dsf"
    path.write_bytes(bytes(data) + b"ID3\4\0\0\0\0\0" + bytes([len(frame)]) + frame)
    assert read_tags(path).title == "Title"


@pytest.mark.parametrize("name", ["a.mp3", "a.mka", "a.wv"])
@pytest.mark.parametrize("title", ["Für Elise".encode("latin-1"), "Песня".encode("cp1251"), "桜".encode("shift_jis")])
def test_texts_in_other_encodings_harm_nobody(tmp_path: Path, name: str, title: bytes) -> None:
    """Nothing says which encoding it is, so the letters may be wrong; but they are letters, and can be printed."""
    path = tmp_path / name
    if name == "a.mka":
        _with_ffmpeg(path, noise(8_000), "flac", "matroska")
        data = path.read_bytes()
        assert data.count(WORDS["title"].encode()) == 1
        path.write_bytes(data.replace(WORDS["title"].encode(), title.ljust(len(WORDS["title"].encode()))[:10]))
    else:
        encode(path, f"{'mp3' if name == 'a.mp3' else 'wavpack'}.{path.suffix[1:]}", noise(4_000)[:, None], RATE)
        path.write_bytes(path.read_bytes() + (id3v1(title) if name == "a.mp3" else ape_tag({"Title": title})))
    text = read_tags(path).title
    assert text
    assert text.encode()  # no half characters
    assert text.isprintable()


def test_line_breaks_and_control_characters_are_spaces(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.wv", "wavpack.wv", noise(4_000)[:, None], RATE)
    path.write_bytes(path.read_bytes() + ape_tag({"Title": b"\x1b[31m one\r\n\ttwo\x7f\0", "Artist": b" \n "}))
    assert read_tags(path) == Tags("[31m one two ,", None)


def test_a_text_without_end_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(
        tagged(tmp_path / "b.mp3").read_bytes() + ape_tag({"Title": b"t" * 1_000_000, "Artist": b"a" * 300})
    )
    tags = read_tags(path)
    assert tags.artist is not None and len(tags.artist) <= 300
    path.write_bytes(ape_tag({"Title": b"t" * 1_000_000, "Artist": b"a" * 300}))
    assert read_tags(path) == Tags("t" * 300 + "…", "a" * 300, None)


def test_several_artists(tmp_path: Path) -> None:
    texts = {b"TIT2": b"\3T\0", b"TPE1": b"\3A\0B\0C\0"}
    frames = b"".join(name + bytes([0, 0, 0, len(text), 0, 0]) + text for name, text in texts.items())
    path = encode(tmp_path / "a.mp3", "mp3.mp3", noise(4_000)[:, None], RATE)
    path.write_bytes(b"ID3\4\0\0\0\0\0" + bytes([len(frames)]) + frames + path.read_bytes())
    assert read_tags(path) == Tags("T", "A, B, C")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wv")
    assert read_tags(tmp_path / "a.wv") == Tags()


def test_an_album_artist_is_an_artist(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.flac"), "w") as container:
        container.metadata.update({"album_artist": "Various", "title": " two\nlines\t"})
        stream = container.add_stream("flac", rate=RATE)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 999), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    tags = read_tags(tmp_path / "a.flac")
    assert (tags.artist, tags.title) == ("Various", "two lines")


@pytest.mark.parametrize(
    "content", [None, b"", b"ID3", b"fLaC" + bytes(99), b"OggS\0", b"RIFF\xff\xff\xff\xffWAVE", b"hm"]
)
@pytest.mark.parametrize("suffix", ["mp3", "flac", "ogg", "wav", "m4a", "wma", "aiff", "txt"])
def test_files_that_tell_nothing(tmp_path: Path, content: bytes | None, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if content is not None:
        path.write_bytes(content)
    tags = read_tags(path)
    assert (tags.title, tags.artist, tags.album) == (None, None, None)


def test_names_that_no_file_has(tmp_path: Path) -> None:
    for name in (str(tmp_path), "", "a\0b", "x" * 5000, os.fsdecode(b"\xff.mp3")):
        assert read_tags(name) == Tags()


@settings(max_examples=150)
@example(suffix="wav", damage=[(56, b"\xee\x80\x80")], length=56)
@given(
    st.sampled_from(["wav", "flac", "ogg", "opus", "mp3", "m4a"]),
    st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=6)), max_size=6),
    st.integers(20, 600),
)
def test_damaged_files_raise_nothing(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, damage: list[tuple[int, bytes]], length: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = folder / f"whole.{suffix}"
    data = bytearray((whole if whole.exists() else tagged(whole, 0.2)).read_bytes()[:length])
    for place, value in damage:
        data[place : place + len(value)] = value
    (folder / f"damaged.{suffix}").write_bytes(data)
    tags = read_tags(folder / f"damaged.{suffix}")
    shown = "".join(value or "" for value in asdict(tags).values())
    # Characters for private use are some font's: U+F8FF is a logo that people do write.
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cs"}
