"""How long a map takes to make, how large it is, and how smoothly it moves: ``python -m tests.benchmarks.map``.

Songs are made up: vectors around random directions, of which each leans towards a second one. The page is moved in a
headless Chromium by real mouse input, a step per frame, and frames are counted by the page's own animation clock. There
is no graphics card in it, so whoever has one sees at least as much.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.map.layout import Layout, lay_out
from poolembed.map.page import render
from poolembed.map.songs import Folder, Songs
from poolembed.search.collection import Collection
from tests.benchmarks.common import Table, machine, middle, report, say
from tests.map.chromium import Page, browsing, find_chromium

SIZE = 512
WIDTH, HEIGHT = 1280, 800
FRAMES = 120
WORDS = ("river", "night", "blue", "silver", "horse", "winter", "dance", "shadow", "golden", "morning", "wolf", "tide")


def vectors(count: int) -> NDArray[np.float32]:
    """Unit vectors ``(count, SIZE)`` around a hundred directions."""
    random = np.random.default_rng(0)
    middles = random.standard_normal((100, SIZE))
    one, other = random.integers(0, 100, (2, count))
    share = random.beta(0.5, 1.5, count)[:, None]
    rows: NDArray[np.float64] = (
        middles[one] * (1 - share) + middles[other] * share + 0.6 * random.standard_normal((count, SIZE))
    )
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def songs(count: int) -> Songs:
    """Titles, artists, albums and paths as long as real ones."""
    random = np.random.default_rng(1)
    words = np.array(WORDS)[random.integers(0, len(WORDS), (count, 4))]
    artists = [f"The {WORDS[at % 12]} {WORDS[at // 12 % 12]}s {at}" for at in random.integers(0, 2000, count)]
    albums = [f"{artist[4:]}, {number}" for artist, number in zip(artists, random.integers(1, 6, count), strict=True)]
    titles = [" ".join(row).capitalize() for row in words]
    folders: dict[Folder, int] = {}
    folder = []
    for artist, album in zip(artists, albums, strict=True):
        path = f"/home/someone/Music/{artist}/{album}/"
        folder.append(folders.setdefault(Folder(path, f"file://{path.replace(' ', '%20')}"), len(folders)))
    names = [f"{number:02d} - {title}.mp3" for number, title in zip(random.integers(1, 20, count), titles, strict=True)]
    tops = [artist[4] for artist in artists]
    return Songs(titles, artists, albums, names, tops, list(folders), folder, {}, [])


def laid_out(rows: NDArray[np.float32]) -> tuple[Layout, dict[str, float]]:
    """A layout, and seconds of each of its stages."""
    keys = [str(row) for row in range(len(rows))]
    stages: list[tuple[str, float]] = []
    collection = Collection("made up", keys, keys, rows, True, None, "")

    def begin(stage: str, done: float, total: float, note: str = "") -> None:
        stages.append((stage, time.perf_counter()))

    found = lay_out(collection, begin)
    ends = [began for _, began in stages[1:]] + [time.perf_counter()]
    return found, {stage: end - began for (stage, began), end in zip(stages, ends, strict=True)}


COUNT = """
new Promise((done) => {
  const times = [];
  const step = (now) => {
    times.push(now);
    if (window.enough && times.length > 2) done(times.slice(1).map((time, at) => time - times[at]));
    else requestAnimationFrame(step);
  };
  window.enough = false;
  requestAnimationFrame(step);
})
"""


def frames(page: Page, move: Any) -> list[float]:
    """Milliseconds between the frames while the map is moved ``FRAMES`` times."""
    page.js(f"void (window.counted = {COUNT.strip()})")
    for number in range(FRAMES):
        move(number)
    return list(page.js("(window.enough = true, window.counted)"))


def moved(page: Page) -> dict[str, list[float]]:
    """Frames while zooming in and out, dragging, and hovering."""
    found = {}
    page.mouse("mouseMoved", 760, 400)

    def zoom(number: int) -> None:
        page.mouse("mouseWheel", 760, 400, deltaX=0, deltaY=-60 if number < FRAMES // 2 else 60)

    def drag(number: int) -> None:
        page.mouse(
            "mouseMoved", 760 + 150 * np.sin(number / 9), 400 + 150 * np.cos(number / 9), button="left", buttons=1
        )

    def hover(number: int) -> None:
        page.mouse("mouseMoved", 760 + 250 * np.sin(number / 9), 400 + 250 * np.cos(number / 9))

    found["zooming"] = frames(page, zoom)
    page.mouse("mousePressed", 760, 550, button="left", clickCount=1)
    found["dragging"] = frames(page, drag)
    page.mouse("mouseReleased", 760, 400, button="left", clickCount=1)
    found["hovering"] = frames(page, hover)
    return found


def browser(chromium: str, page: str) -> tuple[dict[str, list[float]], float]:
    """Frames of a page, and seconds until it was there."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = Path(folder) / "map.html"
        place.write_text(page)
        with browsing(chromium, Path(folder) / "profile") as opened:
            began = time.perf_counter()
            opened.go(place.as_uri(), width=WIDTH, height=HEIGHT)
            opened.until("window.poolembed !== undefined")
            seconds = time.perf_counter() - began
            return moved(opened), seconds


def main() -> None:
    """Make a map, open it, move it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--songs", type=int, default=50_000)
    count = parser.parse_args().songs
    say(f"laying out {count} vectors")
    layout, seconds = laid_out(vectors(count))
    began = time.perf_counter()
    page = render(songs(count), layout, "Made up.")
    seconds["writing the page"] = time.perf_counter() - began
    making = Table(f"Making a map of {count:,} songs, {SIZE} numbers each", ["stage", "seconds"])
    for stage, taken in seconds.items():
        making.add(stage, f"{taken:.1f}")
    parts: list[Table | str] = [making, f"The page has {len(page) / 1e6:.1f} MB. Layout by {layout.method}."]
    about = machine() | {"scikit-learn": importlib.metadata.version("scikit-learn")}
    data: dict[str, Any] = {"songs": count, "seconds": seconds, "page_bytes": len(page)}
    chromium = find_chromium()
    if chromium is None:
        parts.append("No Chromium is installed, so frames were not counted.")
    else:
        say("moving it")
        found, opening = browser(chromium, page)
        version = subprocess.run([chromium, "--version"], check=True, capture_output=True, text=True).stdout
        about["chromium"] = version.split()[1]
        moving = Table(
            f"Moving it, {WIDTH} x {HEIGHT}, headless, no graphics card",
            ["while", "frames per second", "median ms", "95 % within ms"],
        )
        for what, times in found.items():
            rate = 1000 * len(times) / sum(times)
            moving.add(what, f"{rate:.0f}", f"{middle(times):.1f}", f"{np.percentile(times, 95):.1f}")
        parts += [moving, f"It was there after {opening:.1f} s. The browser's clock allows 60 frames per second."]
        data |= {"milliseconds": found, "opening_seconds": opening}
    report("map", "The map", "map", about, parts, data)


if __name__ == "__main__":
    main()
