"""The page as text: everything from songs is inside one block of data, and the block can be read back."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolembed.errors import OutputError
from poolembed.map import make_map
from poolembed.map.page import COLOURS, render
from poolembed.map.songs import Folder, Songs
from tests.map.made import collection, layout, song

EVIL = '</script><script>window.evil = 1</script><img src=x onerror="window.evil = 1">@DATA@'


def songs(count: int, text: str = "x", **columns: Any) -> Songs:
    """Songs about which nothing is known but one text."""
    filled = {name: [text] * count for name in ("titles", "artists", "albums", "names", "tops")}
    known = {"folders": [Folder(f"{text}/", "./")], "folder": [0] * count, "urls": {}, "missing": []}
    return Songs(**{**filled, **known, **columns})


def places(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((count, 2)).astype(np.float32)


def unpack(page: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON and arrays, as the page's script reads them."""
    (block,) = re.findall(r'<script type="application/octet-stream" id="data">([A-Za-z0-9+/=]+)</script>', page)
    data = gzip.decompress(base64.b64decode(block))
    start = 4 + int.from_bytes(data[:4], "little")
    header = json.loads(data[4:start])
    arrays = {}
    for name, (kind, offset, length) in header["arrays"].items():
        assert (start + offset) % np.dtype(kind).itemsize == 0, "a typed array cannot start there"
        arrays[name] = np.frombuffer(data, f"<{kind}", length, start + offset)
    return header, arrays


@settings(max_examples=50)
@given(st.lists(st.text(min_size=1).map(lambda text: "".join(filter(str.isprintable, text)) or "x"), min_size=3))
def test_what_is_packed_can_be_read_back(texts: list[str]) -> None:
    count = len(texts)
    made = layout(places(count), [row % 2 for row in range(count)])
    header, arrays = unpack(render(songs(count, titles=texts, artists=texts, missing=[1]), made, "how"))
    assert header["count"] == count
    assert (header["titles"], header["missing"], header["made"]) == (texts, [1], "how")
    columns = {column["id"]: column["names"] for column in header["columns"]}
    assert [columns["artist"][number] for number in arrays["artist"]] == texts
    assert columns["artist"][0] == ""
    counts = [texts.count(name) for name in columns["artist"][1:]]
    assert counts == sorted(counts, reverse=True)
    assert [columns["cluster"][number] for number in arrays["cluster"]] == [
        f"{group + 1}: like {texts[made.middles[group]]}" for group in made.groups
    ]
    near = min(3, count - 1)
    assert header["near"] == near
    assert arrays["like"].reshape(count, near).tolist() == made.near.rows.tolist()
    np.testing.assert_allclose(arrays["cosines"].reshape(count, near) / 100, made.near.cosines[:, :near], atol=0.005)


def test_many_songs_and_folders_need_wider_numbers() -> None:
    count = 300
    given = songs(count, folders=[Folder(f"/{n}/", f"file:///{n}/") for n in range(count)], folder=list(range(count)))
    header, arrays = unpack(render(given, layout(places(count), [0] * count), ""))
    assert header["arrays"]["folder"][0] == header["arrays"]["like"][0] == "u2"
    assert arrays["folder"].tolist() == list(range(count))


def test_narrow_numbers_may_stand_before_wide_ones() -> None:
    count = 301
    given = songs(count, folders=[Folder("a/", ""), Folder("b/", "")], folder=[row % 2 for row in range(count)])
    header, arrays = unpack(render(given, layout(places(count), [0] * count), ""))
    assert (header["arrays"]["folder"][0], header["arrays"]["like"][0]) == ("u1", "u2")
    assert arrays["folder"].tolist() == given.folder


def test_places_keep_their_proportions() -> None:
    given = np.array([[0, 0], [4, 0], [0, 1], [2, 1]], np.float32)
    _, arrays = unpack(render(songs(4), layout(given, [0, 0, 0, 0]), ""))
    found = arrays["places"].reshape(4, 2).astype(float)
    np.testing.assert_allclose((found - found[0]) / 65535 * 4, given * (1, -1), atol=1e-4)  # y grows downwards there
    assert found.min() == 0
    assert found.max() == 65535


def test_songs_in_one_place_are_in_the_middle() -> None:
    _, arrays = unpack(render(songs(3), layout(np.zeros((3, 2), np.float32), [0, 0, 0]), ""))
    assert set(arrays["places"].tolist()) <= {32767, 32768}


def test_nothing_from_songs_is_part_of_the_document() -> None:
    """The two pages differ in their block of data, and in nothing else."""
    pages = [render(songs(3, text), layout(places(3), [0, 0, 1]), text) for text in ("harmless", EVIL)]
    assert unpack(pages[1])[0]["titles"] == [EVIL] * 3
    without = {re.sub(r'(id="data">)[^<]+', r"\1", page) for page in pages}
    assert len(without) == 1
    assert "window.evil" not in pages[1]


def test_the_policy_lets_only_this_script_run_and_only_audio_load() -> None:
    page = render(songs(3), layout(places(3), [0, 0, 1]), "")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["media-src"] == "'self' file:"
    for tag, rule in (("<script>", "script-src"), ("<style>", "style-src")):
        content = page.partition(tag)[2].partition(tag.replace("<", "</"))[0]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert not re.search(r"https?://", page.replace("http://www.w3.org", ""))


def test_the_same_songs_make_the_same_page(tmp_path: Path) -> None:
    paths = [song(tmp_path / f"{number}.wav", number) for number in range(4)]
    vectors = collection(np.eye(4), paths)
    first = make_map(vectors, tmp_path / "1.html")
    make_map(vectors, tmp_path / "2.html")
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()
    assert first.size == (tmp_path / "1.html").stat().st_size
    assert (first.songs, first.missing, first.method) == (4, [], "PCA")
    assert not [path.name for path in tmp_path.iterdir() if path.suffix not in (".wav", ".html")]


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    vectors = collection(np.eye(3))
    page = tmp_path / "new" / "map.html"
    make_map(vectors, page)
    before = page.read_bytes()
    with pytest.raises(OutputError, match="there already"):
        make_map(collection(np.eye(4)), page)
    assert page.read_bytes() == before
    make_map(collection(np.eye(4)), page, overwrite=True)
    assert page.read_bytes() != before
    with pytest.raises(OutputError, match="is a directory"):
        make_map(vectors, tmp_path, overwrite=True)


def test_a_map_that_was_killed_before_it_tidied_up_is_finished_by_the_same_command(tmp_path: Path) -> None:
    vectors, page, left = collection(np.eye(3)), tmp_path / "map.html", tmp_path / ".map.html.part"
    made = make_map(vectors, page)
    before = page.read_bytes()
    left.mkdir()
    (left / "lock").touch()
    assert make_map(vectors, page) == made
    assert page.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["map.html"]
    left.mkdir()
    with pytest.raises(OutputError, match="there already"):
        make_map(collection(np.eye(4)), page)
    assert page.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["map.html"]


def contrast(one: str, other: str) -> float:
    """Of two colours, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def themes() -> list[dict[str, str]]:
    style = files("poolembed.map").joinpath("page.css").read_text()
    blocks = re.findall(r":root \{([^}]+)\}", style)
    found = [dict(re.findall(r"--([\w]+): (#[0-9a-f]{6});", block)) for block in blocks]
    assert len(found) == 2
    return found


@pytest.mark.parametrize("theme", themes(), ids=["light", "dark"])
def test_colours_can_be_seen_and_told_apart(theme: dict[str, str]) -> None:
    """Text with 4.5 : 1 and dots with 3 : 1 against the paper, as WCAG asks; no two colours of dots are close."""
    for name in ("ink", "muted", "accent", "warning"):
        assert contrast(theme[name], theme["paper"]) >= 4.5, name
    dots = [theme[f"c{number}"] for number in range(COLOURS)]
    for colour in [*dots, theme["other"]]:
        assert contrast(colour, theme["paper"]) >= 3, colour
    as_numbers = [np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) for colour in dots]
    for row, one in enumerate(as_numbers):
        for other in as_numbers[:row]:
            assert np.linalg.norm(one - other) > 40, (row, one, other)
    assert f"c{COLOURS}" not in theme
