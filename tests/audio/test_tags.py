"""Tags of every format that has some, and of files that have none."""

from __future__ import annotations

import os
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from poolembed.audio.source import open_source
from poolembed.audio.tags import Tags, read_tags
from tests.conftest import noise

CLIPS = Path(__file__).parents[1] / "clips"
RATE = 16_000
WORDS = {"title": "Für Elise", "artist": "L. van B.", "album": "Bagatelles"}


def tagged(path: Path, seconds: float = 1.0) -> Path:
    """A song with tags, by libsndfile; or by FFmpeg in what libsndfile cannot write."""
    samples = noise(round(seconds * RATE))
    if path.suffix in (".m4a", ".mp3"):
        _with_ffmpeg(path, samples)
        return path
    form, subtype = ("OGG", "OPUS") if path.suffix == ".opus" else (None, None)
    with soundfile.SoundFile(path, "w", RATE, 1, subtype, format=form) as file:
        for name, text in WORDS.items():
            setattr(file, name, text)
        file.write(samples)
    return path


def _with_ffmpeg(path: Path, samples: Any) -> None:
    import av

    with av.open(str(path), "w") as container:
        container.metadata.update(WORDS)
        stream = container.add_stream("aac" if path.suffix == ".m4a" else "libmp3lame", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3", "m4a"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    tags = read_tags(tagged(tmp_path / f"a.{suffix}"))
    assert {name: value for name, value in asdict(tags).items() if name in WORDS} == WORDS
    assert tags.duration == pytest.approx(1, abs=0.15)  # encoders pad
    assert tags.channels == 1
    assert tags.sample_rate == (48_000 if suffix == "opus" else RATE)
    assert tags.bitrate is not None
    assert 5 < tags.bitrate < 300


def test_words_alone_without_a_look_at_the_sound(tmp_path: Path) -> None:
    path = tagged(tmp_path / "a.mp3", seconds=20)
    tags = read_tags(path, technical=False)
    assert (tags.title, tags.artist, tags.duration, tags.bitrate) == (WORDS["title"], WORDS["artist"], None, None)


@pytest.mark.parametrize("clip", sorted(CLIPS.glob("*/*")), ids=lambda path: path.name)
def test_lengths_of_real_clips(clip: Path) -> None:
    with open_source(str(clip), RATE) as source:
        for _ in source.blocks():
            pass
        assert read_tags(clip).duration == pytest.approx(source.duration, abs=0.1)


def test_an_album_artist_is_an_artist(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.flac"), "w") as container:
        container.metadata.update({"album_artist": "Various", "title": " two\nlines\t"})
        stream = container.add_stream("flac", rate=RATE)
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
    assert all(value is None or value == value for value in asdict(tags).values())  # no NaN
