"""``poolembed models``: what is at hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


def test_a_table(cli: Cli) -> None:
    done = cli("models")
    assert done.code == 0
    text = done.out.decode()
    for word in ("name", "dimension", "size", "pooling", "licence", "base", "toy", "other", "CC0-1.0", "autopool"):
        assert word in text
    assert done.err == ""


def test_json(cli: Cli, models: Path) -> None:
    described = {model["name"]: model for model in cli("models", "--json").json}
    assert described.keys() >= {"base", "toy", "other"}
    toy = described["toy"]
    assert toy["embedding_size"] == 8
    assert toy["bytes"] == sum(path.stat().st_size for path in (models / "toy").iterdir())
    assert toy["pooling"] == "autopool per channel"
    assert toy["license"] == "CC0-1.0"
    assert toy["about"] == "toy is for tests. Not trained."
    assert toy["path"] == str(models / "toy")
    assert described["base"]["embedding_size"] == 512


def test_one_broken_bundle_does_not_hide_the_others(
    cli: Cli, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(models, tmp_path / "mine")
    (tmp_path / "mine" / "other" / "config.json").write_text("{")
    monkeypatch.setenv("POOLEMBED_MODELS", str(tmp_path / "mine"))
    done = cli("models", "--json")
    assert {model["name"] for model in done.json} >= {"base", "toy"}
    assert "other" in done.err


def test_every_listed_name_loads(cli: Cli, songs: Path) -> None:
    for model in cli("models", "--json").json:
        assert cli("embed", songs / "a.wav", "-o", model["name"], "-m", model["name"]).code == 0


@pytest.mark.parametrize("arguments", [["models", "extra"], ["models", "--nonsense"]])
def test_wrong_use(cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert (done.code, done.out) == (2, b"")
