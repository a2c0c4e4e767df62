"""Excerpts are slices of the whole song at the model's rate, however they overlap and in whatever order they come."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import poolembed.audio.excerpt
from poolembed.audio.decode import AudioStream
from poolembed.audio.excerpt import Span, read_excerpts
from poolembed.audio.source import open_source
from poolembed.errors import AudioError

RATE = 8_000
SECONDS = 30.0  # about eleven blocks at 24 kHz


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("song") / "song.wav"
    samples = np.random.default_rng(0).uniform(-1, 1, (int(SECONDS * 24_000), 2))
    soundfile.write(path, samples, 24_000, "PCM_16")
    return path


@pytest.fixture(scope="module")
def whole(song: Path) -> NDArray[np.float32]:
    with open_source(song, RATE) as source:
        return np.concatenate(list(source.blocks()))


starts = st.floats(0, SECONDS - 0.01)
lengths = st.floats(1e-6, 2 * SECONDS) | st.none()


@given(st.lists(st.tuples(starts, lengths), max_size=6))
def test_each_is_a_slice_of_the_song(
    song: Path, whole: NDArray[np.float32], drawn: list[tuple[float, float | None]]
) -> None:
    spans: list[Span] = [(start, None if length is None else start + length) for start, length in drawn]
    excerpts = dict(read_excerpts(song, RATE, spans))
    assert set(excerpts) == set(range(len(spans)))
    for index, (start, end) in enumerate(spans):
        first = round(start * RATE)
        last = None if end is None else max(round(end * RATE), first + 1)
        np.testing.assert_array_equal(excerpts[index], whole[first:last])
        assert excerpts[index].dtype == np.float32
        assert len(excerpts[index])


def test_they_come_in_the_order_in_which_they_end(song: Path) -> None:
    spans: list[Span] = [(0, None), (20, 21), (0, 20.5), (1, 2), (3, 1000), (0.5, 2), (1, 2)]
    assert [index for index, _ in read_excerpts(song, RATE, spans)] == [3, 5, 6, 2, 1, 0, 4]


def test_one_cut_short_has_what_there_is(song: Path, whole: NDArray[np.float32]) -> None:
    ((_, excerpt),) = read_excerpts(song, RATE, [(29.5, 40)])
    np.testing.assert_array_equal(excerpt, whole[-RATE // 2 :])


def test_spans_past_the_end_fail_after_all_others_are_there(song: Path) -> None:
    excerpts = read_excerpts(song, RATE, [(30, 31), (29, 31), (500, None), (0, 1)])
    assert [next(excerpts)[0], next(excerpts)[0]] == [3, 1]
    with pytest.raises(AudioError, match=r"^starts past the end: there are 30\.00 s of audio in it$"):
        next(excerpts)


def test_a_truncated_file_says_so(song: Path, tmp_path: Path) -> None:
    data = song.read_bytes()
    (tmp_path / "cut.wav").write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match=r"there are 15\.00 s of audio in it \(truncated"):
        list(read_excerpts(tmp_path / "cut.wav", RATE, [(20, 21)]))


def test_what_cannot_be_decoded(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"RIFF and then nothing")
    for name in ("x.wav", "not there.wav"):
        with pytest.raises(AudioError):
            list(read_excerpts(tmp_path / name, RATE, [(0, 1)]))


def test_decoding_stops_where_the_last_one_ends(song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    blocks = AudioStream.blocks

    def counted(self: AudioStream) -> Iterator[NDArray[np.float32]]:
        for block in blocks(self):
            decoded.append(len(block))
            yield block

    monkeypatch.setattr(AudioStream, "blocks", counted)
    assert len(list(read_excerpts(song, RATE, [(0, 1), (2, 3)]))) == 2
    assert sum(decoded) < 10 * 24_000
    decoded.clear()
    assert len(list(read_excerpts(song, RATE, [(0, None), (0, 1), (29, 30), (5, 25)]))) == 4
    assert sum(decoded) == SECONDS * 24_000


def test_the_file_is_closed_when_abandoned(song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def remember(path: Any, rate: int) -> Any:
        opened.append(open_source(path, rate))
        return opened[-1]

    monkeypatch.setattr(poolembed.audio.excerpt, "open_source", remember)
    excerpts = read_excerpts(song, RATE, [(0, 1), (20, 21)])
    next(excerpts)
    del excerpts
    gc.collect()
    with pytest.raises(AudioError, match="closed"):
        next(opened[0].blocks())


def test_memory_is_that_of_the_excerpts(tmp_path: Path) -> None:
    """Ten minutes at 8 kHz are 19 MB as float32."""
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(600 * RATE, np.int16), RATE, "PCM_16")
    tracemalloc.start()
    for _, excerpt in read_excerpts(path, RATE, [(float(second), second + 1.0) for second in range(600)]):
        assert len(excerpt) == RATE
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000
