"""Matches and groups equal their definitions, over every seam of the tiles; chains are cut; memory is bounded."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from poolembed.search import selfjoin
from poolembed.search.collection import Collection, open_collection
from poolembed.search.selfjoin import has_match, nearest_leader

Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles(monkeypatch, 4, 2)


def tiles(monkeypatch: pytest.MonkeyPatch, rows: int, columns: int) -> None:
    monkeypatch.setattr(selfjoin, "_ROWS", rows)
    monkeypatch.setattr(selfjoin, "_COLUMNS", columns)


def saved(folder: Path, vectors: Floats | list[list[float]]) -> Collection:
    np.save(folder / "m.npy", np.array(vectors, np.float32))
    return open_collection(folder / "m.npy")


def at_degrees(folder: Path, *degrees: float) -> Collection:
    """Vectors of the plane in these directions, of several lengths."""
    angles = np.radians(degrees)
    lengths = 1 + np.arange(len(degrees))
    return saved(folder, (lengths * np.stack([np.cos(angles), np.sin(angles)])).T)


def degrees(angle: float) -> float:
    return float(np.cos(np.radians(angle)))


def matches(vectors: Floats, threshold: float, durations: Floats | None, tolerance: float) -> NDArray[np.bool_]:
    """The definition."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    assume(not (np.abs(cosines - threshold) < 1e-4).any())
    near: NDArray[np.bool_] = (cosines > threshold) & ~np.eye(len(vectors), dtype=bool)
    if durations is not None:
        near &= np.abs(durations[:, None] - durations) <= tolerance
    return near


def slow_leaders(vectors: Floats, near: NDArray[np.bool_]) -> list[int]:
    """The definition: one row after the other."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    leaders: list[int] = []
    for row in range(len(vectors)):
        if not any(near[row, leader] for leader in leaders):
            leaders.append(row)
    nearest = []
    for row in range(len(vectors)):
        before = [leader for leader in leaders if leader < row and near[row, leader]]
        nearest.append(row if row in leaders else min(before, key=lambda leader: (-unit[row] @ unit[leader], leader)))
    return nearest


# Whole numbers make rows in the same direction likely; halves of a second make equal durations likely.
_row = st.lists(st.integers(-3, 3), min_size=3, max_size=3).filter(any)
_songs = st.lists(st.tuples(_row, st.integers(0, 12)), min_size=1, max_size=14)
_thresholds = st.sampled_from([-0.9, 0.1, 0.55, 0.8, 0.93, 0.99, 0.9991])


@pytest.mark.parametrize("shape", [(4096, 512), (4, 2), (3, 1), (2, 2)])
@settings(max_examples=50)
@given(songs=_songs, threshold=_thresholds, known=st.booleans(), tolerance=st.sampled_from([0.0, 0.5, 2.0, np.inf]))
def test_equal_their_definitions(
    folder: Path,
    shape: tuple[int, int],
    songs: list[tuple[list[int], int]],
    threshold: float,
    known: bool,
    tolerance: float,
) -> None:
    vectors = np.array([row for row, _ in songs], float)
    durations = np.array([duration / 2 for _, duration in songs]) if known else None
    near = matches(vectors, threshold, durations, tolerance)
    collection = saved(folder, vectors)
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiles(monkeypatch, *shape)
        found = has_match(collection, threshold, durations, tolerance)
        np.testing.assert_array_equal(found, near.any(axis=1))
        order = np.arange(len(vectors))[::-1].copy()
        backwards = None if durations is None else durations[order]
        leaders, cosines = nearest_leader(collection, order, threshold, backwards, tolerance)
    unit = vectors[order] / np.linalg.norm(vectors[order], axis=1, keepdims=True)
    np.testing.assert_allclose(cosines, (unit * unit[leaders]).sum(axis=1), atol=1e-6)
    expected = slow_leaders(vectors[order], near[np.ix_(order, order)])
    # Equally near leaders may differ in the last bit of a float32.
    np.testing.assert_allclose((unit * unit[expected]).sum(axis=1), cosines, atol=1e-6)
    assert [leader == place for place, leader in enumerate(leaders)] == [
        leader == place for place, leader in enumerate(expected)
    ]
    for place, leader in enumerate(leaders.tolist()):
        assert leaders[leader] == leader <= place
        assert leader == place or near[order[leader], order[place]]


def test_a_group_is_no_chain(folder: Path, small_tiles: None) -> None:
    """Each five degrees from the next, so that one connected component holds them all."""
    collection = at_degrees(folder, *range(0, 50, 5))
    assert has_match(collection, degrees(6)).all()
    leaders, _ = nearest_leader(collection, np.arange(10), degrees(6))
    assert leaders.tolist() == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8]
    leaders, _ = nearest_leader(collection, np.array([1, 0, 2, 3, 4, 5, 6, 7, 8, 9]), degrees(6))
    assert leaders.tolist() == [0, 0, 0, 3, 3, 5, 5, 7, 7, 9]


@pytest.mark.parametrize("seed", range(3))
def test_no_member_is_farther_from_its_leader_than_the_threshold(folder: Path, small_tiles: None, seed: int) -> None:
    """Nor do two leaders match; in a crowd in which all are connected."""
    random = np.random.default_rng(seed)
    directions = random.uniform(0, 90, 200)
    order = random.permutation(200)
    leaders, cosines = nearest_leader(at_degrees(folder, *directions), order, degrees(3))
    assert cosines.min() >= degrees(3) - 1e-6
    kept = np.sort(directions[order[np.unique(leaders)]])
    assert np.diff(kept).min() > 2.99
    assert len(kept) < 40


def test_a_copy_goes_to_the_nearest_leader(folder: Path) -> None:
    collection = at_degrees(folder, 0, 10, 6)
    leaders, cosines = nearest_leader(collection, np.arange(3), degrees(7))
    assert leaders.tolist() == [0, 1, 1]
    np.testing.assert_allclose(cosines, [1, 1, degrees(4)], atol=1e-6)


def test_of_leaders_equally_near_the_first_has_it(folder: Path) -> None:
    collection = saved(folder, [[4, 3], [4, -3], [1, 0]])
    leaders, _ = nearest_leader(collection, np.arange(3), 0.75)
    assert leaders.tolist() == [0, 1, 0]


def test_the_threshold_itself_is_met_and_more_is_not(folder: Path) -> None:
    collection = saved(folder, [[1, 0], [3, 4]])
    assert has_match(collection, 0.6).all()
    assert not has_match(collection, 0.60001).any()


def test_equal_vectors_match_at_one(folder: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((60, 512))
    collection = saved(folder, np.concatenate([vectors, vectors, -vectors]))
    np.testing.assert_array_equal(has_match(collection, 1.0), np.arange(180) < 120)
    leaders, cosines = nearest_leader(collection, np.arange(180), 1.0)
    np.testing.assert_array_equal(leaders, [*range(60), *range(60), *range(120, 180)])
    assert cosines.max() == 1  # and not a little more
    assert has_match(collection, -1.0).all()


@pytest.mark.parametrize(
    ("gap", "tolerance", "expected"),
    [(2.0, 2.0, True), (2.01, 2.0, False), (0.0, 0.0, True), (0.01, 0.0, False), (900.0, np.inf, True)],
)
@pytest.mark.parametrize("start", [0.3, 2.4, 7000.7])  # 4.4 - 2.4 is a little more than 2
def test_lengths_must_fit(folder: Path, gap: float, tolerance: float, expected: bool, start: float) -> None:
    collection = at_degrees(folder, 0, 0)
    durations = np.array([start + gap, start])
    assert has_match(collection, 0.9, durations, tolerance).tolist() == [expected] * 2
    leaders, _ = nearest_leader(collection, np.arange(2), 0.9, durations, tolerance)
    assert leaders.tolist() == [0, 0 if expected else 1]


def test_lengths_make_no_chain_either(folder: Path, small_tiles: None) -> None:
    collection = at_degrees(folder, *[0] * 9)
    leaders, _ = nearest_leader(collection, np.arange(9), 0.9, np.arange(100.0, 109.0), 1.0)
    assert leaders.tolist() == [0, 0, 2, 2, 4, 4, 6, 6, 8]


@pytest.mark.parametrize("known", [False, True])
def test_memory_does_not_grow_with_the_pairs(folder: Path, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    """Every pair of 1500 matches: 1.1 million, of 16 bytes at least if they were kept."""
    tiles(monkeypatch, 128, 32)
    collection = at_degrees(folder, *[30] * 1500)
    durations = np.full(1500, 60.0) if known else None
    tracemalloc.start()
    found = has_match(collection, 0.9, durations, 1.0)
    leaders, _ = nearest_leader(collection, np.arange(1500), 0.9, durations, 1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.all()
    assert not leaders.any()
    assert peak < 2e6


def test_only_songs_of_about_the_same_length_are_multiplied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles(monkeypatch, 8, 4)
    collection = at_degrees(folder, *[30] * 400)
    durations = np.random.default_rng(0).permutation(400).astype(float)
    read = []
    unit_rows = Collection.unit_rows

    def counted(self: Collection, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        read.append(len(rows))
        return unit_rows(self, rows)

    monkeypatch.setattr(Collection, "unit_rows", counted)
    assert not has_match(collection, 0.9, durations, 0.5).any()
    assert 2 * 400 <= sum(read) < 3 * 400


def test_progress_ascends_to_one(folder: Path, small_tiles: None) -> None:
    shares: list[float] = []
    has_match(
        at_degrees(folder, *range(11)), 0.9, progress=lambda stage, done, total, note="": shares.append(done / total)
    )
    assert all(one < other for one, other in itertools.pairwise(shares))
    assert (shares[0] > 0, shares[-1]) == (True, 1.0)


def test_one_vector_and_no_row(folder: Path) -> None:
    collection = at_degrees(folder, 5)
    assert has_match(collection, -1.0).tolist() == [False]
    leaders, cosines = nearest_leader(collection, np.array([], np.int64), 0.9)
    assert leaders.shape == cosines.shape == (0,)
