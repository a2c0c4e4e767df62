"""What befalls a run from within: called in it before the command, by `tests.stress.zygote`."""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def checkpoint_always() -> None:
    """A checkpoint after every step of training, and not every minute."""
    from poolembed.train import trainer

    trainer.CHECKPOINT_EVERY = 0.0


def after_listing(songs: str) -> None:
    """Once files are listed, one vanishes, one is emptied, one becomes a directory, and one another song."""
    import poolembed.embed.run as run

    def befall() -> None:
        (Path(songs) / "0.wav").unlink()
        (Path(songs) / "1.flac").write_bytes(b"")
        (Path(songs) / "3.mp3").unlink()
        (Path(songs) / "3.mp3").mkdir()
        shutil.copy(Path(songs) / "sub" / "2.wav", Path(songs) / "4.aiff")

    _then(run, "find_audio", befall)


def after_planning(songs: str) -> None:
    """Once it is known what is to be done, and how large files are, one vanishes and one becomes another song."""
    from poolembed.embed.outputs import OutputDirectory

    def befall() -> None:
        (Path(songs) / "0.wav").unlink()
        shutil.copyfile(Path(songs) / "sub" / "2.wav", Path(songs) / "4.aiff")

    _then(OutputDirectory, "plan", befall)


def removed_midway(output: str) -> None:
    """After the second song the directory of the embeddings is removed."""
    from poolembed.embed.outputs import OutputDirectory

    songs = itertools.count(1)
    _then(OutputDirectory, "write", lambda: shutil.rmtree(output) if next(songs) == 2 else None)


def clock_jumps() -> None:
    """The clock of the day goes an hour back, two ahead, and so on."""
    jumps = itertools.cycle([-3600.0, 7200.0, 0.0, -86400.0 * 400])
    true = time.time
    time.time = lambda: true() + next(jumps)


def clock_stands() -> None:
    """No clock moves at all."""
    time.time = lambda: 1.7e9
    time.perf_counter = lambda: 1.0


def hanging_decoder() -> None:
    """Opening ``hang.wav`` never comes back."""
    source: Any = importlib.import_module("poolembed.audio.source")
    true = source.open_audio

    def open_audio(path: Any, *rest: Any, **named: Any) -> Any:
        while os.path.basename(path) == "hang.wav":  # noqa: PTH119
            time.sleep(1000)
        return true(path, *rest, **named)

    source.open_audio = open_audio


def _then(holder: Any, name: str, befall: Callable[[], None]) -> None:
    """Something befalls the run each time that a function returns."""
    true = getattr(holder, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = true(*arguments, **named)
        befall()
        return result

    setattr(holder, name, wrapped)
