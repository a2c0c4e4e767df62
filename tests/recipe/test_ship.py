"""What is folded into a projection that ships: centred, principal axes first, nothing else changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from models.recipe.ship import halve, projections, turn
from poolembed.bundle import load_bundle, save_bundle
from poolembed.labels import Clip
from tests.conftest import tiny_network
from tests.train.runs import write_clips


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    root = write_clips(tmp_path_factory.mktemp("ship"), labels=4, clips=8)
    return [Clip(str(path), path.name, {}) for path in sorted(root.rglob("*.wav"))]


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_axes_are_centred_uncorrelated_and_the_largest_come_first(clips: list[Clip], level: float) -> None:
    network = tiny_network()
    before = projections(network, clips)
    turn(network, before, level)
    after = projections(network, clips)
    assert len(after) == len(clips)
    scale = after.std(0).max()
    np.testing.assert_allclose(after.mean(0) / scale, 0, atol=1e-4)
    spread = np.cov(after, rowvar=False) / scale**2
    np.testing.assert_allclose(spread - np.diag(np.diag(spread)), 0, atol=1e-3)
    lengths = np.sqrt(np.diag(spread))
    assert (np.diff(lengths) <= 1e-3).all()
    old = np.sqrt(np.linalg.eigvalsh(np.cov(before, rowvar=False))[::-1])
    np.testing.assert_allclose(lengths / lengths[0], (old / old[0]) ** (1 - level), rtol=0.02, atol=1e-3)


def test_without_levelling_only_the_origin_moves(clips: list[Clip]) -> None:
    network = tiny_network()
    before = projections(network, clips)
    turn(network, before, 0)
    after = projections(network, clips)
    old, new = pdist(before), pdist(after)
    np.testing.assert_allclose(new / new.max(), old / old.max(), rtol=1e-3, atol=1e-5)


def test_a_halved_bundle_computes_what_the_network_in_memory_computes(tmp_path: Path) -> None:
    network = tiny_network()
    halve(network)
    for name, half in (("half", True), ("whole", False)):
        save_bundle(tmp_path / name, network, name=name, license="MIT", card="for tests", half=half)
    stored, exact = (load_bundle(tmp_path / name).network.state_dict() for name in ("half", "whole"))
    assert all(torch.equal(stored[key], exact[key]) for key in exact)
    size = {name: (tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")}
    assert size["half"] < size["whole"]
