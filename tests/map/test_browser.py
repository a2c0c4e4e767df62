"""The page in a browser: what is drawn, hovered, clicked, found and played, and that it asks for nothing but songs."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from poolembed.map.page import render
from poolembed.map.songs import describe
from tests.map.chromium import Page, browsing, find_chromium
from tests.map.made import collection, layout, song
from tests.map.test_page import EVIL, places, songs

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

WIDTH, HEIGHT = 1200, 800
PAPER = {False: (255, 255, 255), True: (20, 24, 28)}
FIRST = {False: (31, 111, 180), True: (98, 174, 240)}
"""The first colour, in light and in dark."""

PLACES = np.array([[0, 0], [4, 0], [4, 3], [0, 3], [2, 1], [2, 2]], np.float32)
GROUPS = [0, 0, 1, 1, 0, 0]
TAGS: list[dict[str, str]] = [
    {"title": "Für Elise", "artist": "Beethoven", "album": "Bagatelles"},
    {"title": "Gymnopédie", "artist": "Satie"},
    {"title": EVIL, "artist": EVIL},
    {},
    {"title": "Moonlight", "artist": "Beethoven"},
    {"title": "Clair de lune", "artist": "Debussy"},
]
NAMES = ["a/1.wav", "a/2.flac", 'a/3 "><img src=x onerror=evil=1>#?%.wav', "b/4.ogg", "b/5.wav", "b/6.wav"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    assert CHROMIUM is not None
    with browsing(CHROMIUM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six songs, of which 5.wav is no audio and 6.wav is gone; and, in a folder of its own, their map."""
    root = tmp_path_factory.mktemp("library")
    paths = [song(root / "music" / name, row, **TAGS[row]) for row, name in enumerate(NAMES)]
    vectors = collection(np.eye(6), paths, NAMES)
    paths[5].unlink()
    for place in (root / "maps" / "map.html", root / "music" / "map.html"):
        place.parent.mkdir(exist_ok=True)
        place.write_text(render(describe(vectors, place), layout(PLACES, GROUPS), "Made for a test."))
    (root / "music" / "b" / "5.wav").write_bytes(b"no music")
    return root


@pytest.fixture
def opened(page: Page, library: Path) -> Iterator[Page]:
    """The map, opened; in the end it must have asked for nothing but itself and songs, and complained of nothing."""
    go(page, library / "maps" / "map.html")
    yield page
    own = [url for url in page.requests() if not url.startswith("data:")]  # the icons of the browser's own player
    assert all(url.startswith("file:///") and url.endswith((".html", ".wav", ".flac", ".ogg")) for url in own), own
    gone = [line for line in page.complaints() if "ERR_FILE_NOT_FOUND" not in line]
    assert gone == []
    assert page.js("window.evil") is None
    assert page.js("document.images.length") == 0


def go(page: Page, place: Path | str, **how: Any) -> None:
    page.go(place.as_uri() if isinstance(place, Path) else place, width=WIDTH, height=HEIGHT, **how)
    page.until("window.poolembed !== undefined")


def at(page: Page, row: int) -> tuple[float, float]:
    """Where a song is in the window, when nothing moves any more."""
    settled(page)
    x, y = page.js(f"poolembed.view.screen({row})")
    return x, y


def settled(page: Page) -> None:
    where = "JSON.stringify([poolembed.view.k, poolembed.view.x, poolembed.view.y])"
    # Whatever moves does so with every frame, however rarely a busy machine draws one.
    frame = "await new Promise(requestAnimationFrame)"
    page.until(f"(async () => {{ const was = {where}; {frame}; {frame}; {frame}; return was === {where} }})()")


def text(page: Page, name: str) -> str:
    return str(page.js(f"document.getElementById('{name}').innerText"))


def pixels(page: Page, tmp_path: Path) -> NDArray[np.uint8]:
    """What is to be seen: ``(HEIGHT, WIDTH, 3)``."""
    page.js("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.screenshot(tmp_path / "seen.png")
    return np.array(Image.open(BytesIO((tmp_path / "seen.png").read_bytes())).convert("RGB"))


def near(one: Any, other: Any, within: int = 40) -> bool:
    return bool(np.abs(np.array(one, int) - np.array(other, int)).max() <= within)


class TestLooking:
    @pytest.mark.parametrize("dark", [False, True])
    def test_dots_are_where_the_songs_are(self, opened: Page, tmp_path: Path, dark: bool) -> None:
        opened.colours(dark=dark)
        seen = pixels(opened, tmp_path)
        spots = [at(opened, row) for row in range(6)]
        for group, (x, y) in zip(GROUPS, spots, strict=True):
            assert near(seen[int(y), int(x)], FIRST[dark]) == (group == 0)
            assert not near(seen[int(y), int(x)], PAPER[dark])
            assert near(seen[int(y) + 25, int(x)], PAPER[dark])
        # In proportion, and y upwards.
        (x0, y0), (x1, y1), (x2, y2) = spots[0], spots[1], spots[3]
        assert y0 == pytest.approx(y1)
        assert x0 == pytest.approx(x2)
        assert (x1 - x0) / (y0 - y2) == pytest.approx(4 / 3, rel=1e-3)

    def test_dots_lie_beside_the_panel(self, opened: Page) -> None:
        edge = opened.js("document.getElementById('panel').getBoundingClientRect().right")
        for row in range(6):
            x, y = at(opened, row)
            assert edge < x < WIDTH
            assert 0 < y < HEIGHT

    def test_hover_shows_the_song(self, opened: Page, library: Path) -> None:
        opened.mouse("mouseMoved", *at(opened, 0))
        path = library / "music" / "a" / "1.wav"
        assert text(opened, "tip").split("\n\n") == ["Für Elise", "Beethoven \N{EN DASH} Bagatelles", str(path)]
        x, y = at(opened, 3)
        opened.mouse("mouseMoved", x + 5, y - 4)
        assert text(opened, "tip").split("\n\n")[0] == "4.ogg"
        opened.mouse("mouseMoved", x + 60, y - 60)
        assert opened.js("document.getElementById('tip').hidden")
        opened.mouse("mouseMoved", *at(opened, 5))
        assert text(opened, "tip").endswith("6.wav (was not there)")

    def test_text_from_songs_is_text(self, opened: Page) -> None:
        opened.mouse("mouseMoved", *at(opened, 2))
        assert text(opened, "tip").split("\n\n")[0] == EVIL
        opened.click(*at(opened, 2))
        assert text(opened, "title") == EVIL
        opened.js("document.getElementById('search').focus()")
        opened.write("onerror")
        assert text(opened, "results").startswith(EVIL)

    def test_titles_stand_beside_few_dots(self, opened: Page, tmp_path: Path) -> None:
        """To the right of a dot; to the left of one at the edge of the window."""
        seen = pixels(opened, tmp_path).astype(int).sum(2)
        for row, right in ((0, True), (1, False)):
            x, y = map(int, at(opened, row))
            sides = [seen[y - 8 : y + 8, x - 60 : x - 14], seen[y - 8 : y + 8, x + 14 : x + 60]]
            assert [bool((side < 200).any()) for side in sides] == [not right, right]


class TestPlaying:
    @pytest.mark.parametrize("row", [0, 1, 2, 3])
    def test_a_click_plays_the_song_under_the_pointer(self, opened: Page, library: Path, row: int) -> None:
        """By a real click, through the browser's own input; what plays is heard to go on."""
        opened.click(*at(opened, row))
        opened.until("document.getElementById('audio').currentTime > 0.1")
        assert opened.js("document.getElementById('audio').currentSrc") == (library / "music" / NAMES[row]).as_uri()
        assert opened.js("document.getElementById('audio').duration") == pytest.approx(2, abs=0.1)
        assert text(opened, "title") == TAGS[row].get("title", Path(NAMES[row]).name)
        assert text(opened, "path") == str(library / "music" / NAMES[row])
        assert text(opened, "trouble") == ""

    def test_a_second_click_and_the_space_bar_pause(self, opened: Page) -> None:
        opened.js("document.getElementById('audio').loop = true")  # so that it is still playing, however late we look
        opened.click(*at(opened, 0))
        opened.until("document.getElementById('audio').currentTime > 0")
        opened.click(*at(opened, 0))
        assert opened.js("document.getElementById('audio').paused")
        opened.press(" ")
        opened.until("!document.getElementById('audio').paused")

    def test_a_drag_plays_nothing(self, opened: Page) -> None:
        x, y = at(opened, 0)
        opened.drag((x, y), (x + 50, y))
        assert opened.js("document.getElementById('player').hidden")

    def test_the_most_similar_songs_can_be_played(self, opened: Page) -> None:
        opened.click(*at(opened, 0))
        names = opened.js("[...document.querySelectorAll('#neighbours button')].map(b => b.innerText.split('\\n')[0])")
        cosines = opened.js("[...document.querySelectorAll('#neighbours small')].map(s => s.innerText)")
        like = opened.js("poolembed.songs.like(0)")
        assert names == [opened.js(f"poolembed.songs.title({row})") for row in like]
        assert cosines == ["0.90", "0.50", "-0.25"]
        opened.js("document.querySelector('#neighbours button').click()")
        assert text(opened, "title") == names[0]

    def test_what_cannot_be_played_is_said(self, opened: Page) -> None:
        opened.click(*at(opened, 4))
        opened.until("document.getElementById('trouble').innerText")
        assert text(opened, "trouble") == "The file is no longer there, or this browser does not play .wav files."
        opened.click(*at(opened, 5))
        opened.until("document.getElementById('trouble').innerText.startsWith('The file is not there')")
        opened.click(*at(opened, 0))
        opened.until("document.getElementById('audio').currentTime > 0")
        assert text(opened, "trouble") == ""

    def test_songs_that_are_nowhere(self, page: Page, tmp_path: Path) -> None:
        place = tmp_path / "map.html"
        vectors = collection(np.eye(3), ["0", "1", "2"])
        place.write_text(render(describe(vectors, place), layout(places(3), [0, 0, 1]), ""))
        go(page, place)
        page.click(*at(page, 1))
        assert text(page, "trouble") == "This collection does not say where its songs are."
        assert page.complaints() == []

    def test_beside_the_songs_it_plays_from_a_server_too(self, page: Page, library: Path) -> None:
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

        handler = functools.partial(Quiet, directory=str(library))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever).start()
            try:
                root = f"http://127.0.0.1:{server.server_address[1]}"
                go(page, f"{root}/music/map.html")
                page.click(*at(page, 0))
                page.until("document.getElementById('audio').currentTime > 0")
                assert page.js("document.getElementById('audio').currentSrc") == f"{root}/music/a/1.wav"
                go(page, f"{root}/maps/map.html")
                page.click(*at(page, 0))
                page.until("document.getElementById('trouble').innerText.includes('open the map as a file')")
                page.go("about:blank")
            finally:
                server.shutdown()


class TestFinding:
    def search(self, page: Page, words: str) -> list[str]:
        """Type into the box; the titles that are listed."""
        page.press("/")
        page.js("document.getElementById('search').select()")
        page.write(words)
        found: list[str] = page.js("[...document.querySelectorAll('#results button')].map(b => b.title)")
        return found

    def test_titles_artists_and_paths_without_case_or_accents(self, opened: Page) -> None:
        assert self.search(opened, "beethoven") == ["Für Elise", "Moonlight"]
        assert text(opened, "found") == "2 songs found"
        opened.press("Escape")
        assert text(opened, "found") == ""
        opened.press("Escape")
        assert self.search(opened, "FUR  bagat") == ["Für Elise"]
        assert text(opened, "found") == "1 song found"
        opened.press("Escape")
        opened.press("Escape")
        assert self.search(opened, "music/b ogg") == ["4.ogg"]
        opened.press("Escape")
        opened.press("Escape")
        assert self.search(opened, "nothing like this") == []
        assert text(opened, "found") == "No song has all of these words"

    def test_what_is_not_found_fades_and_cannot_be_clicked(self, opened: Page, tmp_path: Path) -> None:
        self.search(opened, "moonlight")
        seen = pixels(opened, tmp_path)
        colours = [seen[int(y), int(x)] for x, y in (at(opened, row) for row in range(6))]
        assert [near(colour, FIRST[False]) for colour in colours] == [False, False, False, False, True, False]
        opened.mouse("mouseMoved", *at(opened, 0))
        assert opened.js("document.getElementById('tip').hidden")

    def test_enter_plays_the_first_one(self, opened: Page) -> None:
        self.search(opened, "elise")
        opened.press("Enter")
        opened.until("document.getElementById('audio').currentTime > 0")
        assert text(opened, "title") == "Für Elise"
        x, y = at(opened, 0)
        player = opened.js("document.getElementById('player').getBoundingClientRect().top")
        assert 288 < x < WIDTH
        assert 0 < y < player

    def test_the_legend_shows_one_colour_alone(self, opened: Page, tmp_path: Path) -> None:
        names = "[...document.querySelectorAll('#legend button')].map(b => b.innerText.replace(/\\s+/g, ' '))"
        assert opened.js("[...document.querySelectorAll('#by option')].map(o => o.text)") == [
            "cluster", "folder", "artist", "album",
        ]  # fmt: skip
        assert opened.js(names) == ["1: like Für Elise 4", f"2: like {EVIL} 2".replace("  ", " ")]
        opened.js("(s => { s.selectedIndex = 1; s.dispatchEvent(new Event('change')) })(document.getElementById('by'))")
        assert opened.js(names) == ["a 3", "b 3"]
        button = opened.js(
            "(r => [r.x + 20, r.y + 10])(document.querySelector('#legend button').getBoundingClientRect())"
        )
        opened.click(*button)
        assert opened.js("document.querySelector('#legend button').getAttribute('aria-pressed')") == "true"
        seen = pixels(opened, tmp_path)
        shown = [near(seen[int(y), int(x)], FIRST[False]) for x, y in (at(opened, row) for row in range(6))]
        assert shown == [True, True, True, False, False, False]
        opened.click(*button)
        assert opened.js("document.querySelector('#legend button').getAttribute('aria-pressed')") == "false"

    def test_songs_without_a_tag_have_a_line_of_their_own(self, opened: Page) -> None:
        opened.js("(s => { s.selectedIndex = 3; s.dispatchEvent(new Event('change')) })(document.getElementById('by'))")
        assert "no album" in text(opened, "legend")
        assert "Bagatelles" in text(opened, "legend")


class TestMoving:
    def test_the_wheel_zooms_around_the_pointer(self, opened: Page) -> None:
        x, y = at(opened, 4)
        away = np.subtract(at(opened, 5), (x, y))
        opened.mouse("mouseWheel", x, y, deltaX=0, deltaY=-300)
        opened.until(f"Math.abs(poolembed.view.screen(5)[1] - {y + away[1]}) > 1")
        assert at(opened, 4) == pytest.approx((x, y), abs=0.5)
        assert np.subtract(at(opened, 5), (x, y)) == pytest.approx(away * np.exp(0.45), rel=1e-3, abs=0.5)

    def test_a_drag_moves_the_map(self, opened: Page) -> None:
        before = np.array([at(opened, row) for row in range(6)])
        opened.drag((700, 20), (760, 50))
        after = np.array([at(opened, row) for row in range(6)])
        np.testing.assert_allclose(after - before, np.tile([60, 30], (6, 1)), atol=0.5)

    def test_keys_and_buttons(self, opened: Page) -> None:
        opened.js("document.getElementById('map').focus()")
        begin = np.array([at(opened, row) for row in (0, 1)])
        opened.press("ArrowLeft")
        assert at(opened, 0) == pytest.approx(begin[0] + (80, 0), abs=0.5)
        opened.press("+")
        wide = np.subtract(at(opened, 1), at(opened, 0))[0]
        assert wide == pytest.approx(1.4 * (begin[1] - begin[0])[0], rel=1e-3)
        opened.press("0")
        assert np.array([at(opened, row) for row in (0, 1)]) == pytest.approx(begin, abs=0.5)
        opened.js("document.getElementById('in').click()")
        opened.js("document.getElementById('all').click()")
        assert np.array([at(opened, row) for row in (0, 1)]) == pytest.approx(begin, abs=0.5)

    def test_two_fingers_zoom(self, opened: Page) -> None:
        def touch(kind: str, *points: tuple[float, float]) -> None:
            fingers = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
            opened.call("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)

        before = np.subtract(at(opened, 1), at(opened, 0))[0]
        touch("touchStart", (600, 400))
        touch("touchStart", (600, 400), (700, 400))
        for step in range(1, 5):
            touch("touchMove", (600 - 25 * step, 400), (700 + 25 * step, 400))
        touch("touchEnd")
        assert np.subtract(at(opened, 1), at(opened, 0))[0] == pytest.approx(3 * before, rel=0.02)

    def test_a_narrow_window(self, opened: Page, library: Path) -> None:
        opened.call("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=2, mobile=True)
        opened.until("document.getElementById('map').width === 800")
        panel = opened.js("(r => [r.right, r.bottom])(document.getElementById('panel').getBoundingClientRect())")
        assert panel[0] <= 400
        opened.until(f"poolembed.view.screen(3)[1] > {panel[1]}")
        for row in range(6):
            x, y = at(opened, row)
            assert 0 < x < 400
            assert panel[1] < y < 800


def test_among_many_the_nearest_is_hovered(page: Page, tmp_path: Path) -> None:
    """The grid finds what comparing all finds, wherever the map was moved to."""
    count = 3000
    given = songs(count, titles=[f"song {row}" for row in range(count)])
    place = tmp_path / "many.html"
    place.write_text(render(given, layout(places(count), [row % 7 for row in range(count)]), ""))
    go(page, place)
    page.mouse("mouseWheel", 700, 400, deltaX=0, deltaY=-900)
    settled(page)
    spots = np.array(page.js("poolembed.songs.rows.map(i => poolembed.view.screen(i))"))
    random = np.random.default_rng(0)
    hit = 0
    for x, y in np.column_stack([random.uniform(500, 900, 25), random.uniform(250, 550, 25)]).round():
        page.mouse("mouseMoved", x, y)
        away = np.hypot(*(spots - (x, y)).T)
        if page.js("document.getElementById('tip').hidden"):
            assert away.min() > 6
        else:
            hit += 1
            assert text(page, "tip").split("\n\n")[0] == f"song {np.argmin(away)}"
    assert hit > 5
    assert page.complaints() == []
