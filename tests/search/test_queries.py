"""What an argument of a search means, and what is left out of its answer."""

from __future__ import annotations

import fnmatch
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolembed.errors import UsageError, VectorsError
from poolembed.identity import ModelIdentity
from poolembed.search.collection import Collection, open_collection
from poolembed.search.exact import ExactSearch
from poolembed.search.queries import Query, every_row, locate, mean_query, read_queries, unit_vector
from poolembed.search.songs import Songs
from tests.search.copies import direction, embedded

SONGS = {"a.wav": 10.0, "b/a.wav": 20.0, "b/c d.wav": 40.0, "ü.wav": 80.0}

quick = settings(max_examples=80)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Collection:
    """Four songs below ``songs``, of which the first two are there; embedded in ``out``."""
    for name in ("a.wav", "b/a.wav"):
        (tmp_path / "songs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "songs" / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    return open_collection(embedded(tmp_path, SONGS, "npy"))


def named(paths: list[str], keys: list[str] | None = None) -> Collection:
    return Collection("x", keys or paths, paths, np.ones((len(paths), 2), np.float32), True, None, "")


def npy(vector: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(vector))
    return file.getvalue()


class TestLocating:
    def test_a_path_in_every_spelling(self, library: Collection, tmp_path: Path) -> None:
        (tmp_path / "link.wav").symlink_to("songs/a.wav")
        (tmp_path / "folder").symlink_to("songs/b")
        os.link(tmp_path / "songs" / "a.wav", tmp_path / "songs" / "b" / "x")
        (tmp_path / "songs" / "b" / "x").rename(tmp_path / "a.wav")  # the same file under the same name elsewhere
        first = ["songs/a.wav", "./songs/a.wav", "songs//a.wav", "songs/b/../a.wav", "link.wav", "a.wav"]
        second = ["songs/b/a.wav", "folder/a.wav", str(tmp_path / "songs/./b/a.wav")]
        assert locate(library, [*first, *second]) == [[0]] * len(first) + [[1]] * len(second)

    def test_keys_and_songs_that_are_gone(self, library: Collection, tmp_path: Path) -> None:
        (tmp_path / "folder").symlink_to("songs/b")
        names = ["b/c d.wav", "./b/c d.wav", "songs/b/c d.wav", "folder/c d.wav", "ü.wav"]
        assert locate(library, names) == [[2], [2], [2], [2], [3]]
        assert locate(library, ["c d.wav", "", "songs", "wav", "no"]) == [[]] * 5

    def test_a_file_on_the_disk_is_itself_and_no_key(self, library: Collection, tmp_path: Path) -> None:
        assert locate(library, ["b/a.wav"]) == [[1]]
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "a.wav").write_bytes(b"another song of that name")
        assert locate(library, ["b/a.wav"]) == [[]]

    def test_foreign_paths_as_they_are_spelt(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert locate(named(["./x/a", "x//a", "y/../x/a", "x/b", "x/a"]), ["x/a", "./x/a"]) == [[0, 1, 2, 4]] * 2

    @quick
    @given(
        st.lists(st.text("ab", max_size=2), unique=True, max_size=6), st.lists(st.text("ab", max_size=3), max_size=6)
    )
    def test_nothing_is_found_that_is_not_there(self, keys: list[str], names: list[str]) -> None:
        found = locate(named([f"/nowhere/{key}" for key in keys], keys), names)
        assert found == [[keys.index(name)] if name and name in keys else [] for name in names]


class TestReading:
    def test_songs_of_the_collection_and_others(self, library: Collection, tmp_path: Path) -> None:
        (tmp_path / "new.mp3").write_bytes(b"")
        found, failures = read_queries(["songs/a.wav", "new.mp3", "ü.wav", "no.mp3", "songs"], library)
        assert [query if isinstance(query, str) else query.name for query in found] == [
            "songs/a.wav",
            "new.mp3",
            "ü.wav",
        ]
        first, _, third = found
        assert isinstance(first, Query)
        assert isinstance(third, Query)
        assert (first.rows, third.rows) == ([0], [3])
        np.testing.assert_allclose(third.vector, direction(80), atol=1e-7)
        assert list(failures) == ["no.mp3", "songs"]
        assert "no such file, and no song of" in str(failures["no.mp3"])
        assert "poolembed embed songs -o -" in str(failures["songs"])

    def test_vectors(self, library: Collection, tmp_path: Path) -> None:
        np.save("one.npy", [3.0, 4.0])
        np.save("TWO.NPY.npy", np.array([[0, 2], [5, 0]], np.int16))
        Path("TWO.NPY.npy").rename("two.NPY")
        queries, failures = read_queries(["one.npy", "two.NPY"], library)
        assert not failures
        found = [query for query in queries if isinstance(query, Query)]
        assert [query.name for query in found] == ["one.npy", "two.NPY[0]", "two.NPY[1]"]
        expected = np.array([[0.6, 0.8], [0, 1], [1, 0]])
        np.testing.assert_allclose(np.stack([query.vector for query in found]), expected, atol=1e-7)
        assert [list(query.rows) for query in found] == [[]] * 3

    @pytest.mark.parametrize("format", ["npy", "matrix"])
    def test_vectors_that_embed_wrote_are_those_of_their_songs(
        self, library: Collection, tmp_path: Path, format: Any
    ) -> None:
        (tmp_path / "again").mkdir()
        (tmp_path / "again" / "songs").symlink_to(tmp_path / "songs" / "b")  # so the key is that of another song
        out = embedded(tmp_path / "again", {"a.wav": 11.0}, format)
        (file,) = out.glob("*.npy")
        ((query,), _) = read_queries([str(file)], library)
        assert isinstance(query, Query)
        assert list(query.rows) == [1]
        np.testing.assert_allclose(query.vector, direction(11), atol=1e-7)

    def test_vectors_of_another_model(self, library: Collection, tmp_path: Path) -> None:
        out = embedded(tmp_path / "other", {"z.wav": 11.0}, "npy")
        text = (out / "manifest.jsonl").read_text()
        (out / "manifest.jsonl").write_text(text.replace('"m"', '"strange"').replace("f" * 64, "e" * 64))
        with pytest.raises(
            VectorsError, match=r"z\.wav\.npy is of the model strange \(eeeeeeee\).*out of m \(ffffffff\)"
        ):
            read_queries([str(out / "z.wav.npy")], library)

    def test_standard_input(self, library: Collection, tmp_path: Path) -> None:
        lines = [
            {"path": "songs/b/a.wav", "duration": 1.5, "embedding": [0.0, 9.0]},
            {"path": "new.wav", "embedding": [1.0, 0.0]},
        ]
        data = b"\n".join(json.dumps(line).encode() for line in lines) + b"\n\n"
        (one, other), failures = read_queries(["-"], library, data)
        assert not failures
        assert isinstance(one, Query)
        assert isinstance(other, Query)
        assert (one.name, list(one.rows), other.name, list(other.rows)) == ("songs/b/a.wav", [1], "new.wav", [])
        np.testing.assert_allclose([one.vector, other.vector], [[0, 1], [1, 0]], atol=1e-7)

    def test_npy_on_standard_input(self, library: Collection) -> None:
        ((one,), _) = read_queries(["-"], library, npy([0.0, 2.0]))
        assert isinstance(one, Query)
        assert one.name == "standard input"
        two, _ = read_queries(["-"], library, npy(np.asfortranarray([[0.0, 2.0], [1.0, 0.0]])))
        assert [query.vector.tolist() for query in two if isinstance(query, Query)] == [[0, 1], [1, 0]]

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", "nothing there"),
            (b"\n \n", "nothing there"),
            (b"songs/a.wav\n", "neither JSON Lines"),
            (npy([0.0, 2.0])[:-3], "cut short"),
            (npy([0.0, 2.0])[:50], "not an .npy file, or is damaged"),
            (b"\x93NUMPY", "not an .npy file, or is damaged"),
            (npy([0.0, 2.0]).replace(b"(2,)", b"(-1,)"), "not an .npy file, or is damaged"),
        ],
    )
    def test_standard_input_that_is_no_query(self, library: Collection, data: bytes, words: str) -> None:
        found, failures = read_queries(["-", "songs/a.wav"], library, data)
        assert words in str(failures["-"])
        assert len(found) == 1

    def test_good_lines_of_standard_input_are_taken(self, library: Collection) -> None:
        lines = [
            b'{"path": "good", "embedding": [1, 2]}',
            b'{"path": "torn", "embedd',
            b'{"path": "long", "embedding": [1, 2, 3]}',
            b'{"path": "zero", "embedding": [0, 0]}',
            b'{"path": "nan", "embedding": [NaN, 0]}',
            b'{"path": "deep", "embedding": [[1, 2]]}',
            b'{"path": "one", "embedding": 1}',
            b'{"embedding": [1, 2]}',
        ]
        found, failures = read_queries(["-"], library, b"\n".join(lines))
        assert [query.name for query in found if isinstance(query, Query)] == ["good"]
        assert list(failures) == [
            "standard input, line 2",
            "standard input, line 6",
            "standard input, line 7",
            "standard input, line 8",
            "long",
            "zero",
            "nan",
        ]
        assert "have 2" in str(failures["long"])

    @pytest.mark.parametrize(
        ("vector", "words"),
        [
            ([1.0, 2, 3], "3 numbers, and the vectors of"),
            ([1.0], "1 numbers"),
            ([np.nan, 1], "NaN"),
            ([0.0, 0], "zeros"),
            ([[[1.0]]], "(D,) or (N, D)"),
            (np.array([None, 1]), "pickled"),
        ],
    )
    def test_files_that_are_no_query(self, library: Collection, vector: Any, words: str) -> None:
        np.save("bad.npy", vector, allow_pickle=True)
        found, failures = read_queries(["songs/a.wav", "bad.npy", "missing.npy"], library)
        assert len(found) == 1
        assert words in str(failures["bad.npy"])
        assert "No such file" in str(failures["missing.npy"])

    def test_the_first_numbers_of_longer_vectors(self, library: Collection) -> None:
        np.save("long.npy", [3.0, 4.0, 7.0])
        ((query,), _) = read_queries(["long.npy"], library, shorten=True)
        assert isinstance(query, Query)
        np.testing.assert_allclose(query.vector, [0.6, 0.8], atol=1e-7)
        np.save("short.npy", [3.0])
        assert read_queries(["short.npy"], library, shorten=True)[1]

    @quick
    @given(st.lists(st.sampled_from([-1e200, -1e-200, 0.0, 1.0, 3.0, 1e200]), min_size=2, max_size=2))
    def test_unit_vectors_of_any_size(self, numbers: list[float]) -> None:
        if not any(numbers) or numbers[0] == numbers[1] < 0:  # which is silence
            return
        unit = unit_vector(np.array(numbers), named(["a"]), shorten=False)
        assert abs(float(np.linalg.norm(unit)) - 1) < 1e-6
        assert abs(math.atan2(*unit.tolist()) - math.atan2(*numbers)) < 1e-6


class TestAnswers:
    @quick
    @given(st.integers(1, 12), st.integers(1, 15), st.booleans(), st.data())
    def test_songs_are_no_neighbours_of_themselves(self, count: int, k: int, itself: bool, data: st.DataObject) -> None:
        matrix = np.array(
            data.draw(st.lists(st.sampled_from([(1, 0), (1, 1), (0, 1)]), min_size=count, max_size=count))
        )
        rows = data.draw(st.sets(st.integers(0, count - 1)))
        names = ["q" if row in rows else str(row) for row in range(count)]
        library = Collection("x", names, names, matrix.astype(np.float32), False, None, "")
        query = matrix[min(rows)] if rows else np.array([1, 0])
        songs = Songs(library, ExactSearch(library))
        found = songs.search("q" if rows else query, k, with_query=itself)
        cosine = matrix @ query / np.linalg.norm(matrix, axis=1) / np.linalg.norm(query)
        order = [row for row in np.lexsort((np.arange(count), -cosine)).tolist() if itself or row not in rows]
        assert [hit.path for hit in found] == [names[row] for row in order[:k]]
        assert [hit.rank for hit in found] == list(range(1, len(found) + 1))
        np.testing.assert_allclose([hit.cosine or 0 for hit in found], cosine[order[:k]], atol=1e-6)

    def test_all_songs(self) -> None:
        count = 600
        matrix = np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)
        names = [f"{row}.mp3" for row in range(count)]
        library = Collection("x", names, names, matrix, False, None, "")
        found = list(Songs(library, ExactSearch(library)).neighbours(1))
        assert [query for query, _ in found] == names
        cosines = matrix @ matrix.T / np.outer(*[np.linalg.norm(matrix, axis=1)] * 2)
        np.fill_diagonal(cosines, -2)
        assert [hit.path for _, (hit,) in found] == [names[row] for row in cosines.argmax(axis=1)]

    def test_every_row_of_many(self) -> None:
        library = named([f"{row}.mp3" for row in range(5000)])
        assert [(query.name, *query.rows) for query in every_row(library)] == [
            (f"{row}.mp3", row) for row in range(5000)
        ]

    def test_the_mean(self) -> None:
        mean = mean_query(
            [Query("a", np.array([1, 0], np.float32), [3, 1]), Query("b", np.array([0, 1], np.float32), [1])]
        )
        assert (mean.name, list(mean.rows)) == ("a + b", [1, 3])
        np.testing.assert_allclose(mean.vector, [0.5**0.5] * 2, atol=1e-7)
        with pytest.raises(UsageError, match="cancel out"):
            mean_query([Query("a", np.array([1, 0], np.float32)), Query("b", np.array([-1, 0], np.float32))])


globs = st.lists(st.text("ab/*?", min_size=1, max_size=4), max_size=3)


class TestFilters:
    @quick
    @given(st.lists(st.text("ab/", min_size=1, max_size=4), min_size=1, max_size=6), globs, globs)
    def test_against_trying_each(self, keys: list[str], including: list[str], excluding: list[str]) -> None:
        def fits(key: str, globs: list[str]) -> bool:
            return any(fnmatch.fnmatchcase(name, glob) for name in (key, f"/m/{key}") for glob in globs)

        expected = [(not including or fits(key, including)) and not fits(key, excluding) for key in keys]
        library = named([f"/m/{key}" for key in keys], keys)
        if not any(expected):
            with pytest.raises(VectorsError, match="left by the filters"):
                library.matching(including, excluding)
            return
        allowed = library.matching(including, excluding)
        assert (allowed is None) == (not including and not excluding)
        assert allowed is None or allowed.tolist() == expected

    def test_a_home_directory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/m")
        allowed = named(["/m/a", "/n/a"]).matching(["~/*"], [])
        assert allowed is not None
        assert allowed.tolist() == [True, False]


def test_identities_are_compared_by_fingerprint(library: Collection, tmp_path: Path) -> None:
    out = embedded(tmp_path / "other", {"z.wav": 11.0}, "npy")
    text = (out / "manifest.jsonl").read_text()
    (out / "manifest.jsonl").write_text(text.replace('"m"', '"renamed"'))
    assert library.model == ModelIdentity("m", "f" * 64, 2)
    assert not read_queries([str(out / "z.wav.npy")], library)[1]
