"""Which of two copies goes: of real encoders, judged by the decoder's account; and nothing in doubt."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolembed.search.collection import open_collection
from poolembed.search.duplicates import Group, find_duplicates
from poolembed.search.quality import Copy, doubt, is_soundless, rank
from tests.conftest import noise
from tests.encoders import encode
from tests.search.copies import embedded

HYBRID = Path(__file__).parents[1] / "audio" / "encoded" / "hybrid.wv"
SECONDS = 1.0


def make(path: Path, name: str, channels: int = 2, bitrate: int = 128) -> Path:
    """Noise as one of the encoders writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(HYBRID.read_bytes() if name == "hybrid.wv" else _encoded(name, channels, bitrate))
    return path


@cache
def _encoded(name: str, channels: int, bitrate: int) -> bytes:
    samples = np.stack([noise(round(SECONDS * 48_000))] * channels, axis=1)
    with tempfile.TemporaryDirectory() as folder:
        return encode(Path(folder) / "song", name, samples, 48_000, bitrate=bitrate).read_bytes()


def group(tmp_path: Path, *names: str, encodings: bool = True) -> Group:
    """What becomes of files of one recording."""
    out = embedded(tmp_path, dict.fromkeys(names, (0.0, SECONDS)), encodings=encodings)
    (found,) = find_duplicates(open_collection(out)).groups
    return found


LOSSLESS = [
    "flac.flac", "flac.ogg", "flac.mp4", "flac.mka", "alac.m4a", "alac.mp4", "wavpack.wv", "tta.tta", "pcm.wav",
    "pcm.aiff", "dsd.dsf",
]  # fmt: skip
LOSSY = [
    "mp3.wav", "mulaw.wav", "adpcm.wav", "quicktime.m4a", "aac.m4a", "mp3.mp3", "vorbis.ogg", "opus.opus", "wma.wma",
    "ac3.ac3",
]  # fmt: skip


@pytest.mark.parametrize("encodings", [True, False], ids=["kept", "older manifest"])
@pytest.mark.parametrize("original", LOSSLESS)
def test_the_lossless_original_stays_and_lossy_copies_go(tmp_path: Path, original: str, encodings: bool) -> None:
    """Whatever the suffixes: the worst copies have the best ones, and the original has an MP3's."""
    channels = 1 if original == "dsd.dsf" else 2
    make(tmp_path / "songs" / "original.mp3", original, channels=channels)
    for name in LOSSY:
        make(tmp_path / "songs" / f"{name}.flac", name, channels=channels, bitrate=192)
    found = group(tmp_path, *(f"{name}.flac" for name in LOSSY), "original.mp3", encodings=encodings)
    assert found.songs[0].key == "original.mp3"
    assert {song.key for song in found.spare} == {f"{name}.flac" for name in LOSSY}


@pytest.mark.parametrize("original", LOSSLESS)
def test_a_lossy_wavpack_goes_before_any_lossless_file(tmp_path: Path, original: str) -> None:
    make(tmp_path / "songs" / "a", original, channels=1)
    make(tmp_path / "songs" / "b.wv", "hybrid.wv")
    found = group(tmp_path, "a", "b.wv")
    assert [song.key for song in found.songs] == ["a", "b.wv"]
    assert [song.key for song in found.spare] == ["b.wv"]


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ("mp3.mp3", "hybrid.wv", "{1} and {0} of such bit rates do not compare"),
        ("mp3.mp3", "mulaw.wav", "{1} and {0} of such bit rates do not compare"),
        ("aac.m4a", "mp3.mp3", "{1} and {0} of such bit rates do not compare"),
        ("mp3.mp3", "opus.opus", "{1} and {0} of such bit rates do not compare"),
        ("pcm8.wav", "mp3.mp3", "the best one is lossless, but of 8 bits"),
        ("pcm.wav", "dsd.dsf", "DSD and PCM do not compare"),
    ],
)
def test_nothing_is_listed_in_doubt(tmp_path: Path, one: str, other: str, words: str) -> None:
    make(tmp_path / "songs" / "a", one, channels=1)
    make(tmp_path / "songs" / "b", other, channels=1)
    found = group(tmp_path, "a", "b")
    best, song = found.songs
    assert song.doubt == words.format(best.codec, song.codec)
    assert (found.spare, found.freed) == ((), 0)


def test_of_lossless_copies_the_one_of_more_bits_stays(tmp_path: Path) -> None:
    make(tmp_path / "songs" / "a.flac", "flac.flac")
    make(tmp_path / "songs" / "b.flac", "flac24.flac")
    found = group(tmp_path, "a.flac", "b.flac")
    assert [song.key for song in found.songs] == ["b.flac", "a.flac"]
    assert [song.key for song in found.spare] == ["a.flac"]
    assert doubt(found.songs[1], found.songs[0], 2.0) == "it has 24 bits at 48 kHz, and the best one 16 bits at 48 kHz"


def test_of_one_lossy_codec_the_higher_bit_rate_stays(tmp_path: Path) -> None:
    for rate in (64, 128, 320):
        make(tmp_path / "songs" / f"{rate}.mp3", "mp3.mp3", bitrate=rate)
    found = group(tmp_path, "64.mp3", "128.mp3", "320.mp3")
    assert [song.key for song in found.songs] == ["320.mp3", "128.mp3", "64.mp3"]
    assert found.spare == found.songs[1:]


def test_of_two_lossy_codecs_a_much_higher_bit_rate_stays(tmp_path: Path) -> None:
    make(tmp_path / "songs" / "a.mp3", "mp3.mp3", bitrate=320)
    make(tmp_path / "songs" / "b.m4a", "aac.m4a", bitrate=96)
    found = group(tmp_path, "a.mp3", "b.m4a")
    assert [song.key for song in found.spare] == ["b.m4a"]


@pytest.mark.parametrize("encodings", [True, False], ids=["kept", "older manifest"])
def test_a_damaged_original_is_not_preferred_and_not_listed(tmp_path: Path, encodings: bool) -> None:
    make(tmp_path / "songs" / "a.mp3", "mp3.mp3")
    whole = make(tmp_path / "songs" / "b.flac", "flac.flac")
    whole.write_bytes(whole.read_bytes()[: int(0.7 * whole.stat().st_size)])
    found = group(tmp_path, "a.mp3", "b.flac", encodings=encodings)
    assert [song.key for song in found.songs] == ["a.mp3", "b.flac"]
    assert found.songs[1].note is not None
    assert "truncated" in found.songs[1].note
    assert found.spare == ()


def test_a_shorter_original_does_not_stand_for_a_longer_copy(tmp_path: Path) -> None:
    make(tmp_path / "songs" / "a.mp3", "mp3.mp3")
    make(tmp_path / "songs" / "b.flac", "flac.flac")
    out = embedded(tmp_path, {"a.mp3": (0, 61.5), "b.flac": (0, 60.0)})
    (found,) = find_duplicates(open_collection(out)).groups
    assert [(song.key, song.doubt) for song in found.songs] == [
        ("b.flac", None),
        ("a.mp3", "it is 1.5 s longer than the best one"),
    ]
    assert found.spare == ()


@pytest.mark.parametrize("encodings", [True, False], ids=["kept", "older manifest"])
def test_copies_to_the_byte_go_whatever_is_wrong_with_them(tmp_path: Path, encodings: bool) -> None:
    first = make(tmp_path / "songs" / "a.flac", "flac.flac")
    first.write_bytes(first.read_bytes()[: int(0.7 * first.stat().st_size)])
    shutil.copy(first, tmp_path / "songs" / "b.flac")
    found = group(tmp_path, "a.flac", "b.flac", encodings=encodings)
    assert [song.key for song in found.spare] == ["b.flac"]


def test_a_file_that_cannot_be_decoded_any_more_is_not_listed(tmp_path: Path) -> None:
    make(tmp_path / "songs" / "a.flac", "flac.flac")
    (tmp_path / "songs" / "b.flac").write_bytes(b"this is no music" * 100)
    found = group(tmp_path, "a.flac", "b.flac", encodings=False)
    assert [(song.key, song.doubt) for song in found.songs] == [
        ("a.flac", None),
        ("b.flac", "it is not known how they are encoded"),
    ]


TURNED = "channels out of phase: turned over in 3.0 of 3.0 s, lest they cancel"


def copies() -> st.SearchStrategy[Copy]:
    return st.builds(
        Copy,
        key=st.just("k"),
        path=st.just("nowhere"),
        cosine=st.just(1.0),
        duration=st.none() | st.sampled_from([59.9, 60.0, 61.0]),
        size=st.none() | st.integers(1, 9),
        codec=st.none() | st.sampled_from(["flac", "mp3", "aac", "wavpack", "pcm_mulaw", "dsd_lsbf"]),
        lossless=st.none() | st.booleans(),
        bits=st.none() | st.sampled_from([1, 8, 16, 24]),
        bitrate=st.none() | st.sampled_from([64.0, 128.0, 320.0]),
        sample_rate=st.sampled_from([8000, 44_100, 48_000, 96_000]),
        channels=st.sampled_from([1, 2, 6]),
        note=st.none() | st.sampled_from(["truncated: 1.0 s of 2.0 s decoded", TURNED]),
    )


@given(copies(), copies())
def test_two_that_may_each_go_for_the_other_are_alike(one: Copy, other: Copy) -> None:
    """A lossless song never goes for a lossy one, a whole one for a damaged one, nor the better for the worse."""
    if doubt(one, other, 2.0) is None:
        assert one.note is None or one.note == other.note == TURNED
        assert one.lossless or not other.lossless
        assert one.lossless is not None is not other.lossless
        if doubt(other, one, 2.0) is None:
            assert (one.lossless, one.channels) == (other.lossless, other.channels)
            if one.lossless:
                assert (one.sample_rate, one.bits) == (other.sample_rate, other.bits)
            else:
                assert (one.codec, one.bitrate) == (other.codec, other.bitrate)


@given(st.lists(copies(), min_size=2, max_size=5))
def test_what_is_known_whole_and_there_comes_first(songs: list[Copy]) -> None:
    best = min(songs, key=rank)
    if any(song.size is not None and song.codec is not None and song.note in (None, TURNED) for song in songs):
        assert best.size is not None
        assert best.codec is not None
        assert best.note in (None, TURNED)


def test_of_equals_the_one_in_phase_stays(tmp_path: Path) -> None:
    for name in ("a.flac", "b.flac", "c.mp3"):
        make(tmp_path / "songs" / name, {"f": "flac.flac", "m": "mp3.mp3"}[name[2]])
    degrees = dict.fromkeys(("a.flac", "b.flac", "c.mp3"), (0.0, 2.0))
    out = embedded(tmp_path, degrees, notes={"a.flac": TURNED, "c.mp3": TURNED})
    (found,) = find_duplicates(open_collection(out)).groups
    assert [(song.key, song.doubt) for song in found.songs] == [("b.flac", None), ("a.flac", None), ("c.mp3", None)]
    assert doubt(found.songs[1], found.songs[2], 2.0) is None
    assert doubt(found.songs[1], replace(found.songs[2], note=None), 2.0) == (
        "the channels of the best one are out of phase"
    )


@pytest.mark.parametrize(
    "note",
    ["silent", "its channels cancel: their mean is silence", "its channels cancel: their mean is -50 dB below them"],
)
def test_songs_without_sound_are_never_a_pair(tmp_path: Path, note: str) -> None:
    assert is_soundless(note)
    assert not is_soundless(None) and not is_soundless(TURNED)
    assert not is_soundless("truncated: 1.0 s of 2.0 s decoded")
    for name in ("a.flac", "b.mp3", "c.mp3", "d.mp3"):
        make(tmp_path / "songs" / name, f"{name[2:]}.{name[2:]}")
    degrees = {"a.flac": (0.0, 2.0), "b.mp3": (0.0, 2.0), "c.mp3": (50.0, 2.0), "d.mp3": (50.0, 2.0)}
    out = embedded(tmp_path, degrees, notes={"a.flac": note, "b.mp3": note})
    duplicates = find_duplicates(open_collection(out))
    assert [[song.key for song in group.songs] for group in duplicates.groups] == [["c.mp3", "d.mp3"]]
    assert duplicates.soundless == 2
