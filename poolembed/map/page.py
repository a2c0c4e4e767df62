"""The page as text: a fixed document, and the songs as one compressed block of data.

Nothing that comes from a song is part of the document. It all lies in the block, in base64, and the page's script only
ever makes text of it; a policy lets the browser run no other script and ask for nothing but audio.

The block, before compression: four bytes with the length of the JSON that follows, little-endian; the JSON; the arrays,
of which the JSON says kind, offset from its end, and length.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolembed.map.layout import Layout
from poolembed.map.songs import Songs

COLOURS = 10
"""What is more than that has one colour for all the rest."""

LIKE = 6
"""Most similar songs that are listed for each."""

_SCRIPTS = ("draw.js", "view.js", "songs.js", "page.js")


def render(songs: Songs, layout: Layout, made: str, heard: Sequence[str] = ()) -> str:
    """The page.

    Args:
        songs: N of them.
        layout: of the same N.
        made: a line on model and method.
        heard: what is heard in each of the layout's groups, in words; those without are told by a song in their middle.
    """
    count = f"{len(songs.names):,}"
    # With the newlines that stand around them, for that is what the hashes are of.
    script = "\n" + "".join(_read(name) for name in _SCRIPTS)
    style = "\n" + _read("page.css")
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )
    data = b64encode(gzip.compress(_pack(songs, layout, made, heard), mtime=0)).decode()
    parts = {"POLICY": policy, "COUNT": count, "STYLE": style, "SCRIPT": script, "DATA": data}
    return re.sub("@([A-Z]+)@", lambda found: parts[found[1]], _read("page.html"))


def _read(name: str) -> str:
    return files("poolembed.map").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _pack(songs: Songs, layout: Layout, made: str, heard: Sequence[str]) -> bytes:
    near = min(LIKE, layout.near.rows.shape[1])
    arrays: dict[str, NDArray[Any]] = {
        "places": _places(layout.places),
        "folder": _small(songs.folder),
        "like": _small(layout.near.rows[:, :near]),
        "cosines": np.round(100 * layout.near.cosines[:, :near]).astype("i1"),
    }
    called = zip(heard or [""] * len(layout.middles), layout.middles, strict=True)
    groups = [f"{number}: {words or f'like {songs.title(row)}'}" for number, (words, row) in enumerate(called, start=1)]
    columns = []
    for name, label, none, values in (
        ("cluster", "cluster", "", [groups[group] for group in layout.groups]),
        ("top", "folder", "in no folder", songs.tops),
        ("artist", "artist", "no artist", songs.artists),
        ("album", "album", "no album", songs.albums),
    ):
        names, arrays[name] = _column(values)
        columns.append({"id": name, "label": label, "none": none, "names": names})
    header = {
        "count": len(songs.names),
        "made": made,
        "colours": COLOURS,
        "near": near,
        "titles": songs.titles,
        "names": songs.names,
        "folders": [asdict(folder) for folder in songs.folders],
        "urls": songs.urls,
        "missing": songs.missing,
        "columns": columns,
        "arrays": {},
    }
    blocks, offset = [], 0
    for name, array in arrays.items():
        header["arrays"][name] = [array.dtype.str[1:], offset, array.size]
        blocks.append(array.tobytes() + b"\0" * (-array.nbytes % 4))
        offset += len(blocks[-1])
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    return len(text).to_bytes(4, "little") + text + b"".join(blocks)


def _places(places: NDArray[np.float32]) -> NDArray[np.uint16]:
    """In a square of 65536 units, in the middle of its shorter side, y downwards."""
    low, high = places.min(0), places.max(0)
    extent = float((high - low).max()) or 1.0
    square = (places.astype(np.float64) - (low + high) / 2) / extent * (1, -1) + 0.5
    found: NDArray[np.uint16] = np.round(65535 * square).astype("<u2")
    return found


def _small(numbers: Any) -> NDArray[Any]:
    """Whole numbers in as few bytes as they need."""
    array = np.asarray(numbers, np.int64)
    return array.astype(f"<u{1 if array.max() < 1 << 8 else 2 if array.max() < 1 << 16 else 4}")


def _column(values: list[str]) -> tuple[list[str], NDArray[Any]]:
    """Each name once after the empty one, the most frequent first; and of each song the number of its name."""
    counts = Counter(values)
    names = ["", *sorted(filter(None, counts), key=lambda name: (-counts[name], name))]
    number = {name: at for at, name in enumerate(names)}
    return names, _small([number[value] for value in values])
