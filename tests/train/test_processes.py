"""Two processes, as torchrun starts them, against one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from poolembed.bundle import load_bundle
from tests.train.runs import config, train
from tests.waiting import PATIENCE

SCRIPT = """
import sys
from pathlib import Path
from tests.train.runs import config, train

options = {"batch_size": 6, "freeze": "encoder", "epochs": 2, "lr": 0.005}
train(config(Path(sys.argv[1]), output=sys.argv[1] + "/two", **options))
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without its distributed part")
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    options = {"batch_size": 6, "freeze": "encoder", "epochs": 2, "lr": 0.005}
    one = train(config(tmp_path, output=str(tmp_path / "one"), **options))
    (tmp_path / "run.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, str(tmp_path / "run.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert one.finished
    a, b = (load_bundle(tmp_path / name).network for name in ("one", "two"))
    # Not to the bit: each process normalises by the statistics of its own half of the batch.
    torch.testing.assert_close(b.project.weight, a.project.weight, rtol=0.1, atol=0.02)
    assert not torch.equal(a.project.weight, load_bundle(tmp_path / "start").network.project.weight)
