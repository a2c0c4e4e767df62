"""Retrieval: a slow reference that ranks one query at a time, scikit-learn, and who is no candidate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from poolembed.evaluate import retrieval
from poolembed.evaluate.retrieval import Retrieval, retrieve

quick = settings(max_examples=50)


@st.composite
def problems(draw: st.DrawFn) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Vectors, of which some point the same way; labels, one or several; groups."""
    clips, several = draw(st.integers(2, 12)), draw(st.booleans())
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    vectors = random.integers(-2, 3, (clips, 3)).astype(np.float32)
    vectors[~vectors.any(1)] = 1
    true = random.random((clips, 3)) < 0.4 if several else random.integers(0, 3, clips)
    return vectors, true, random.integers(0, clips, clips)


def slow(vectors: NDArray[Any], true: NDArray[Any], apart: Sequence[NDArray[Any]]) -> Retrieval:
    """The definition, a query at a time."""
    rows = []
    for query, vector in enumerate(vectors.astype(float)):
        ranked = []
        for other, candidate in enumerate(vectors.astype(float)):
            if other == query or any(numbers[other] == numbers[query] for numbers in apart):
                continue
            cosine = round(vector @ candidate / np.linalg.norm(vector) / np.linalg.norm(candidate), 9)
            right = true[other] == true[query] if true.ndim == 1 else bool((true[other] & true[query]).any())
            ranked.append((cosine, bool(right)))
        hits = [right for _, right in sorted(ranked, key=lambda item: (-item[0], item[1]))]  # of equals the wrong first
        if not any(hits):
            rows.append((np.nan, np.nan, np.nan))
            continue
        precision = average_precision_score([right for _, right in ranked], [cosine for cosine, _ in ranked])
        rows.append((float(hits[0]), float(precision), 1 / (1 + hits.index(True))))
    return Retrieval(*np.array(rows).T)


def assert_same(found: Retrieval, expected: Retrieval) -> None:
    for name in ("first", "average_precision", "reciprocal_rank"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12, err_msg=name)


@quick
@given(problems())
def test_it_is_the_definition(problem: Any) -> None:
    vectors, true, groups = problem
    assert_same(retrieve(vectors, true), slow(vectors, true, []))
    assert_same(retrieve(vectors, true, [groups]), slow(vectors, true, [groups]))
    other = groups[::-1].copy()
    assert_same(retrieve(vectors, true, [groups, other]), slow(vectors, true, [groups, other]))


@quick
@given(problems())
def test_lengths_and_blocks_do_not_matter(problem: Any) -> None:
    vectors, true, groups = problem
    whole = retrieve(vectors, true, [groups])
    assert_same(retrieve(vectors * np.linspace(0.1, 9, len(vectors))[:, None], true, [groups]), whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "_BLOCK", 2 * len(vectors))
        assert_same(retrieve(vectors, true, [groups]), whole)


def test_clusters_are_found_and_copies_of_the_query_do_not_count() -> None:
    vectors = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [1, 0]])
    true = np.array([0, 0, 1, 1, 1])  # the last is a copy of the first with another label
    alone = retrieve(vectors, true)
    np.testing.assert_array_equal(alone.first, [0, 0, 1, 1, 0])
    apart = retrieve(vectors, true, [np.array([0, 1, 2, 3, 0])])
    np.testing.assert_array_equal(apart.first, [1, 0, 1, 1, 0])


def test_what_has_nothing_to_find_is_nan() -> None:
    found = retrieve(np.eye(3), np.array([0, 0, 1]))
    np.testing.assert_array_equal(np.isnan(found.first), [False, False, True])
    found = retrieve(np.eye(3), np.array([0, 0, 1]), [np.array([7, 7, 8])])
    assert np.isnan(found.average_precision).all()
