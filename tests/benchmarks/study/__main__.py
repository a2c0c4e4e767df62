"""The whole pooling study: make the data, run every comparison, write ``models/pooling-study.md``.

    pip install -e '.[benchmark]'
    apt-get install fluidsynth timgm6mb-soundfont fluid-soundfont-gm
    tests/benchmarks/fetch_songs.sh songs
    python -m tests.benchmarks.study WORK --esc10 ESC10 --mridangam MRIDANGAM --music songs

WORK is a folder of a few GB to work in; what is there already is not made again, so the same command goes on after a
stop. ``--only esc10,notes`` runs some of the studies; ``--write`` none, but writes the page from the results of all,
which are kept in ``tests/benchmarks/results``. Its first section is ``findings.md`` beside this file, by hand.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poolembed.compare.command import compare, read_results
from poolembed.compare.config import StudyConfig, small_model
from tests.benchmarks.common import RESULTS, cores, machine, say
from tests.benchmarks.study import extras, notes, page, segments, soundscapes


@dataclass(frozen=True)
class Part:
    """One of the studies.

    Attributes:
        name: of its folder and files.
        data: the name of its data.
        settings: of `StudyConfig`.
        needles: its data are the soundscapes, of which more is asked.
    """

    name: str
    data: str
    settings: dict[str, Any] = field(default_factory=dict)
    needles: bool = False


SCENES = small_model(time_strides=(4, 2, 1, 1))
"""A first stride of 4 makes minutes of music affordable; a frame feature still stands for a quarter of a second."""

PARTS = (
    Part("esc10", "esc10", {"epochs": 12, "lr": 2e-3}),
    Part("mridangam", "mridangam", {"epochs": 30, "lr": 2e-3}),
    Part("notes", "notes", {"epochs": 10, "batch_size": 32, "lr": 2e-3}),
    Part("segments", "segments", {"epochs": 6, "batch_size": 32, "lr": 2e-3, "objective": "supcon"}),
    Part(
        "needles-predictions",
        "soundscapes",
        {"epochs": 6, "lr": 2e-3, "seconds": 60.0, "model": SCENES, "pool": "predictions"},
        needles=True,
    ),
    Part("needles-features", "soundscapes", {"epochs": 6, "lr": 2e-3, "seconds": 60.0, "model": SCENES}, needles=True),
)


def make_data(work: Path, name: str, arguments: argparse.Namespace) -> Path:
    """The folder of a data set, made if it is not there."""
    given = {"esc10": arguments.esc10, "mridangam": arguments.mridangam}
    if name in given:
        folder: Path | None = given[name]
        if folder is None or not (folder / "labels.csv").exists():
            raise SystemExit(f"--{name} must be a folder with labels.csv")
        return folder
    folder = work / "data" / name
    makers: dict[str, Callable[[], None]] = {
        "notes": lambda: notes.make(folder),
        "segments": lambda: segments.make(folder, arguments.music),
        "soundscapes": lambda: soundscapes.make(folder, arguments.esc10, arguments.music),
    }
    if not (folder / "labels.csv").exists():
        say(f"making {name}")
        makers[name]()
    return folder


def run(part: Part, work: Path, arguments: argparse.Namespace, stop: threading.Event) -> None:
    """One study, and its results to `RESULTS`."""
    data = make_data(work, part.data, arguments)
    directory = work / "studies" / part.name
    config = StudyConfig(
        data=str(data / "labels.csv"),
        output=str(directory),
        seeds=arguments.seeds,
        jobs=arguments.jobs,
        **part.settings,
    )
    began = time.perf_counter()

    def progress(stage: str, done: float, total: float, note: str = "") -> None:
        if stage == "training":
            say(f"{part.name}, {(time.perf_counter() - began) / 60:.1f} min: {note}")

    results = compare(config, progress, stop=stop)
    if results is None or stop.is_set():
        return
    saved: dict[str, Any] = {"machine": machine(), "minutes": (time.perf_counter() - began) / 60}
    if part.needles:
        say(f"{part.name}: lengths, levels and when")
        saved["scores"] = extras.score_all(directory, data, arguments.jobs or cores())
    RESULTS.mkdir(exist_ok=True)
    for suffix in ("json", "svg"):
        shutil.copyfile(directory / f"study.{suffix}", RESULTS / f"pooling-{part.name}.{suffix}")
    (RESULTS / f"pooling-{part.name}.extras.json").write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("--esc10", type=Path, help="folder of ESC-10 with labels.csv (path, label, fold)")
    parser.add_argument("--mridangam", type=Path, help="folder of mridangam strokes with labels.csv")
    parser.add_argument("--music", type=Path, help="folder of music, from tests/benchmarks/fetch_songs.sh")
    parser.add_argument("--only", help=f"some of {','.join(part.name for part in PARTS)}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--write", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    if not arguments.write:
        if arguments.work is None:
            parser.error("WORK is missing")
        wanted = arguments.only.split(",") if arguments.only else [part.name for part in PARTS]
        stop = threading.Event()
        signal.signal(signal.SIGINT, lambda number, frame: stop.set())
        for part in PARTS:
            if part.name in wanted and not stop.is_set():
                run(part, arguments.work, arguments, stop)
    found = {
        part.name: read_results(path) for part in PARTS if (path := RESULTS / f"pooling-{part.name}.json").exists()
    }
    page.write(found)


if __name__ == "__main__":
    main()
