"""A run's state in one file, so that it appears whole or not at all, and is never unpickled.

Tensors are safetensors; everything else is JSON in the file's header. The file holds all that the next step depends
on: weights and buffers, their moving average, the best so far, the optimizer's moments, torch's generators, and the
number of the step, which is all there is to the sampler, the augmentation and the learning rate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from poolembed.bundle import not_finite
from poolembed.errors import OutputError
from poolembed.files.writing import replacing, writing

NAME = "checkpoint.safetensors"
VERSION = 2

_WAY_ON = "start the run again with --overwrite"


def save_checkpoint(directory: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Write the checkpoint of a run's directory.

    Args:
        directory: of the run.
        tensors: named groups of named tensors.
        state: what JSON can hold.

    Raises:
        OutputError: it cannot be written, for a full disk say; the one before is still there.
    """
    flat = {f"{group}/{name}": t.detach().cpu() for group, named in tensors.items() for name, t in named.items()}
    # safetensors refuses tensors that share memory; equal storage in two groups is normal here.
    flat = {name: t.clone().contiguous() for name, t in flat.items()}
    header = {"poolembed_checkpoint": str(VERSION), "state": json.dumps(state)}
    path = directory / NAME
    with writing(path, f"--resume {directory} goes on from the checkpoint before"), replacing(path, directory) as part:
        part.write_bytes(save(flat, metadata=header))


def load_checkpoint(directory: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The tensors and the state that `save_checkpoint` wrote.

    Raises:
        OutputError: there is none, or it is damaged or of another version.
    """
    path = directory / NAME
    if not path.is_file():
        raise OutputError(f"{directory} holds no checkpoint to go on from", hint=_WAY_ON)
    groups: dict[str, dict[str, Tensor]] = {}
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("poolembed_checkpoint") != str(VERSION):
                raise OutputError(f"{path} is not a checkpoint of this version of poolembed", hint=_WAY_ON)
            state = json.loads(header["state"])
            for key in file.keys():  # noqa: SIM118 - not a mapping
                group, _, name = key.partition("/")
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError, RuntimeError, OSError) as error:
        raise damaged(path, error) from error
    for named in groups.values():
        if (name := not_finite(named)) is not None:
            raise damaged(path, f"{name} has NaN or infinite numbers")
    return groups, state


def damaged(path: Path, why: object) -> OutputError:
    """What to say of a checkpoint that cannot be gone on from."""
    told = str(why).partition("\n")[0]
    return OutputError(f"{path} is damaged, or of another run: {told}", hint=_WAY_ON)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as flat tensors: ``<number of the parameter>/<name>``."""
    return {
        f"{number}/{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for number, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`.

    Raises:
        ValueError: they are not those of this optimizer's parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition("/")
        if value.ndim and (int(number) >= len(parameters) or value.shape != parameters[int(number)].shape):
            raise ValueError(f"the optimizer's {key} is of shape {tuple(value.shape)}")
        state.setdefault(int(number), {})[name] = value
    if any(entry.keys() != {"step", "exp_avg", "exp_avg_sq"} for entry in state.values()):
        raise ValueError("the optimizer's moments are not all there")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
