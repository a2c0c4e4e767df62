"""The directory of a run: whose it is, and what is written to it while the run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from poolembed import bundle, catalog
from poolembed.errors import OutputError
from poolembed.files.claims import claimed
from poolembed.files.writing import PART, replacing, writing
from poolembed.labels import DataReport
from poolembed.train import checkpoint
from poolembed.train.config import TrainConfig
from poolembed.train.configfile import RUN, is_written
from poolembed.train.results import HISTORY, RESULTS
from poolembed.train.trainer import EpochRecord, Plan


@contextmanager
def opened(config: TrainConfig, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Hold a run's directory, made or checked, for one run alone.

    A finished run's is taken for the same configuration too: it may have been killed before it could say that it had
    finished, so that the same command is given again.

    Raises:
        OutputError: it holds another run, is in use, or cannot be written.
    """
    output = Path(config.output)
    with claimed(output / ".train.lock", f"another run is training into {output}"):
        if resume and not (output / RUN).exists():
            raise OutputError(f"{output} holds no run to resume", hint="leave --resume away to start one")
        if not resume and not overwrite:
            _check_vacant(output, config)
        if overwrite:
            with writing(output):
                for name in (catalog.CONFIG, catalog.WEIGHTS, catalog.HEADS, catalog.CARD, *_OWN):
                    (output / name).unlink(missing_ok=True)
        _tidy(output)
        yield


_OWN = (RUN, HISTORY, RESULTS, "report.html", checkpoint.NAME)


def _tidy(output: Path) -> None:
    """Remove what a run that was killed had not finished, or had finished with."""
    with writing(output):
        bundle.remove_unfinished(output)
        for name in _OWN:
            (output / (name + PART)).unlink(missing_ok=True)
        if (output / catalog.CONFIG).exists():  # the model is there: nothing to go on with
            (output / checkpoint.NAME).unlink(missing_ok=True)


def _check_vacant(output: Path, config: TrainConfig) -> None:
    if (output / catalog.CONFIG).exists():
        if not is_written(output / RUN, config):
            raise OutputError(f"{output} holds a model already", hint="--overwrite replaces it; or choose another -o")
    elif (output / RUN).exists():
        raise OutputError(
            f"{output} holds a run that is not finished",
            hint=f"--resume {output} goes on with it, --overwrite starts again",
        )


class Recording:
    """Keeps ``history.jsonl``, and passes all that it is told on to `on_event`."""

    def __init__(self, on_event: Callable[[DataReport | Plan | EpochRecord], None], output: Path) -> None:
        self._on_event, self._output = on_event, output
        self._lines: list[str] = []

    def __call__(self, event: DataReport | Plan | EpochRecord) -> None:
        """Write the epochs before the checkpoint, as it has them, for those after it come again; then one line each."""
        if isinstance(event, Plan):
            self._lines = [json.dumps(record.as_json()) for record in event.history]
        elif isinstance(event, EpochRecord):
            self._lines.append(json.dumps(event.as_json()))
        if self._lines:
            self._write()
        self._on_event(event)

    def _write(self) -> None:
        path = self._output / HISTORY
        with writing(path, f"--resume {self._output} goes on"), replacing(path, self._output) as part:
            part.write_text("".join(f"{line}\n" for line in self._lines), encoding="utf-8")
