"""Tags of stored vectors: the same from every format, and searched for as they are defined."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import poolembed
from poolembed.errors import BundleError, UsageError, VectorsError
from poolembed.heads import Tagger, load_tagger
from poolembed.identity import ModelIdentity
from poolembed.search.tagging import TagSearch
from tests.compass import COMPASS, HALVES, compass, heard
from tests.map.made import collection
from tests.search.copies import direction, embedded

DEGREES = {"a.wav": 10.0, "b/c.flac": 80.0, "b/d.mp3": 100.0, "ü.wav": 190.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, save_tiny: Callable[..., Path]) -> tuple[Path, str]:
    return compass(tmp_path_factory.mktemp("models"), save_tiny)


@pytest.fixture(scope="module")
def tagger(model: tuple[Path, str]) -> Tagger:
    return load_tagger(model[0])


@pytest.fixture
def folder(tmp_path: Path, model: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POOLEMBED_MODELS", str(model[0].parent))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stored(folder: Path, format: Any, fingerprint: str) -> Path:
    """Songs in the directions of `DEGREES`, in any format there is."""
    if format == "index":
        pytest.importorskip("usearch")
        from poolembed.search.index import build_index

        build_index(stored(folder, "matrix", fingerprint), folder / "x.index")
        return folder / "x.index"
    if format == "lance":
        pytest.importorskip("lance")
        from poolembed.search.collection import open_collection
        from poolembed.search.push import push

        push(open_collection(stored(folder, "matrix", fingerprint)), str(folder / "x.lance"))
        return folder / "x.lance"
    if format == "parquet":
        pytest.importorskip("pyarrow")
    return embedded(folder, DEGREES, format, fingerprint=fingerprint)


@pytest.mark.parametrize("format", ["npy", "matrix", "parquet", "jsonl", "index", "lance"])
def test_known_vectors_have_the_known_tags(folder: Path, model: tuple[Path, str], format: str) -> None:
    songs = poolembed.open(stored(folder, format, model[1]))
    found = list(songs.tags())
    assert [song.path for song in found] == songs.paths
    assert [song.key for song in found] == list(DEGREES)
    for song, degrees in zip(found, DEGREES.values(), strict=True):
        assert list(song.labels) == ["compass", "halves"]
        expected = sorted(COMPASS, key=lambda tag: -float(heard(tag, degrees)))
        assert [tag for tag, _ in song.labels["compass"]] == expected
        tolerance = 0.02 if format == "index" else 1e-6  # which rounds
        for tag, probability in song.labels["compass"]:
            assert probability == pytest.approx(float(heard(tag, degrees)), abs=tolerance)
    (first, *_), *_ = [song.labels["halves"] for song in songs.tags(columns=["halves"], count=1)]
    assert first[0] in HALVES
    assert {hit.key for hit in songs.search(tags=["north"], k=2)} == {"b/c.flac", "b/d.mp3"}
    (hit, *_) = songs.search("ü.wav", tags=["West"])
    assert (hit.key, hit.rank, hit.tags[0][0]) == ("b/d.mp3", 1, "West")


@settings(max_examples=40)
@given(
    st.lists(st.floats(0, 359), min_size=1, max_size=12),
    st.lists(st.sampled_from(list(COMPASS)), min_size=1, max_size=3),
    st.none() | st.floats(0, 359),
    st.integers(1, 15),
    st.data(),
)
def test_songs_come_in_the_order_of_the_definition(
    tagger: Tagger, angles: list[float], tags: list[str], query: float | None, k: int, data: st.DataObject
) -> None:
    degrees = np.array(angles)
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(angles), max_size=len(angles))))
    search = TagSearch(collection([direction(each) for each in angles]), tagger, tags)
    scores = np.prod([heard(tag, degrees) for tag in tags], axis=0) ** (1 / len(tags))
    cosines = np.ones(len(angles))
    if query is None:
        rows = search.best(k, allowed)
    else:
        cosines = np.cos(np.radians(degrees - query))
        hits = search.nearest(np.array([direction(query)] * 2, np.float32), k, allowed)
        np.testing.assert_array_equal(hits.rows[0], hits.rows[1])
        rows = hits.rows[0][hits.rows[0] >= 0]
        np.testing.assert_allclose(hits.cosines[0][: len(rows)], cosines[rows], atol=1e-6)
        assert np.isnan(hits.cosines[0][len(rows) :]).all()
    assert allowed[rows].all()
    assert len(set(rows.tolist())) == len(rows) == min(k, allowed.sum())
    best = np.sort((scores * cosines)[allowed])[::-1][: len(rows)]
    np.testing.assert_allclose((scores * cosines)[rows], best, atol=1e-6)


class TestSearching:
    @pytest.fixture
    def songs(self, folder: Path, model: tuple[Path, str]) -> poolembed.Songs:
        return poolembed.open(embedded(folder, DEGREES, fingerprint=model[1]))

    def test_a_hit(self, songs: poolembed.Songs) -> None:
        (hit,) = songs.search(tags=["east", "North"], k=1)
        assert (hit.key, hit.cosine, hit.rank) == ("b/c.flac", None, 1)
        assert [tag for tag, _ in hit.tags] == ["east", "North"]
        assert hit.tags[0][1] == pytest.approx(float(heard("East", 80.0)), abs=2e-6)
        assert songs.search("a.wav")[0].tags == ()

    def test_with_globs_and_all_songs(self, songs: poolembed.Songs) -> None:
        assert [hit.key for hit in songs.search(tags=["North"], include=["*.wav"])] == ["a.wav", "ü.wav"]
        answers = songs.search_each(None, 1, tags=["West"])
        assert [answer.hits[0].key for answer in answers] == ["b/c.flac", "b/d.mp3", "b/c.flac", "b/d.mp3"]

    def test_a_query_that_cannot_be_searched_for_is_no_search_by_tags(self, songs: poolembed.Songs) -> None:
        with pytest.raises(VectorsError, match="no such file"):
            songs.search("gone.wav", tags=["West"])

    def test_what_makes_no_sense(self, songs: poolembed.Songs, folder: Path, model: tuple[Path, str]) -> None:
        with pytest.raises(UsageError, match="nothing to search for"):
            songs.search()
        with pytest.raises(UsageError, match="lists, not one string"):
            songs.search(tags="West")
        with pytest.raises(UsageError, match="no tag 'Weest'"):
            songs.search(tags=["Weest"])
        with pytest.raises(UsageError, match="no head 'colour'"):
            songs.tags(columns=["colour"])
        with pytest.raises(UsageError, match=r"1 numbers a song, and the model m tells tags from all 2"):
            poolembed.open("out", dim=1).search(tags=["West"])
        np.save("x.npy", songs.vectors)
        with pytest.raises(UsageError, match="does not say which model"):
            poolembed.open("x.npy").search(tags=["West"])
        assert poolembed.open("x.npy", model=model[0]).search(tags=["West"])[0].path == "3"

    def test_of_another_model(self, folder: Path) -> None:
        songs = poolembed.open(embedded(folder, DEGREES))
        assert songs.model == ModelIdentity("m", "f" * 64, 2)
        with pytest.raises(BundleError, match="is another"):
            songs.tags()
