"""Tables: what a search in one finds is what it finds in the collection that was pushed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolembed.errors import PoolembedError, UsageError, VectorsError
from poolembed.search.exact import ExactSearch
from poolembed.search.lance import TableSearch, is_lance, open_table, table_collection
from poolembed.search.push import push
from poolembed.search.queries import locate
from poolembed.search.songs import open_songs
from tests.search.tables import FIRST, collection, vectors

lance = pytest.importorskip("lance", reason="needs poolembed[lance]")


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("music.lance", True),
        ("s3://bucket/a/music.lance", True),
        ("music.lance/", True),
        ("embeddings", False),
        ("music.index", False),
        ("music.lance/embeddings.npy", False),
        ("s3://bucket/lance", False),
    ],
)
def test_what_is_called_a_table(place: str, expected: bool) -> None:
    assert is_lance(place) == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_table_as_a_collection(tmp_path: Path, dtype: type[np.float16 | np.float32]) -> None:
    pushed = collection(vectors(20, dtype=dtype))
    push(pushed, str(tmp_path / "a.lance"))
    table = table_collection(open_table(str(tmp_path / "a.lance")))
    assert (len(table), table.size, table.model, table.named) == (20, pushed.size, FIRST, True)
    assert list(table.keys) == list(pushed.keys)
    assert list(table.paths) == list(pushed.paths)
    assert [table.paths[0], table.keys[-1], *table.paths[3:5]] == [
        pushed.paths[0], pushed.keys[-1], *pushed.paths[3:5]
    ]  # fmt: skip
    np.testing.assert_array_equal(table.unit_rows([3, 0, 3]), pushed.unit_rows([3, 0, 3]))
    blocks = list(table.blocks(7))
    assert [first for first, _ in blocks] == [0, 7, 14]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), pushed.unit_rows(slice(None)))
    with pytest.raises(IndexError):
        table.paths[20]


@settings(max_examples=15)
@given(
    rows=st.integers(1, 60),
    k=st.integers(1, 70),
    lot=st.integers(1, 25),
    share=st.none() | st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_finds_what_exact_search_does(
    tmp_path_factory: pytest.TempPathFactory, rows: int, k: int, lot: int, share: float | None, seed: int
) -> None:
    place = str(tmp_path_factory.mktemp("exact") / "a.lance")
    random = np.random.default_rng(seed)
    matrix = vectors(rows, seed=seed)
    matrix[random.integers(rows, size=rows // 3)] = matrix[0]  # equal vectors come in the order of rows
    pushed = collection(matrix)
    allowed = None if share is None else random.random(rows) < share
    queries = vectors(3, seed=seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("poolembed.search.lance.ROWS", lot)
        push(pushed, place)
        found = TableSearch(open_table(place)).nearest(queries, k, allowed)
    expected = ExactSearch(pushed).nearest(queries, k, allowed)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.cosines, expected.cosines)


def test_a_table_that_an_earlier_poolembed_indexed(tmp_path: Path) -> None:
    place = str(tmp_path / "a.lance")
    push(collection(vectors(600)), place)
    dataset = open_table(place).dataset
    dataset.create_index("embedding", "IVF_RQ", metric="cosine")
    for name in ("path", "key"):
        dataset.create_scalar_index(name, "BTREE")
    both = collection(np.concatenate([vectors(600), vectors(40, seed=5)]))
    assert push(both, place).new == 40
    found = TableSearch(open_table(place)).nearest(vectors(5, seed=3), 10)
    expected = ExactSearch(both).nearest(vectors(5, seed=3), 10)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.cosines, expected.cosines)
    songs = open_table(place).find(["/music/7.mp3", "630.mp3", "8"])  # of which the index of names has the first
    assert list(songs) == [(7, "7.mp3", "/music/7.mp3"), (630, "630.mp3", "/music/630.mp3")]


def test_songs_are_found_by_their_names(tmp_path: Path) -> None:
    names = ["it's.mp3", 'a"b.mp3', "sub/c.mp3", "%.mp3", "bj\u00f6rk.mp3"]
    pushed = collection(vectors(5), names)
    push(pushed, str(tmp_path / "a.lance"))
    table = table_collection(open_table(str(tmp_path / "a.lance")))
    asked = ["it's.mp3", "/music/it's.mp3", "/music/sub/../sub/c.mp3", "%.mp3", "c.mp3", "", "' OR 1=1 --", *names]
    assert locate(table, asked) == locate(pushed, asked)
    assert locate(table, asked)[:3] == [[0], [0], [2]]


def test_names_of_hits_are_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(tmp_path / "a.lance")
    push(collection(vectors(50)), place)
    table = open_table(place)
    searcher, paths = TableSearch(table), table_collection(table).paths
    hits = searcher.nearest(vectors(3, seed=1), 10)
    monkeypatch.setattr("poolembed.search.lance.LanceTable.take", lambda *_: pytest.fail("read again"))
    assert [paths[row] for row in hits.rows.ravel().tolist()] == [f"/music/{row}.mp3" for row in hits.rows.ravel()]


def test_what_others_write_meanwhile_is_not_seen(tmp_path: Path) -> None:
    place = str(tmp_path / "a.lance")
    push(collection(vectors(9)), place)
    table = open_table(place)
    push(collection(vectors(20)), place)
    assert (table.count, open_table(place).count) == (9, 20)
    assert len(list(table_collection(table).keys)) == 9
    assert TableSearch(table).nearest(vectors(1, seed=1), 20).rows.max() == 8


def test_the_stamp_changes_with_the_table(tmp_path: Path) -> None:
    stamps = []
    for rows in (3, 3, 4):
        push(collection(vectors(rows)), str(tmp_path / "a.lance"))
        stamps.append(table_collection(open_table(str(tmp_path / "a.lance"))).stamp)
    assert stamps[0] == stamps[1] != stamps[2]


class TestErrors:
    def test_there_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(VectorsError, match=r"no table .*none\.lance") as raised:
            open_table(str(tmp_path / "none.lance"))
        assert raised.value.hint is not None
        assert "poolembed push" in raised.value.hint

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.lance").write_bytes(b"x")
        with pytest.raises(VectorsError, match=r"a\.lance"):
            open_table(str(tmp_path / "a.lance"))

    def test_a_damaged_one(self, tmp_path: Path) -> None:
        push(collection(vectors(3)), str(tmp_path / "a.lance"))
        for file in (tmp_path / "a.lance" / "_versions").iterdir():
            file.write_bytes(file.read_bytes()[:50])
        with pytest.raises(VectorsError, match=r"cannot use the table .*a\.lance") as raised:
            open_table(str(tmp_path / "a.lance"))
        assert ".rs:" not in str(raised.value)

    def test_a_vector_that_somebody_spoilt(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import pyarrow as pa

        place = str(tmp_path / "a.lance")
        push(collection(vectors(20)), place)
        dataset = open_table(place).dataset
        song = dataset.to_table().slice(19).to_pylist()[0] | {"embedding": [0.0] * 16}
        zeros = pa.Table.from_pylist([song], schema=dataset.schema)
        dataset.merge_insert("path").when_matched_update_all().execute(zeros)
        monkeypatch.setattr("poolembed.search.lance.ROWS", 8)
        with pytest.raises(VectorsError, match=r"zeros alone: 19\.mp3"):
            TableSearch(open_table(place)).nearest(vectors(1), 3)

    def test_vectors_that_are_gone(self, tmp_path: Path) -> None:
        place = str(tmp_path / "a.lance")
        push(collection(vectors(3)), place)
        table = open_table(place)
        for file in (tmp_path / "a.lance" / "data").iterdir():
            file.unlink()
        for read in (
            lambda: TableSearch(table).nearest(vectors(1), 1),
            lambda: list(table_collection(table).keys),
            lambda: table_collection(table).unit_rows([0]),
            lambda: list(table.find(["a"])),
        ):
            with pytest.raises(VectorsError, match=r"cannot use the table .*a\.lance"):
                read()

    def test_a_table_of_other_columns(self, tmp_path: Path) -> None:
        import pyarrow as pa

        lance.write_dataset(pa.table({"path": ["a"], "embedding": [1.0]}), str(tmp_path / "a.lance"))
        with pytest.raises(VectorsError, match="columns path, embedding"):
            open_table(str(tmp_path / "a.lance"))
        strings = pa.table({name: ["a"] for name in ("path", "key", "embedding", "digest")})
        lance.write_dataset(strings, str(tmp_path / "b.lance"))
        with pytest.raises(VectorsError, match="not one of poolembed push"):
            open_table(str(tmp_path / "b.lance"))

    def test_a_store_that_nobody_knows(self) -> None:
        with pytest.raises(VectorsError, match=r"cannot use the table nowhere://a/b\.lance") as raised:
            open_table("nowhere://a/b.lance")
        assert raised.value.hint is not None
        assert "environment" in raised.value.hint

    def test_without_the_library(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "lance", None)
        for use in (open_table, lambda place: push(collection(vectors(1)), place)):
            with pytest.raises(UsageError) as raised:
                use(str(tmp_path / "a.lance"))
            assert raised.value.hint == "from poolembed's checkout: pip install '.[lance]'"

    @pytest.mark.parametrize("option", ["paths", "dim"])
    def test_options_of_other_collections(self, tmp_path: Path, option: str) -> None:
        push(collection(vectors(1)), str(tmp_path / "a.lance"))
        with pytest.raises(PoolembedError, match="does not go with"):
            open_songs(str(tmp_path / "a.lance"), **{option: 1})  # type: ignore[arg-type]


def test_the_library_is_imported_when_a_table_is_used_and_not_before() -> None:
    code = "import sys, poolembed.search.songs, poolembed.search.push; sys.exit('lance' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
