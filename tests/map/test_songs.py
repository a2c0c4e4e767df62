"""What is said of songs: tags, folders, addresses."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest

from poolembed.map.songs import Folder, describe
from tests.map.made import collection, song


def test_tags_names_and_folders(tmp_path: Path) -> None:
    music = tmp_path / "music"
    paths = [
        song(music / "jazz" / "a.flac", title="One & <two>", artist="Them", album="First"),
        song(music / "jazz" / "deep" / "b.ogg", artist="Them"),
        song(music / "c.wav"),
        music / "jazz" / "gone.mp3",
    ]
    keys = ["jazz/a.flac", "jazz/deep/b.ogg", "c.wav", "jazz/gone.mp3"]
    songs = describe(collection(np.eye(4), paths, keys), tmp_path / "elsewhere" / "map.html")
    assert songs.titles == ["One & <two>", "", "", ""]
    assert songs.artists == ["Them", "Them", "", ""]
    assert songs.albums == ["First", "", "", ""]
    assert songs.names == ["a.flac", "b.ogg", "c.wav", "gone.mp3"]
    assert [songs.title(row) for row in range(2)] == ["One & <two>", "b.ogg"]
    assert songs.tops == ["jazz", "jazz", "", "jazz"]
    assert [songs.folders[number].shown for number in songs.folder] == [f"{path.parent}/" for path in paths]
    assert len(songs.folders) == 3
    assert songs.missing == [3]


@pytest.mark.parametrize(
    ("keys", "tops"),
    [
        (["a/b/1", "a/c/2", "a/c/d/3"], ["b", "c", "c"]),
        (["a/1", "a/2", "a/3"], ["", "", ""]),
        (["1", "a/2", "b/3"], ["", "a", "b"]),
        (["/x/ab/1", "/x/ac/2", "/x/ac/3"], ["ab", "ac", "ac"]),
    ],
)
def test_colours_by_folder_begin_below_what_is_shared(keys: list[str], tops: list[str], tmp_path: Path) -> None:
    assert describe(collection(np.eye(3), keys=keys), tmp_path / "map.html").tops == tops


class TestAddresses:
    def url(self, path: Path | str, page: Path) -> str:
        """The address of a song on a page."""
        songs = describe(collection(np.eye(3), [path] * 3), page)
        base = songs.folders[songs.folder[0]].url
        return base and base + songs.urls.get(0, songs.names[0])

    def test_elsewhere_it_is_a_file_address(self, tmp_path: Path) -> None:
        there = song(tmp_path / "mu sic" / "a.wav")
        assert self.url(there, tmp_path / "maps" / "map.html") == there.as_uri()

    def test_in_or_below_the_folder_of_the_page_it_is_relative(self, tmp_path: Path) -> None:
        there = song(tmp_path / "mu sic" / "50%" / "a.wav")
        assert self.url(there, tmp_path / "map.html") == "./mu%20sic/50%25/a.wav"
        assert self.url(there, there.parent / "map.html") == "./a.wav"

    def test_a_folder_is_never_taken_for_a_scheme(self, tmp_path: Path) -> None:
        there = song(tmp_path / "javascript:alert(1)" / "a.wav")
        assert self.url(there, tmp_path / "map.html") == "./javascript%3Aalert%281%29/a.wav"

    def test_a_file_in_the_root(self, tmp_path: Path) -> None:
        assert self.url("/gone.mp3", tmp_path / "map.html") == "file:///gone.mp3"

    def test_from_the_working_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        there = song(tmp_path / "a.wav")
        monkeypatch.chdir(tmp_path)
        assert self.url("a.wav", tmp_path / "maps" / "map.html") == there.as_uri()
        assert self.url("a.wav", tmp_path / "map.html") == "./a.wav"

    def test_where_songs_are_not_known_there_is_none(self, tmp_path: Path) -> None:
        assert self.url("7", tmp_path / "map.html") == ""
        assert self.url("some/song.mp3", tmp_path / "map.html") == ""

    def test_a_name_that_is_not_utf_8(self, tmp_path: Path) -> None:
        name = os.fsdecode(b"caf\xe9\n.wav")
        songs = describe(collection(np.eye(3), [f"/music/{name}"] * 3), tmp_path / "map.html")
        assert songs.names[0] == "caf\\xe9\\n.wav"
        assert unquote_to_bytes(songs.urls[0]) == b"caf\xe9\n.wav"
        assert songs.folders == [Folder("/music/", "file:///music/")]
