"""The report as a file."""

from __future__ import annotations

from pathlib import Path

from poolembed.errors import OutputError
from poolembed.files.writing import replacing, writing
from poolembed.train.report.classes import classes, confused
from poolembed.train.report.data import configuration, data
from poolembed.train.report.files import RunFiles, read_run
from poolembed.train.report.learning import learning, summary
from poolembed.train.report.page import element, page
from poolembed.train.report.pooling import pooling

REPORT = "report.html"


def write_report(directory: Path) -> Path:
    """Write ``report.html`` into the directory of a run, whole or not at all, and return its path.

    Args:
        directory: with ``run.toml``, ``history.jsonl`` and ``results.json``.

    Raises:
        OutputError: a file of the run is missing or damaged, or the report cannot be written.
        UsageError: ``run.toml`` is missing or no configuration.
    """
    path = directory / REPORT
    run = read_run(directory)
    try:
        text = _page(run)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise OutputError(f"the files in {directory} are not those of a finished run: {error!r}") from error
    with writing(path), replacing(path, directory) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _page(run: RunFiles) -> str:
    return page(
        run.directory.resolve().name,
        header=summary(run),
        sections=[
            ("learning", "Learning", learning(run)),
            ("pooling", "Pooling", pooling(run)),
            ("classes", "Classes", classes(run)),
            ("confused", "Most confused clips", confused(run)),
            ("data", "Data", data(run)),
            ("configuration", "Configuration", configuration(run)),
        ],
        footer=element("span", f"poolembed {run.results['poolembed']}, torch {run.results['torch']}"),
    )
