"""The files of a finished run that its report is made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poolembed.errors import OutputError
from poolembed.train.config import TrainConfig
from poolembed.train.configfile import RUN, read_config
from poolembed.train.results import HISTORY, RESULTS


@dataclass(frozen=True)
class RunFiles:
    """What a run left behind.

    Attributes:
        directory: of the run.
        config: ``run.toml``.
        history: ``history.jsonl``, an epoch each (`poolembed.train.trainer.EpochRecord`).
        results: ``results.json`` (`poolembed.train.results.results_of`).
    """

    directory: Path
    config: TrainConfig
    history: list[dict[str, Any]]
    results: dict[str, Any]

    @property
    def held_out(self) -> int:
        """Clips that the run is measured on."""
        return int(self.results["data"]["sides"]["valid"]["clips"])


def read_run(directory: Path) -> RunFiles:
    """Read them.

    Raises:
        OutputError: one is missing or no JSON.
        UsageError: ``run.toml`` is missing or no configuration.
    """
    config = read_config(directory / RUN)
    history = [_json(directory / HISTORY, line) for line in _read(directory / HISTORY).splitlines()]
    results = _json(directory / RESULTS, _read(directory / RESULTS))
    return RunFiles(directory, config, history, results)


def _json(path: Path, text: str) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise OutputError(f"{path} is damaged: {error}") from error
    return value


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
