"""The same weights in a network whose windows have context."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from models.recipe.context import main
from poolembed.bundle import load_bundle, save_bundle
from tests.conftest import tiny_network


@pytest.mark.parametrize("taps", [1, 3])
def test_nothing_but_context_and_low_pass_is_another(tmp_path: Path, taps: int) -> None:
    network = tiny_network()
    save_bundle(tmp_path / "old", network, name="some", license="CC0-1.0", card="A card.", nested=[4])
    assert main([str(tmp_path / "old"), str(tmp_path / "new"), "--taps", str(taps)]) == 0
    old, new = (load_bundle(tmp_path / name) for name in ("old", "new"))
    encoder = msgspec.structs.replace(old.network.config.encoder, context=True, low_pass_taps=taps)
    assert new.network.config == msgspec.structs.replace(old.network.config, encoder=encoder)
    weights = new.network.state_dict()
    assert weights.keys() == old.network.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in old.network.state_dict().items())
    assert (new.config.license, new.card, new.config.nested) == ("CC0-1.0", old.card, (4,))
    assert new.fingerprint != old.fingerprint
