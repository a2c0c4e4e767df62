"""Layouts: neighbours as a slow reference finds them, PCA by its definition, t-SNE by what it promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.manifold import trustworthiness

from poolembed.errors import VectorsError
from poolembed.map.layout import FEW, GROUPS, lay_out
from tests.map.made import collection


def blobs(count: int, groups: int = 4, size: int = 16, spread: float = 0.35) -> tuple[NDArray[Any], NDArray[Any]]:
    """Vectors around a few directions, group by group of falling size, and the group of each."""
    random = np.random.default_rng(0)
    labels = np.sort(np.arange(count) * groups // count)
    labels[labels == groups - 1] = np.where(np.arange((labels == groups - 1).sum()) % 3, groups - 1, 0)
    middles = np.linalg.qr(random.standard_normal((size, size)))[0][:groups]
    return middles[labels] + spread * random.standard_normal((count, size)) / np.sqrt(size), labels


def distances(places: NDArray[Any]) -> NDArray[Any]:
    away: NDArray[Any] = np.linalg.norm(places[:, None] - places[None], axis=2)
    return away


@settings(max_examples=30)
@given(arrays(np.float32, st.tuples(st.integers(3, 12), st.integers(2, 4)), elements=st.integers(1, 5).map(float)))
def test_neighbours_are_those_of_a_slow_reference(matrix: NDArray[Any]) -> None:
    """Copies included: a vector is never its own neighbour, and all the others are, by falling cosine."""
    vectors = collection(matrix)
    near = lay_out(vectors).near
    cosines = vectors.matrix.astype(np.float64) @ vectors.matrix.T.astype(np.float64)
    for row in range(len(matrix)):
        assert sorted([*near.rows[row].tolist(), row]) == list(range(len(matrix)))
        np.testing.assert_allclose(near.cosines[row], cosines[row][near.rows[row]], atol=1e-6)
        assert (np.diff(near.cosines[row]) <= 0).all()


def test_pca_shows_the_plane_in_which_vectors_lie() -> None:
    """Vectors on a cone: two directions hold all of their differences, so no distance changes."""
    angles = np.linspace(0, 5, 20)
    matrix = np.column_stack([np.cos(angles), np.sin(angles), np.full(20, 2.0)])
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((9, 9)))[0][:3]
    vectors = collection(matrix @ turn)
    found = lay_out(vectors)
    assert found.method == "PCA"
    np.testing.assert_allclose(distances(found.places), distances(vectors.matrix), atol=1e-5)
    np.testing.assert_allclose(found.places.mean(0), 0, atol=1e-6)


def test_pca_keeps_the_largest_variance() -> None:
    matrix = np.random.default_rng(1).standard_normal((FEW - 1, 6))
    vectors = collection(matrix)
    places = lay_out(vectors).places
    centred = vectors.matrix - vectors.matrix.mean(0)
    strengths = np.linalg.svd(centred, compute_uv=False)[:2]
    np.testing.assert_allclose(np.linalg.norm(places, axis=0), strengths, rtol=1e-4)


def test_neighbourhoods_survive_in_the_plane() -> None:
    matrix, labels = blobs(150)
    vectors = collection(matrix)
    found = lay_out(vectors)
    assert found.method == "t-SNE"
    assert found.places.dtype == np.float32
    assert trustworthiness(vectors.matrix, found.places, n_neighbors=10) > 0.9
    away = distances(found.places)
    np.fill_diagonal(away, np.inf)
    same = labels[np.argsort(away, axis=1)[:, :5]] == labels[:, None]
    assert same.mean() > 0.99


def test_groups_are_found_and_the_largest_comes_first() -> None:
    matrix, labels = blobs(150, groups=4, spread=0.1)
    found = lay_out(collection(matrix))
    sizes = np.bincount(found.groups)
    assert (np.diff(sizes) <= 0).all()
    assert len(found.middles) == len(sizes) <= GROUPS
    # k-means may split a blob, but it mixes none.
    for group, middle in enumerate(found.middles):
        members = np.flatnonzero(found.groups == group)
        assert len(set(labels[members])) == 1
        assert middle in members


def test_the_same_vectors_get_the_same_places() -> None:
    vectors = collection(blobs(80)[0])
    first, second = lay_out(vectors), lay_out(vectors)
    np.testing.assert_array_equal(first.places, second.places)
    np.testing.assert_array_equal(first.groups, second.groups)
    assert first.middles == second.middles


@pytest.mark.parametrize("count", [3, FEW + 10, 130])
def test_copies_of_one_vector_lie_in_one_place(count: int) -> None:
    found = lay_out(collection(np.ones((count, 4))))
    assert np.ptp(found.places, axis=0).tolist() == [0, 0]
    assert set(found.groups) == {0}
    assert (found.near.rows != np.arange(count)[:, None]).all()


def test_stages_are_told() -> None:
    told: list[str] = []

    def progress(stage: str, done: float, total: float, note: str = "") -> None:
        told.append(stage)

    lay_out(collection(blobs(60)[0]), progress)
    assert told == ["finding the nearest songs of each", "grouping", "laying out"]


def test_two_songs_are_no_map() -> None:
    with pytest.raises(VectorsError, match="at least 3 songs, and vectors has 2"):
        lay_out(collection(np.eye(2)))
