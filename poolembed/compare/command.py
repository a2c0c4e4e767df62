"""``poolembed compare`` as a function: run, collect, write ``study.json``, ``study.md`` and ``study.svg``."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from poolembed.compare.config import StudyConfig
from poolembed.compare.figure import svg
from poolembed.compare.results import Results, results_of
from poolembed.compare.study import run_study
from poolembed.compare.tables import markdown
from poolembed.errors import TrainingError
from poolembed.files.writing import replacing, writing
from poolembed.progress import Progress, silent

JSON, PAGE, FIGURE = "study.json", "study.md", "study.svg"


def compare(config: StudyConfig, progress: Progress = silent, *, stop: threading.Event | None = None) -> Results | None:
    """Compare poolings, and write what came of it to ``config.output``; runs that are done are not done again.

    Args:
        config: of the study.
        progress: told how far it is.
        stop: once set, the runs in hand are finished, and what there is until then is written.

    Returns:
        What is in ``study.json``; None if the study was stopped before its first final run.

    Raises:
        TrainingError: no run came to its end; what one of them died of.
        UsageError, LabelsError, OutputError: as `run_study`.
    """
    study = run_study(config, progress, stop=stop)
    if study is None:
        return None
    results = results_of(study)
    if results is not None:
        write(Path(config.output), results)
    elif study.finished:
        run, reason = next(iter(study.failures.items()))
        raise TrainingError(f"every run of the study failed; {run}: {reason}")
    return results


def write(directory: Path, results: Results) -> None:
    """Write the three files, each whole.

    Raises:
        OutputError: one cannot be written.
    """
    contents = {
        JSON: msgspec.json.format(msgspec.json.encode(results), indent=1).decode(),
        PAGE: markdown(results),
        FIGURE: svg(results),
    }
    for name, text in contents.items():
        with writing(directory / name), replacing(directory / name, directory) as part:
            part.write_text(text, encoding="utf-8")


def read_results(path: Path) -> Results:
    """What a ``study.json`` holds."""
    return msgspec.json.decode(path.read_bytes(), type=Results)
