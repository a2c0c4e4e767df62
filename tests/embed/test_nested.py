"""The first numbers of an embedding, as an embedding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

import poolembed
from poolembed import UsageError
from poolembed.embed.nested import first_numbers
from tests.conftest import RATE, noise

FINITE = st.floats(-1, 1, width=32)


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory, save_tiny: Callable[..., Path]) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models"), "nested", nested=(2, 4))


@given(arrays.arrays(np.float32, (3, 6), elements=FINITE), st.integers(1, 6))
def test_cosines_are_those_of_the_first_numbers(vectors: NDArray[np.float32], dim: int) -> None:
    first = first_numbers(vectors, dim)
    assert first.dtype == np.float32
    assert first.shape == (3, dim)
    if dim == 6:
        assert first is vectors
        return
    for row, short in zip(vectors.astype(float), first.astype(float), strict=True):
        length = np.linalg.norm(row[:dim])
        if length > 0:
            np.testing.assert_allclose(short, row[:dim] / length, rtol=0, atol=1e-6)
        assert np.isfinite(short).all()


@pytest.mark.parametrize("size", [1e-11, 1e-13, 1e-19, 1e-30, 1e-40])
def test_first_numbers_that_are_next_to_nothing_have_unit_length_too(size: float) -> None:
    vectors = np.array([[3 * size, -4 * size, 1], [0.6, 0.8, 0], [0, 0, 1]], np.float32)
    expected = np.array([[0.6, -0.8], [0.6, 0.8], [0, 0]])
    np.testing.assert_allclose(first_numbers(vectors, 2), expected, rtol=0, atol=1e-6 if size > 1e-38 else 1e-4)


def test_a_model_gives_the_first_numbers_at_unit_length(nested: Path, tmp_path: Path) -> None:
    samples = noise(9000)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    whole, short = poolembed.load(nested, precision="fp32"), poolembed.load(nested, dim=4, precision="fp32")
    assert (whole.embedding_size, short.embedding_size) == (8, 4)
    assert whole.fingerprint == short.fingerprint
    vector = short.embed(samples, sample_rate=RATE)
    expected = whole.embed(samples, sample_rate=RATE)[:4]
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)
    ((_, of_file),) = short.embed_files([tmp_path / "a.wav"])
    np.testing.assert_array_equal(of_file, vector)


def test_stretches_have_the_first_numbers_too(nested: Path) -> None:
    whole, short = poolembed.load(nested, precision="fp32"), poolembed.load(nested, dim=2, precision="fp32")
    (all_of,), (some,) = (list(model.outcomes([(noise(9000), RATE)], seconds=0.4)) for model in (whole, short))
    expected = all_of.segments.embeddings[:, :2]  # type: ignore[union-attr]
    found = some.segments.embeddings  # type: ignore[union-attr]
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)


def test_all_of_them_is_every_models_size(nested: Path, bundles: Path) -> None:
    for path in (nested, bundles / "mean"):
        assert poolembed.load(path, dim=8).embedding_size == 8


def test_sizes_that_were_not_trained_are_refused(nested: Path, bundles: Path) -> None:
    with pytest.raises(UsageError, match=r"first 3 numbers.*trained for 2, 4\n?.*8, which is all"):
        poolembed.load(nested, dim=3)
    with pytest.raises(UsageError, match=r"first 4 numbers of an embedding of mean.*--nested"):
        poolembed.load(bundles / "mean", dim=4)
