"""Pushes: the table holds each song once and as it is now, whatever was pushed before, and whatever was killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolembed.errors import VectorsError
from poolembed.identity import ModelIdentity
from poolembed.search.collection import open_collection
from poolembed.search.lance import check_written, open_table
from poolembed.search.push import Pushed, push
from tests.search.tables import FIRST, SECOND, SIZE, collection, content, vectors

pytest.importorskip("lance", reason="needs poolembed[lance]")

Songs = dict[str, int]
"""Name -> seed of its vector."""


def of_songs(songs: Songs) -> Any:
    matrix = np.concatenate([vectors(1, seed=seed) for seed in songs.values()])
    return collection(matrix, list(songs))


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "sub" / "a table.lance")


@settings(max_examples=12)
@given(
    pushes=st.lists(
        st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 2), min_size=1), min_size=1, max_size=4
    ),
    lot=st.integers(1, 4),
)
def test_as_a_dictionary(tmp_path_factory: pytest.TempPathFactory, pushes: list[Songs], lot: int) -> None:
    place = str(tmp_path_factory.mktemp("push") / "a.lance")
    expected: Songs = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("poolembed.search.push.ADDED", lot)
        patch.setattr("poolembed.search.push.ROWS", 2)
        for songs in pushes:
            done = push(of_songs(songs), place)
            assert done == Pushed(
                new=len(songs.keys() - expected.keys()),
                changed=sum(expected.get(name, seed) != seed for name, seed in songs.items()),
                unchanged=sum(expected.get(name) == seed for name, seed in songs.items()),
                others=len(expected.keys() - songs.keys()),
                left=0,
            )
            expected |= songs
            there = content(place)
            assert there.keys() == {f"/music/{name}" for name in expected}
            for name, seed in expected.items():
                assert there[f"/music/{name}"] == (name, vectors(1, seed=seed)[0].tolist())


@pytest.mark.parametrize(
    ("what", "kind"), [("made", "data"), ("added to", "data"), ("changed", "data"), ("changed", "_deletions")]
)
def test_a_file_that_comes_out_short_is_taken_back(
    place: str, monkeypatch: pytest.MonkeyPatch, what: str, kind: str
) -> None:
    first = {} if what == "made" else dict.fromkeys("abcdef", 1)
    then = dict.fromkeys("uvw" if what == "added to" else "bcd", 2)
    if first:
        push(of_songs(first), place)
    before = content(place) if first else {}
    there = {*Path(place).rglob("*")}

    def cut(*arguments: Any) -> Any:
        (written,) = {*Path(place, kind).iterdir()} - there
        os.truncate(written, written.stat().st_size - 30)
        return check_written(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("poolembed.search.push.check_written", cut)
        with pytest.raises(VectorsError, match=r"a table\.lance: .* cannot be read.* as it was before"):
            push(of_songs(then), place)
    assert content(place) == before
    assert push(of_songs(then), place).left == 0
    assert content(place).keys() == {f"/music/{name}" for name in first | then}
    assert content(place)[f"/music/{next(iter(then))}"][1] == vectors(1, seed=2)[0].tolist()


def test_nothing_new_writes_nothing(place: str) -> None:
    push(collection(vectors(30)), place)
    before = {file: file.read_bytes() for file in Path(place).rglob("*") if file.is_file()}
    assert push(collection(vectors(30)), place) == Pushed(0, 0, 30, 0, 0)
    assert {file: file.read_bytes() for file in Path(place).rglob("*") if file.is_file()} == before


def test_new_songs_write_themselves_alone(place: str) -> None:
    push(collection(vectors(2000)), place)
    whole = sum(file.stat().st_size for file in Path(place, "data").iterdir())
    names = [f"{row}.mp3" for row in range(2000)]
    more = collection(np.concatenate([vectors(5, seed=1), vectors(2000)]), [*"abcde", *names])
    assert push(more, place) == Pushed(5, 0, 2000, 0, 0)
    assert sum(file.stat().st_size for file in Path(place, "data").iterdir()) < 1.05 * whole


def test_the_last_bit_of_any_number_counts(place: str) -> None:
    matrix = vectors(SIZE)
    push(collection(matrix), place)
    for row in range(SIZE - 1):
        matrix[row, row] = np.nextafter(matrix[row, row], np.float32(2))
    assert push(collection(matrix), place) == Pushed(0, SIZE - 1, 1, 0, 0)


def test_vectors_are_stored_as_they_are(place: str) -> None:
    matrix = 3 * vectors(4)
    push(collection(matrix), place)
    table = open_table(place)
    rows = table.vectors(table.dataset.to_table()["embedding"])
    np.testing.assert_array_equal(rows, matrix)


@pytest.mark.parametrize(("first", "then"), [(np.float32, np.float16), (np.float16, np.float32)])
def test_a_table_keeps_its_kind_of_number(
    place: str, first: type[np.float16 | np.float32], then: type[np.float16 | np.float32]
) -> None:
    push(collection(vectors(4, dtype=first)), place)
    push(collection(vectors(8, dtype=then)), place)
    assert open_table(place).dtype == first
    assert push(collection(vectors(8, dtype=then)), place).unchanged == 8
    there = content(place)
    stored = [there[f"/music/{row}.mp3"][1] for row in range(8)]
    np.testing.assert_allclose(stored, vectors(8), rtol=0, atol=2e-4)
    assert np.array_equal(stored, vectors(8, dtype=np.float16))


def test_columns_of_any_memory_layout(tmp_path: Path) -> None:
    for number, matrix in enumerate(
        [
            vectors(9),
            np.asfortranarray(vectors(9)),
            vectors(9).astype(">f4"),
            vectors(18)[::2],
            vectors(9).astype(float),
        ]
    ):
        push(collection(matrix), str(tmp_path / f"{number}.lance"))
        stored = [vector for _, vector in content(str(tmp_path / f"{number}.lance")).values()]
        np.testing.assert_array_equal(stored, matrix.astype(np.float32))


class TestRefused:
    @pytest.mark.parametrize(
        ("model", "size", "words"),
        [
            (SECOND, SIZE, ["model first (11111111)", "model second (22222222)"]),
            (None, SIZE, ["model first (11111111)", "no known model"]),
            (ModelIdentity("first", FIRST.fingerprint, 8), 8, ["16 numbers", "have 8"]),
        ],
    )
    def test_another_model(self, place: str, model: ModelIdentity | None, size: int, words: list[str]) -> None:
        push(collection(vectors(3)), place)
        before = content(place)
        with pytest.raises(VectorsError) as raised:
            push(collection(vectors(4, size), model=model), place)
        for word in [*words, "a table.lance", "embeddings"]:
            assert word in raised.value.message
        assert content(place) == before

    def test_a_known_model_into_a_table_of_none(self, place: str) -> None:
        push(collection(vectors(3), model=None), place)
        assert push(collection(vectors(4), model=None), place).new == 1
        with pytest.raises(VectorsError, match=r"no known model.*the model first"):
            push(collection(vectors(3)), place)

    def test_a_model_of_another_name_is_the_same(self, place: str) -> None:
        push(collection(vectors(3)), place)
        renamed = ModelIdentity("renamed", FIRST.fingerprint, SIZE)
        assert push(collection(vectors(3), model=renamed), place).unchanged == 3

    @pytest.mark.parametrize(("value", "words"), [(np.nan, "NaN or infinite"), (np.inf, "NaN or inf"), (0, "zeros")])
    def test_vectors_that_are_none(self, place: str, value: float, words: str) -> None:
        matrix = vectors(5)
        matrix[3] = value
        with pytest.raises(VectorsError, match=words) as raised:
            push(collection(matrix), place)
        assert "3.mp3" in raised.value.message
        assert not Path(place).exists()

    def test_numbers_beyond_the_table(self, place: str) -> None:
        push(collection(vectors(2, dtype=np.float16)), place)
        with pytest.raises(VectorsError, match="float16"):
            push(collection(1e6 * vectors(2)), place)

    def test_two_of_one_path(self, place: str) -> None:
        with pytest.raises(VectorsError, match=r"rows 0 and 2 of embeddings are both of /music/a"):
            push(collection(vectors(3), ["a", "b", "a"]), place)

    def test_songs_without_names(self, tmp_path: Path, place: str) -> None:
        np.save(tmp_path / "bare.npy", vectors(3))
        with pytest.raises(VectorsError) as raised:
            push(open_collection(tmp_path / "bare.npy"), place)
        assert raised.value.hint is not None
        assert "--paths" in raised.value.hint

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(VectorsError, match=r"file/a\.lance"):
            push(collection(vectors(3)), str(tmp_path / "file" / "a.lance"))


def test_names_that_are_not_utf8_or_look_like_sql(place: str) -> None:
    names = ["it's.mp3", "\udcff.mp3", 'a"; DROP TABLE songs.mp3', "\u00fc.mp3", "a\nb.mp3"]
    push(collection(vectors(5), names), place)
    assert list(content(place)) == [f"/music/{name}" for name in [names[0], "\\xff.mp3", *names[2:]]]
    assert push(collection(vectors(5), names), place).unchanged == 5
    assert push(collection(vectors(5, seed=1), names), place).changed == 5
    assert len(content(place)) == 5


def test_progress(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolembed.search.push.ADDED", 10)
    push(collection(vectors(5)), place)
    told: list[tuple[object, ...]] = []
    push(collection(vectors(35)), place, progress=lambda *what: told.append(what))
    assert told == [
        ("reading", 0, 35),
        ("comparing", 0, 5),
        ("writing", 0, 30),
        ("writing", 10, 30),
        ("writing", 20, 30),
    ]


def test_stopped_between_lots(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolembed.search.push.ADDED", 10)
    stop = Event()

    def watch(stage: str, done: float, total: float, note: str = "") -> None:
        if done > 0:
            stop.set()

    done = push(collection(vectors(35)), place, progress=watch, stop=stop)
    assert done == Pushed(new=20, changed=0, unchanged=0, others=0, left=15)
    assert len(content(place)) == 20
    assert push(collection(vectors(35)), place) == Pushed(15, 0, 20, 0, 0)


KILLED = """
import os, signal, sys
from poolembed.search import push as module
from tests.search.tables import collection, vectors

place, kind, lots, rows = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
module.ADDED = 20
module.ROWS = 5
batches, lot = module._batches, 0

def watched(*arguments):
    global lot
    lot += 1
    for number, batch in enumerate(batches(*arguments)):
        if lot > lots and number == rows:
            os.kill(os.getpid(), signal.SIGKILL)  # while lance waits for the rest of the lot
        yield batch

module._batches = watched
module.push(collection(vectors(50, seed=1 if kind == "changed" else 0)), place)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize(("lots", "rows"), [(0, 0), (0, 2), (2, 1)])
def test_killed_while_adding(place: str, lots: int, rows: int) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, place, "new", str(lots), str(rows)], check=False)
    assert done.returncode == -signal.SIGKILL
    if lots:
        assert content(place).keys() == {f"/music/{row}.mp3" for row in range(20 * lots)}
    else:
        with pytest.raises(VectorsError, match="no table"):
            open_table(place)
    assert push(collection(vectors(50)), place) == Pushed(50 - 20 * lots, 0, 20 * lots, 0, 0)
    assert [vector for _, vector in content(place).values()] == vectors(50).tolist()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_while_replacing(place: str) -> None:
    push(collection(vectors(50)), place)
    done = subprocess.run([sys.executable, "-c", KILLED, place, "changed", "3", "0"], check=False)
    assert done.returncode == -signal.SIGKILL
    there = content(place)
    assert len(there) == 50
    of_both = [there[f"/music/{row}.mp3"][1] for row in range(50)]
    assert of_both == [*vectors(50, seed=1)[:15].tolist(), *vectors(50)[15:].tolist()]
    assert push(collection(vectors(50, seed=1)), place) == Pushed(0, 35, 15, 0, 0)


def test_a_table_can_be_moved(place: str, tmp_path: Path) -> None:
    push(collection(vectors(5)), place)
    shutil.move(place, tmp_path / "moved.lance")
    assert push(collection(vectors(6)), str(tmp_path / "moved.lance")) == Pushed(1, 0, 5, 0, 0)
