"""Groups are called by what is heard in them more than in all songs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from poolembed.embed.silence import silence
from poolembed.identity import ModelIdentity
from poolembed.map import make_map
from poolembed.map.naming import name_groups
from poolembed.search.collection import Collection
from tests.compass import compass
from tests.map.made import collection
from tests.map.test_page import unpack
from tests.search.copies import direction

EAST_NORTH = [0, 5, 355, 88, 92, 90, 90]
GROUPS = np.array([1, 1, 1, 0, 0, 0, 0])


@pytest.fixture
def songs(tmp_path: Path, save_tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Collection:
    _, fingerprint = compass(tmp_path / "models", save_tiny)
    monkeypatch.setenv("POOLEMBED_MODELS", str(tmp_path / "models"))
    made = collection([direction(degrees) for degrees in EAST_NORTH])
    return replace(made, model=ModelIdentity("m", fingerprint, 2))


def test_tags_that_set_a_group_apart(songs: Collection) -> None:
    assert name_groups(songs, GROUPS) == ["North, West", "East, South"]
    assert name_groups(songs, np.zeros(7, int)) == [""]


def test_silent_songs_are_called_nothing(songs: Collection) -> None:
    """Nor do they take part in what others are called."""
    made = collection([*(direction(degrees) for degrees in EAST_NORTH), *[silence(2)] * 5])
    silent = replace(made, model=songs.model)
    assert name_groups(silent, np.append(GROUPS, [2] * 5)) == ["North, West", "East, South", ""]
    assert name_groups(silent, np.append(GROUPS, [0] * 4 + [2])) == ["North, West", "East, South", ""]


def test_the_legend_of_the_map(songs: Collection, tmp_path: Path) -> None:
    make_map(songs, tmp_path / "map.html")
    header, _ = unpack((tmp_path / "map.html").read_text(encoding="utf-8"))
    assert header["columns"][0]["names"] == ["", "1: North, West", "2: East, South"]


@pytest.mark.parametrize("model", [None, ModelIdentity("gone", "f" * 64, 2), ModelIdentity("m", "f" * 64, 2)])
def test_nobody_tells_any(songs: Collection, model: ModelIdentity | None) -> None:
    assert name_groups(replace(songs, model=model), GROUPS) == ["", ""]
    assert name_groups(songs.cut(1), GROUPS) == ["", ""]
