"""A damaged file of each kind, so that every change meets some; `tests/stress/hostile.py` tries thousands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="forks, limits memory and looks into /proc")
def test_damaged_files_get_clear_errors() -> None:
    command = [sys.executable, "-m", "tests.stress.hostile", "--trials", "1", "--seed", "1", "--patience", "200"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
