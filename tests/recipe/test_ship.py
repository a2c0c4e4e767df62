"""What is folded into a projection that ships: centred and levelled, the largest axes first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.recipe.changes import CHANGES, changed
from models.recipe.ship import Spreads, covariance_within, decoded, draw_notes, halve, project, projections, turn
from models.recipe.tables import write_table
from poolembed.bundle import load_bundle, save_bundle
from poolembed.labels import Clip
from tests.conftest import tiny_network
from tests.train.runs import write_clips


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    root = write_clips(tmp_path_factory.mktemp("ship"), labels=4, clips=8)
    return [Clip(str(path), path.name, {}) for path in sorted(root.rglob("*.wav"))]


@pytest.fixture(scope="module")
def groups(clips: list[Clip]) -> NDArray[np.int64]:
    return np.arange(len(clips)) % 4


def spreads_of(
    vectors: NDArray[np.float64], groups: NDArray[np.int64], moves: NDArray[np.float64] | None = None
) -> Spreads:
    within, total = covariance_within(vectors, groups), np.cov(vectors, rowvar=False)
    moved = np.eye(len(total)) if moves is None else np.cov(moves, rowvar=False)
    return Spreads(vectors.mean(0), total, within, moved, len(vectors), len(vectors))


@pytest.mark.parametrize(("within", "part"), [(0.0, 0.0), (0.2, 0.5), (1.0, 0.0), (0.0, 1.0)])
def test_what_is_folded_in_centres_and_levels(
    clips: list[Clip], groups: NDArray[np.int64], within: float, part: float
) -> None:
    network = tiny_network()
    samples = decoded(network, clips)
    quiet = changed("noise 12 dB below", samples, network.config.frontend.sample_rate)
    before = project(network, samples)
    spreads = spreads_of(before, groups, project(network, quiet) - before)
    turn(network, spreads.mean, spreads.axes(within, part))
    after = project(network, samples)
    assert len(after) == len(clips)
    np.testing.assert_allclose(after.mean(0) / after.std(), 0, atol=1e-3)
    new = spreads_of(after, groups, project(network, quiet) - after)
    levelled = sum(
        share * getattr(new, name) / np.trace(getattr(spreads, name))
        for share, name in ((1 - within - part, "total"), (within, "within"), (part, "moved"))
    )
    np.testing.assert_allclose(levelled / levelled[0, 0], np.eye(len(levelled)), atol=2e-2)


def test_the_largest_axis_comes_first(clips: list[Clip], groups: NDArray[np.int64]) -> None:
    spreads = spreads_of(projections(tiny_network(), clips), groups)
    lengths = np.linalg.norm(spreads.axes(0.0, 0.0), axis=0)
    assert (np.diff(lengths) >= 0).all()  # of the map, so one over what it levels
    largest = np.linalg.svd(spreads.total)[0][:, 0]
    assert abs(largest @ spreads.axes(0.0, 0.0)[:, 0]) / lengths[0] == pytest.approx(1, abs=1e-6)


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    seed=st.integers(0, 2**32),
)
def test_covariance_within_groups(sizes: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    vectors = random.normal(size=(len(groups), 3))
    parts = [(vectors[groups == group] - vectors[groups == group].mean(0)) for group in range(len(sizes))]
    expected = sum(part.T @ part for part in parts) / max(len(groups) - len(sizes), 1)
    np.testing.assert_allclose(covariance_within(vectors, groups), expected, atol=1e-12)
    # It does not know where a group is.
    moved = vectors + random.normal(size=(len(sizes), 3))[groups]
    np.testing.assert_allclose(covariance_within(moved, groups), expected, atol=1e-9)


def test_notes_are_drawn_with_their_instrument(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"path": f"{number}.wav", "start": 0.0, "end": 1.0, "split": split, "kind": kind, "program": program}
        for number, (split, kind, program) in enumerate(
            [("train", "notes", "piano"), ("train", "notes", ""), ("valid", "notes", "piano"),
             ("train", "chords", "piano"), ("train", "notes", "flute"), ("train", "music", "")]
        )
    ]  # fmt: skip
    for row in rows:
        (tmp_path / str(row["path"])).touch()
    write_table(tmp_path / "table.csv", rows)
    drawn = draw_notes(str(tmp_path / "table.csv"), 10)
    assert {clip.key.partition("#")[0] for clip in drawn} == {"0.wav", "4.wav"}
    assert len(draw_notes(str(tmp_path / "table.csv"), 1)) == 1


def test_a_halved_bundle_computes_what_the_network_in_memory_computes(tmp_path: Path) -> None:
    network = tiny_network()
    halve(network)
    for name, half in (("half", True), ("whole", False)):
        save_bundle(tmp_path / name, network, name=name, license="MIT", card="for tests", half=half)
    stored, exact = (load_bundle(tmp_path / name).network.state_dict() for name in ("half", "whole"))
    assert all(torch.equal(stored[key], exact[key]) for key in exact)
    size = {name: (tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")}
    assert size["half"] < size["whole"]


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_heard_and_the_same_each_time(name: str) -> None:
    clips = [np.random.default_rng(seed).normal(0, 0.1, 32_000).astype(np.float32) for seed in (0, 1)]
    made = changed(name, clips, 32_000)
    for clip, new, again in zip(clips, made, changed(name, clips, 32_000), strict=True):
        assert np.array_equal(new, again)
        assert new.dtype == np.float32
        assert len(clip) - 0.16 * 32_000 <= len(new) <= len(clip)
        assert not np.array_equal(new[: len(clip)], clip[: len(new)])
