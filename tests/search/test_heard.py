"""Silent songs have a vector of their own: never found, never a pair, and told of; in everything that is searched."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from unittest.mock import Mock

import numpy as np
import pytest

import poolembed
from poolembed.embed.silence import is_silence, silence
from poolembed.errors import VectorsError
from poolembed.heads import LinearHead, Tagger
from poolembed.nn.config import HeadConfig
from poolembed.search.collection import open_collection
from poolembed.search.duplicates import find_duplicates
from poolembed.search.tagging import TagSearch, tag_songs
from tests.search.copies import embedded

SILENT = 225.0  # degrees, at which both numbers are the same and negative
SONGS = {"a": 200.0, "s1": SILENT, "b": 250.0, "s2": SILENT, "s3": SILENT, "c": 20.0}


@pytest.mark.parametrize("size", [2, 3, 64, 500, 512])
def test_it_is_known_by_its_numbers(size: int) -> None:
    vector = silence(size)
    assert np.linalg.norm(vector) == pytest.approx(1)
    for each in (vector, vector.astype(np.float16), 7 * vector, vector[:2], vector.tolist()):
        assert is_silence(np.asarray(each))
    near = vector.copy()
    near[0] = np.nextafter(near[0], np.float32(0))
    for other in (near, -vector, vector[:1], np.zeros(size)):
        assert not is_silence(np.asarray(other))
    assert is_silence(np.stack([vector, near, vector])).tolist() == [True, False, True]


def check(place: Path) -> None:
    """Of `SONGS`, wherever they are."""
    songs = poolembed.open(place)
    of = {name: next(path for path in songs.paths if path.endswith(name)) for name in SONGS}
    assert [hit.path for hit in songs.search(of["a"], k=2)] == [of["b"], of["c"]]
    assert [hit.path for hit in songs.search(np.array([-0.9, -1.0]), k=9)] == [of["b"], of["a"], of["c"]]
    assert songs.search(of["a"], k=9, include=["*s?"]) == []
    with pytest.raises(VectorsError, match="s1: silent, and so near to nothing that is heard: leave it out"):
        songs.search(of["s1"])
    answers = {Path(answer.query).name: len(answer.hits) for answer in songs.neighbours(k=9)}
    assert answers == {"a": 2, "s1": 0, "b": 2, "s2": 0, "s3": 0, "c": 2}
    found = songs.duplicates(threshold=0.999)
    assert (found.groups, found.soundless) == ([], 3)


@pytest.mark.parametrize("format", ["npy", "matrix", "parquet", "jsonl"])
def test_what_embed_writes(tmp_path: Path, format: Literal["npy", "matrix", "parquet", "jsonl"]) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    out = embedded(tmp_path, SONGS, format)
    check(out)
    if format in ("parquet", "jsonl"):
        check((out / f"embeddings.{format}").rename(tmp_path / f"alone.{format}"))


def test_an_index_and_a_table(tmp_path: Path) -> None:
    out = embedded(tmp_path, SONGS)
    pytest.importorskip("usearch")
    from poolembed.search.index import build_index

    build_index(str(out), str(tmp_path / "x.index"))
    check(tmp_path / "x.index")
    pytest.importorskip("lance")
    from poolembed.search.push import push

    push(open_collection(out), str(tmp_path / "x.lance"))
    check(tmp_path / "x.lance")


def test_more_silence_than_songs(tmp_path: Path) -> None:
    """However many silent songs are nearer, the songs behind them are found, and copies among them."""
    vectors = np.tile(silence(8), (3_000, 1))
    random = np.random.default_rng(0)
    vectors[::100] = random.normal(size=(30, 8))
    vectors[-1] = vectors[0]
    np.save(tmp_path / "a.npy", vectors.astype(np.float16))
    songs = poolembed.open(tmp_path / "a.npy")
    queries = silence(8) + 0.01 * random.normal(size=(5, 8))
    for answer in songs.search_each(list(queries), k=10):
        assert len(answer.hits) == 10
        assert all(int(hit.path) % 100 == 0 or int(hit.path) == 2_999 for hit in answer.hits)
    found = find_duplicates(songs.collection, threshold=0.999)
    assert [[song.key for song in group] for group in (group.songs for group in found)] == [["0", "2999"]]
    assert found.soundless == 3_000 - 31


def test_tags_find_no_silence(tmp_path: Path) -> None:
    songs = poolembed.open(embedded(tmp_path, SONGS))
    tagger = Mock(heard=lambda units, tags: np.full((len(units), len(tags)), 0.5, np.float32))
    found = TagSearch(songs.collection, tagger, ["piano"])
    assert [songs.collection.keys[row] for row in found.best(9)] == ["a", "b", "c"]
    rows = found.nearest(np.array([[-0.9, -1.0]], np.float32), 9).rows[0]
    assert [songs.collection.keys[row] for row in rows if row >= 0] == ["b", "a", "c"]


def test_of_silence_no_tag_is_told(tmp_path: Path) -> None:
    songs = poolembed.open(embedded(tmp_path, SONGS))
    head = LinearHead(HeadConfig(column="x", labels=("y", "z")), np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    told = {song.key: len(song.labels["x"]) for song in tag_songs(songs.collection, Tagger("m", (head,)), 1)}
    assert told == {key: 0 if key.startswith("s") else 1 for key in SONGS}
