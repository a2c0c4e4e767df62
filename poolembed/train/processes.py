"""Processes that train together, as `torchrun` starts them; or the one there is."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


class Processes:
    """This process among those that train together.

    Each step's clips are dealt out to the processes and gradients averaged (torch's DistributedDataParallel). Losses
    that compare clips with each other compare those of one process.

    Args:
        device: of this process.
        rank: its number.
        count: of all.
    """

    def __init__(self, device: torch.device, rank: int = 0, count: int = 1) -> None:
        self.device, self.rank, self.count = device, rank, count

    @property
    def first(self) -> bool:
        """Whether this one reads, writes and reports."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> Callable[..., Any]:
        """The network whose gradients all processes share."""
        if self.count == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices)

    def first_then_others(self, do: Callable[[], T]) -> T:
        """Do something in the first process, then in the others, which find the files that it left."""
        if not self.first:
            self.wait()
        done = do()
        if self.first:
            self.wait()
        return done

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()

    def agree(self, ask: Callable[[Any], dict[str, float]], about: Any) -> dict[str, float]:
        """The first process's answer, everywhere."""
        if self.count == 1:
            return ask(about)
        text = json.dumps(ask(about)).encode() if self.first else b""
        length = torch.tensor([len(text)], device=self.device)
        distributed.broadcast(length, 0)
        data = torch.zeros(int(length.item()), dtype=torch.uint8, device=self.device)
        if self.first:
            data.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        distributed.broadcast(data, 0)
        answer: dict[str, float] = json.loads(bytes(data.tolist()))
        return answer

    def agree_to_stop(self, stop: threading.Event | None) -> bool:
        """Whether any process was told to stop."""
        wanted = stop is not None and stop.is_set()
        if self.count == 1:
            return wanted
        told = torch.tensor([float(wanted)], device=self.device)
        distributed.all_reduce(told)
        return bool(told.item())


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Those that ``torchrun`` started, each with a GPU of its own where there are GPUs; otherwise this one alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(device, distributed.get_rank(), count)
    finally:
        distributed.destroy_process_group()
