"""Two processes, as torchrun starts them, against one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from poolembed.bundle import load_bundle
from tests.train.runs import config, train
from tests.waiting import PATIENCE

OPTIONS: dict[str, Any] = {"batch_size": 6, "freeze": "encoder", "epochs": 2, "lr": 0.005}
OTHER = """
import sys
from pathlib import Path
from tests.train.runs import config, train
from tests.train.test_processes import OPTIONS

train(config(Path(sys.argv[1]), output=sys.argv[1] + "/two", **OPTIONS))
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without its distributed part")
def test_two_processes_learn_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of the two is this one: what torchrun gives to processes is these variables, and where they meet."""
    one = train(config(tmp_path, output=str(tmp_path / "one"), **OPTIONS))
    store: Any = torch.distributed.TCPStore  # type: ignore[attr-defined]
    meeting = store("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(meeting.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in {**where, "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "RANK": "1", "LOCAL_RANK": "1"},
    )
    try:
        train(config(tmp_path, output=str(tmp_path / "two"), **OPTIONS))
        assert other.wait(PATIENCE) == 0
    finally:
        other.kill()
        other.wait()
    assert one.finished
    a, b = (load_bundle(tmp_path / name).network for name in ("one", "two"))
    # Not to the bit: each process normalises by the statistics of its own half of the batch.
    torch.testing.assert_close(b.project.weight, a.project.weight, rtol=0.1, atol=0.02)
    assert not torch.equal(a.project.weight, load_bundle(tmp_path / "start").network.project.weight)
