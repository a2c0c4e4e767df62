"""Collections: opened without being read, checked when they are, and old when what they are of has changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from poolembed.embed.manifest import Format
from poolembed.errors import UsageError, VectorsError
from poolembed.search.collection import Collection, open_collection
from tests.search.copies import FINGERPRINT, direction, embedded

SONGS = {"a.wav": 10.0, "b/a.wav": 20.0, "c d.wav": 200.0}
MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3) + 1

quick = settings(max_examples=60)


def saved(path: Path, matrix: Any = MATRIX) -> Path:
    np.save(path, matrix, allow_pickle=True)
    return path


def is_mapped(array: Any) -> bool:
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


class TestOpening:
    @pytest.mark.parametrize("format", get_args(Format))
    def test_what_embed_writes(self, tmp_path: Path, format: Any) -> None:
        out = embedded(tmp_path, SONGS, format)
        found = open_collection(out)
        assert (found.source, len(found), found.size, found.unit, found.named) == (str(out), 3, 2, True, True)
        assert list(found.keys) == list(SONGS)
        assert list(found.paths) == [str(tmp_path / "songs" / name) for name in SONGS]
        np.testing.assert_array_equal(
            found.matrix, np.array([direction(angle) for angle in SONGS.values()], np.float32)
        )
        assert found.model is not None
        assert (found.model.name, found.model.fingerprint, found.model.embedding_size) == ("m", FINGERPRINT, 2)
        assert is_mapped(found.matrix) == (format != "npy")

    @pytest.mark.parametrize("format", ["matrix", "parquet", "jsonl"])
    def test_the_one_file_of_a_directory_is_the_directory(self, tmp_path: Path, format: Any) -> None:
        out = embedded(tmp_path, SONGS, format)
        (file,) = out.glob("embeddings.*")
        whole, part = open_collection(out), open_collection(file)
        assert (part.keys, part.paths, part.model, part.stamp) == (whole.keys, whole.paths, whole.model, whole.stamp)

    def test_parquet_by_itself_knows_its_model(self, tmp_path: Path) -> None:
        table = (embedded(tmp_path, SONGS, "parquet") / "embeddings.parquet").rename(tmp_path / "x.parquet")
        found = open_collection(table)
        assert found.model is not None
        assert (found.model.name, found.model.fingerprint, found.model.embedding_size) == ("m", FINGERPRINT, 2)
        assert list(found.keys) == list(SONGS)

    def test_a_bare_matrix_has_numbers_for_names(self, tmp_path: Path) -> None:
        found = open_collection(saved(tmp_path / "x.npy"))
        assert (list(found.keys), list(found.paths)) == (["0", "1", "2", "3"],) * 2
        assert (found.keys[-1], found.keys[1:3], found.named, found.unit, found.model) == (
            "3",
            ["1", "2"],
            False,
            False,
            None,
        )
        assert is_mapped(found.matrix)
        with pytest.raises(ValueError, match="read-only"):
            found.matrix[0, 0] = 1

    def test_a_bare_matrix_with_paths(self, tmp_path: Path) -> None:
        (tmp_path / "paths.txt").write_text("a\nb\nc\nd\n")
        found = open_collection(saved(tmp_path / "x.npy"), tmp_path / "paths.txt")
        assert (list(found.keys), found.named, is_mapped(found.matrix)) == (["a", "b", "c", "d"], True, True)

    def test_half_precision_is_not_quite_of_unit_length(self, tmp_path: Path) -> None:
        out = embedded(tmp_path, SONGS)
        np.save(out / "embeddings.npy", np.load(out / "embeddings.npy").astype(np.float16))
        assert not open_collection(out).unit

    def test_songs_that_failed_are_left_out_and_the_rest_stays_mapped(self, tmp_path: Path) -> None:
        out = embedded(tmp_path, SONGS)
        lines = (out / "manifest.jsonl").read_text().splitlines()[:-1]
        (out / "manifest.jsonl").write_text("\n".join(lines) + "\n")
        found = open_collection(out)
        assert list(found.keys) == list(SONGS)[:2]
        assert is_mapped(found.matrix)
        lines[1] = lines[1].replace('"status": "ok"', '"status": "failed"')
        (out / "manifest.jsonl").write_text("\n".join(lines) + "\n")
        np.testing.assert_array_equal(open_collection(out).matrix, found.matrix[1:])

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (np.ones((0, 3)), ["no vectors"]),
            (np.ones(3), ["(N, D)", "(3,)"]),
            (np.ones((2, 3), object), ["pickled"]),
            (np.ones((2, 3), complex), ["complex"]),
            (b"", ["not an .npy file"]),
            (b"\x80\x04K\x01.", ["not an .npy file"]),
            (b"\x93NUMPY\x01\x00v\x00", ["damaged"]),
        ],
    )
    def test_files_that_are_none(self, tmp_path: Path, content: Any, words: list[str]) -> None:
        path = tmp_path / "x.npy"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            saved(path, content)
        with pytest.raises(VectorsError) as caught:
            open_collection(path)
        assert all(word in caught.value.message for word in [*words, "x.npy"]), caught.value.message

    @pytest.mark.parametrize("axis", [0, 1])
    @pytest.mark.parametrize("length", [-5, 10**9, 10**18, 10**30])
    def test_headers_that_promise_too_much(self, tmp_path: Path, axis: int, length: int) -> None:
        path = saved(tmp_path / "x.npy")
        shape = [4, 3]
        shape[axis] = length
        data = path.read_bytes()
        path.write_bytes(data[:10] + data[10:128].replace(b"(4, 3)", str(tuple(shape)).encode())[:118] + data[128:])
        with pytest.raises(VectorsError, match=r"x\.npy is (cut short|not an \.npy)"):
            open_collection(path)

    @quick
    @given(cut=st.integers(0, 128 + 4 * 12 - 1))
    @example(cut=128 + 4 * 12 - 1)
    @example(cut=8)  # in the middle of its header's length
    def test_truncated(self, tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
        path = saved(tmp_path_factory.mktemp("t") / "x.npy")
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(VectorsError) as caught:
            open_collection(path)
        assert "x.npy" in caught.value.message
        assert ("x.npy is cut short" in caught.value.message) == (cut >= 128)
        assert caught.value.hint

    def test_a_tree_of_mixed_sizes(self, tmp_path: Path) -> None:
        out = embedded(tmp_path, SONGS, "npy")
        file = out / "b" / "a.wav.npy"
        for vector, words in (
            (np.ones(3), "3 numbers, and its manifest says 2"),
            (np.ones((2, 1)), r"\(D,\)"),
            (np.ones(2, object), "pickled"),
        ):
            saved(file, vector)
            with pytest.raises(VectorsError, match=words):
                open_collection(out)
        file.write_bytes(file.read_bytes()[:100])
        with pytest.raises(VectorsError, match=r"a\.wav\.npy"):
            open_collection(out)
        np.save(file, np.array([3.0, 4.0], ">f8"))  # not as embed writes it, but the same numbers
        np.testing.assert_array_equal(open_collection(out).matrix[1], [3, 4])


class TestStamps:
    @pytest.mark.parametrize("format", get_args(Format))
    def test_of_what_embed_writes(self, tmp_path: Path, format: Any) -> None:
        out = embedded(tmp_path, SONGS, format)
        stamp = open_collection(out).stamp
        assert stamp == open_collection(out).stamp == open_collection(out.rename(tmp_path / "moved")).stamp
        (tmp_path / "moved").rename(out)
        assert open_collection(embedded(tmp_path, {**SONGS, "new.wav": 0.0}, format)).stamp != stamp

    def test_of_a_file_that_is_written_again(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "x.npy")
        (tmp_path / "paths.txt").write_text("a\nb\nc\nd\n")
        plain, named = open_collection(path).stamp, open_collection(path, tmp_path / "paths.txt").stamp
        assert plain != named
        status = path.stat()
        saved(path, MATRIX[::-1])
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        assert open_collection(path).stamp != plain
        (tmp_path / "paths.txt").write_text("a\nb\nc\ne\n")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert open_collection(path).stamp == plain
        assert open_collection(path, tmp_path / "paths.txt").stamp != named


def made(matrix: Any) -> Collection:
    names = [f"{row}.mp3" for row in range(len(matrix))]
    return Collection("x", names, names, np.asarray(matrix), False, None, "")


vectors = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.tuples(st.integers(1, 20), st.integers(1, 4)),
    elements=st.sampled_from([-3.0, 0.25, 1.0]),
)


class TestReading:
    @quick
    @given(vectors, st.integers(1, 30))
    def test_blocks_are_all_rows_at_unit_length(self, matrix: Any, rows: int) -> None:
        blocks = list(made(matrix).blocks(rows))
        assert [first for first, _ in blocks] == list(range(0, len(matrix), rows))
        whole = np.concatenate([block for _, block in blocks])
        assert whole.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
        lengths = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
        np.testing.assert_allclose(whole, matrix / lengths, atol=1e-6)

    @quick
    @given(vectors, st.data())
    def test_rows_in_any_order(self, matrix: Any, data: st.DataObject) -> None:
        rows = data.draw(st.lists(st.integers(0, len(matrix) - 1), max_size=9))
        (_, whole), *_ = made(matrix).blocks(100)
        np.testing.assert_array_equal(made(matrix).unit_rows(np.array(rows, np.int64)), whole[rows])

    def test_the_stored_numbers_stay_as_they_are(self) -> None:
        matrix = MATRIX.copy()
        made(matrix).unit_rows([0, 1])
        made(matrix).unit_rows(slice(0, 4))
        np.testing.assert_array_equal(matrix, MATRIX)

    @pytest.mark.parametrize(
        ("row", "words"),
        [([np.nan, 1], "NaN"), ([0, 0], "zeros"), ([1, -np.inf], "infinite"), ([1e200, 0], "infinite")],
    )
    def test_rows_that_are_no_vectors(self, row: Any, words: str) -> None:
        matrix = np.ones((9000, 2))
        matrix[[5000, 8999]] = row
        made(matrix).unit_rows(slice(0, 5000))  # which are as they should be
        for read in (lambda c: list(c.blocks(100)), lambda c: c.unit_rows([8999])):
            with pytest.raises(VectorsError) as caught:
                read(made(matrix))
            assert all(
                word in caught.value.message for word in (words, "2 of the 9000", "5000.mp3 (row 5000)", "8999.mp3")
            )

    def test_cut(self) -> None:
        cut = made(MATRIX).cut(2)
        assert (cut.size, len(cut), cut.unit) == (2, 4, False)
        np.testing.assert_allclose(cut.unit_rows([1]), [MATRIX[1, :2] / np.linalg.norm(MATRIX[1, :2])], rtol=1e-6)
        whole = made(MATRIX)
        assert whole.cut(3) is whole
        for size in (0, 4):
            with pytest.raises(UsageError, match="have 3 numbers"):
                whole.cut(size)
