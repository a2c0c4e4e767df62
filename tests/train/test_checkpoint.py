from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from poolembed.errors import OutputError
from poolembed.train import checkpoint
from poolembed.train.checkpoint import load_checkpoint, load_optimizer, optimizer_tensors, save_checkpoint


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": {"x.y": shared, "count": torch.tensor(3)}, "b": {"x.y": shared, "view": shared.T}}
    state = {"step": 7, "history": [{"loss": 0.5, "name": "ä"}]}
    save_checkpoint(tmp_path, tensors, state)
    groups, loaded = load_checkpoint(tmp_path)
    assert loaded == state
    for group, named in tensors.items():
        for name, tensor in named.items():
            torch.testing.assert_close(groups[group][name], tensor, rtol=0, atol=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint.NAME]


def test_an_optimizer_goes_on_where_it_was(tmp_path: Path) -> None:
    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    first = torch.optim.AdamW(one.parameters(), lr=0.1)
    steps(one, first, 3)
    second = torch.optim.AdamW(other.parameters(), lr=0.1)
    other.load_state_dict(one.state_dict())
    save_checkpoint(tmp_path, {"optimizer": optimizer_tensors(first)}, {})
    load_optimizer(second, load_checkpoint(tmp_path)[0]["optimizer"])
    steps(one, first, 2)
    steps(other, second, 2)
    assert torch.equal(one.weight, other.weight)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, {"a": {"x": torch.ones(2)}}, {"step": 1})

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"No space left on device.*make room.*--resume"):
        save_checkpoint(tmp_path, {"a": {"x": torch.zeros(2)}}, {"step": 2})
    groups, state = load_checkpoint(tmp_path)
    assert state == {"step": 1}
    assert groups["a"]["x"].tolist() == [1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint.NAME]


@pytest.mark.parametrize("damage", ["none", "empty", "cut", "other", "pickle"])
def test_a_checkpoint_that_cannot_be_used_says_so(tmp_path: Path, damage: str) -> None:
    path = tmp_path / checkpoint.NAME
    save_checkpoint(tmp_path, {"a": {"x": torch.ones(50)}}, {"step": 1})
    match damage:
        case "none":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(path.read_bytes()[:-20])
        case "other":
            safetensors.torch.save_file({"x": torch.ones(1)}, path)
        case "pickle":
            torch.save({"x": 1}, path)
    with pytest.raises(OutputError, match="--overwrite"):
        load_checkpoint(tmp_path)
