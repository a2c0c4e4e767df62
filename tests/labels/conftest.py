from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.labels.files import NAMES, Write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with four files, which nothing here decodes."""
    for name in NAMES:
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Write:
    def write_text(text: str) -> Path:
        (folder / "labels.csv").write_text(text, encoding="utf-8")
        return folder / "labels.csv"

    return write_text


@pytest.fixture
def touch(tmp_path: Path) -> Callable[..., Path]:
    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make
