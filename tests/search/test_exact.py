"""Exact search against comparing with every vector in turn, whatever the blocks, threads and ties."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from poolembed.errors import UsageError, VectorsError
from poolembed.search import exact
from poolembed.search.collection import Collection, open_collection
from poolembed.search.exact import ExactSearch, Hits

quick = settings(max_examples=80)


def collection(matrix: NDArray[Any]) -> Collection:
    names = [f"{row}.mp3" for row in range(len(matrix))]
    return Collection("x.npy", names, names, matrix, False, None, "")


@contextmanager
def divided(block_bytes: int = 64, threads: int = 1, many: int = 1 << 20) -> Iterator[None]:
    """Search in blocks of few rows (64 is the least), on so many threads, with so little patience with ties."""
    blas = mock.Mock(info=lambda: [{"num_threads": threads}], limit=lambda limits: nullcontext())
    with (
        mock.patch.object(exact, "BLOCK_BYTES", block_bytes),
        mock.patch.object(exact, "blas", lambda: blas),
        mock.patch.object(exact, "MANY", many),
    ):
        yield


def one_by_one(matrix: NDArray[Any], query: NDArray[Any], k: int, allowed: NDArray[np.bool_] | None) -> list[Any]:
    """The definition: cosines in float64, rounded to float32, sorted by cosine and row; ``(row, cosine)``."""
    found = []
    for row, vector in enumerate(matrix.astype(np.float64)):
        if allowed is None or allowed[row]:
            cosine = vector @ query / np.sqrt((vector @ vector) * (query @ query))
            found.append((-np.float32(np.clip(cosine, -1, 1)), row))
    return [(row, -cosine) for cosine, row in sorted(found)[:k]]


def check(matrix: NDArray[Any], queries: NDArray[Any], k: int, allowed: NDArray[np.bool_] | None = None) -> Hits:
    hits = ExactSearch(collection(matrix)).nearest(queries.astype(np.float32), k, allowed)
    assert hits.rows.shape == hits.cosines.shape == (len(queries), k)
    assert hits.cosines.dtype == np.float32
    for query, rows, cosines in zip(queries.astype(np.float64), hits.rows, hits.cosines, strict=True):
        expected = one_by_one(matrix, query, k, allowed)
        assert rows[: len(expected)].tolist() == [row for row, _ in expected]
        np.testing.assert_allclose(cosines[: len(expected)], [cosine for _, cosine in expected], atol=1e-7)
        assert (rows[len(expected) :] == -1).all()
        assert np.isnan(cosines[len(expected) :]).all()
    return hits


# Few values and few numbers, so that equal vectors and equal cosines abound.
coarse = st.tuples(st.integers(1, 300), st.integers(1, 3)).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=st.sampled_from([-1.0, 0.5, 1.0, 2.0]), fill=st.just(1.0))
)


class TestAgainstTheDefinition:
    @quick
    @given(coarse, st.integers(1, 320), st.integers(1, 3), st.sampled_from([0, 20, 1 << 20]), st.data())
    def test_ties_and_filters(self, matrix: Any, k: int, threads: int, many: int, data: st.DataObject) -> None:
        queries = matrix[data.draw(st.lists(st.integers(0, len(matrix) - 1), min_size=1, max_size=4))]
        allowed = data.draw(st.none() | hnp.arrays(bool, len(matrix)))
        with divided(threads=threads, many=many):
            check(matrix, queries, k, allowed)

    @pytest.mark.parametrize("threads", [1, 3])
    @pytest.mark.parametrize("size", [1, 7, 512])
    @pytest.mark.parametrize("rows", [40, 1000])
    def test_noise(self, rows: int, size: int, threads: int) -> None:
        random = np.random.default_rng(size)
        matrix = random.standard_normal((rows, size)).astype(np.float32)
        with divided(threads=threads):
            check(matrix, random.standard_normal((5, size)).astype(np.float32), 10)

    @pytest.mark.parametrize("many", [10, 1 << 20])
    def test_cosines_that_float32_cannot_tell_apart(self, many: int) -> None:
        """Products in float32 are off by more than these cosines differ, and the order is right all the same."""
        random = np.random.default_rng(0)
        one, other = random.standard_normal((2, 512))
        matrix = (one + other + 3e-6 * random.standard_normal((3000, 512))).astype(np.float32)
        query = one[None].astype(np.float32)
        with divided(many=many):
            hits = check(matrix, query, 20)
        assert hits.cosines[0, 0] - hits.cosines[0, -1] < 1e-5
        rough = (matrix @ query[0]) / np.linalg.norm(matrix, axis=1)
        assert np.argsort(-rough, kind="stable")[:20].tolist() != hits.rows[0].tolist()

    @pytest.mark.parametrize("many", [10, 1 << 20])
    def test_all_vectors_equal(self, many: int) -> None:
        matrix = np.tile(np.array([0.1, 0.2, 0.3], np.float32), (2000, 1))
        with divided(threads=2, many=many):
            hits = ExactSearch(collection(matrix)).nearest(matrix[:3], 5)
        assert hits.rows.tolist() == [[0, 1, 2, 3, 4]] * 3

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "int16"])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_every_kind_of_number(self, tmp_path: Path, dtype: str, order: Any) -> None:
        matrix = np.random.default_rng(0).integers(-99, 99, (300, 6))
        np.save(tmp_path / "x.npy", np.asarray(matrix, dtype, order=order))
        opened = open_collection(tmp_path / "x.npy")
        with divided(threads=2):
            found = ExactSearch(opened).nearest(matrix[:4].astype(np.float32), 9)
        np.testing.assert_array_equal(found.rows, check(matrix.astype(np.float32), matrix[:4], 9).rows)

    @pytest.mark.parametrize("scale", [1e-30, 3e-22, 1e-12, 0.996, 1.000_01, 1e12, 1e30])
    def test_the_lengths_of_vectors_do_not_matter(self, scale: float) -> None:
        """Squares of the extremes overflow float32, or lose their digits; others could pass for 1."""
        random = np.random.default_rng(1)
        # Each a little nearer than all before it, so that none can be spared and every error would show.
        cosines = 0.8 + 2e-6 * np.arange(2000)
        matrix = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)
        scaled = (matrix * np.where(random.random((2000, 1)) < 0.5, scale, 1)).astype(np.float32)
        query = np.array([[1, 0]], np.float32)
        expected = [row for row, _ in one_by_one(scaled, query[0].astype(np.float64), 2000, None)]
        with divided():
            searcher = ExactSearch(collection(scaled))
            for k in (3, 1, 2, 3, 9, 90):  # after the first it knows the lengths
                assert searcher.nearest(query, k).rows[0].tolist() == expected[:k]


class TestWhatAnAnswerDependsOn:
    @settings(max_examples=12)
    @given(coarse, st.integers(1, 20), st.integers(1, 3))
    def test_neither_blocks_nor_threads_nor_other_queries(self, matrix: Any, k: int, threads: int) -> None:
        whole = ExactSearch(collection(matrix)).nearest(matrix, k)
        with divided(threads=threads):
            searcher = ExactSearch(collection(matrix))
            for row in range(0, len(matrix), 60):
                alone = searcher.nearest(matrix[row : row + 1], k)
                np.testing.assert_array_equal(alone.rows[0], whole.rows[row])
                np.testing.assert_array_equal(alone.cosines[0], whole.cosines[row])

    def test_more_queries_than_share_a_reading(self) -> None:
        matrix = np.random.default_rng(2).standard_normal((700, 4)).astype(np.float32)
        hits = ExactSearch(collection(matrix)).nearest(matrix, 1)
        np.testing.assert_array_equal(hits.rows[:, 0], np.arange(700))
        np.testing.assert_array_equal(hits.cosines, 1)

    def test_queries_of_any_length(self) -> None:
        matrix = np.random.default_rng(3).standard_normal((50, 4)).astype(np.float32)
        searcher = ExactSearch(collection(matrix))
        np.testing.assert_array_equal(searcher.nearest(matrix, 9).rows, searcher.nearest(matrix * 2.0**90, 9).rows)

    def test_memory_does_not_grow_with_the_cosines(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.random.default_rng(4).standard_normal((20_000, 16)).astype(np.float32))
        opened = open_collection(tmp_path / "x.npy")
        with divided(block_bytes=1 << 15):
            assert peak(opened, opened.unit_rows(range(1500)), 10) < 6e6  # all cosines would take 120 MB

    def test_memory_does_not_grow_with_ties(self) -> None:
        matrix = np.ones((20_000, 2), np.float32)
        with divided(block_bytes=1 << 12, many=1000):
            assert peak(collection(matrix), matrix[:50], 10) < 6e6  # all rows of all queries would take 20 MB


def peak(library: Collection, queries: NDArray[np.float32], k: int) -> int:
    """Bytes of numpy's arrays, and of Python, at most."""
    tracemalloc.start()
    try:
        ExactSearch(library).nearest(queries, k)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class TestRefused:
    @pytest.mark.parametrize(
        ("value", "words"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite"), (0, "zeros")]
    )
    @pytest.mark.parametrize("threads", [1, 3])
    def test_rows_that_are_no_vectors(self, value: float, words: str, threads: int) -> None:
        matrix = np.ones((500, 3), np.float32)
        matrix[[70, 300]] = value
        matrix[300, 1:] = 0 if value == 0 else 1
        with divided(threads=threads), pytest.raises(VectorsError) as caught:
            ExactSearch(collection(matrix)).nearest(matrix[:1], 2)
        assert all(word in caught.value.message for word in (words, "2 of the 500", "70.mp3 (row 70)", "row 300"))

    @pytest.mark.parametrize(
        ("query", "k"), [([[0.0, 0.0]], 1), ([[np.nan, 1.0]], 1), ([[1.0]], 1), ([1.0, 2.0], 1), ([[1.0, 2.0]], 0)]
    )
    def test_queries_that_are_none(self, query: Any, k: int) -> None:
        with pytest.raises(UsageError):
            ExactSearch(collection(np.ones((3, 2), np.float32))).nearest(np.array(query, np.float32), k)
