from __future__ import annotations

import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolembed.audio.find import AUDIO_SUFFIXES, BESIDE_AUDIO, FoundFile, find_audio

Errors = list[tuple[str, str]]


def find(*arguments: str | os.PathLike[str]) -> tuple[list[FoundFile], Errors]:
    errors: Errors = []
    return find_audio(arguments, on_error=lambda path, reason: errors.append((path, reason))), errors


def keys(*arguments: str | os.PathLike[str]) -> list[str]:
    found, errors = find(*arguments)
    assert not errors
    return [file.key for file in found]


@pytest.fixture
def touch(tmp_path: Path) -> Callable[..., Path]:
    def make(*names: str) -> Path:
        for name in names:
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return tmp_path

    return make


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def test_entries_come_by_name_and_directories_in_their_place(touch: Callable[..., Path]) -> None:
    top = touch("c.mp3", "b/z.flac", "b/a/x.ogg", "a.wav", "B.opus", "b.mp3")
    assert keys(top) == ["B.opus", "a.wav", "b/a/x.ogg", "b/z.flac", "b.mp3", "c.mp3"]


def test_path_key_and_root_of_what_a_directory_holds(touch: Callable[..., Path], in_tmp_path: Path) -> None:
    touch("music/rock/one.MP3")
    assert find("music") == ([FoundFile("music/rock/one.MP3", "rock/one.MP3", "music")], [])
    assert find("./music/") == ([FoundFile("./music/rock/one.MP3", "rock/one.MP3", "music")], [])
    assert find(".") == ([FoundFile("./music/rock/one.MP3", "music/rock/one.MP3", in_tmp_path.name)], [])
    assert find(in_tmp_path / "music")[0][0].path == str(in_tmp_path / "music/rock/one.MP3")


@pytest.mark.parametrize(
    ("given", "key"),
    [("extra/a.mp3", "extra/a.mp3"), ("./extra/a.mp3", "extra/a.mp3"), ("../here/extra/a.mp3", "here/extra/a.mp3")],
)
def test_key_of_a_file_given_by_itself(
    touch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, given: str, key: str
) -> None:
    monkeypatch.chdir(touch("here/extra/a.mp3") / "here")
    assert find(given) == ([FoundFile(given, key, "")], [])


def test_key_of_an_absolute_path_is_relative(touch: Callable[..., Path]) -> None:
    file = str(touch("a.mp3") / "a.mp3")
    assert keys(file) == [file.lstrip("/")]


def test_hidden_entries_and_other_suffixes_are_left_alone(touch: Callable[..., Path]) -> None:
    top = touch(".hidden/a.mp3", "._a.mp3", "cover.jpg", "film.mkv", "mp3", "notes.txt", "a.mp3.part", "ok.m4a")
    assert keys(top) == ["ok.m4a"]


def test_what_is_passed_over_is_counted(touch: Callable[..., Path]) -> None:
    top = touch(
        "a.mp3", "b.XYZ", "sub/c.xyz", "sub/d.abc", "none", ".hidden.xyz", ".h/e.xyz", "cover.jpg", "a.cue", "a.txt",
        "a.m3u8", "b.wvc", "film.mkv",
    )  # fmt: skip
    counts: Counter[str] = Counter()
    found = find_audio([top, top / "sub" / "c.xyz"], on_error=lambda *_: None, passed_over=counts)
    assert [file.key.rpartition("/")[2] for file in found] == ["a.mp3", "c.xyz"]
    assert counts == {".xyz": 1, ".abc": 1, "": 1, ".mkv": 1}  # one .xyz was given by itself
    counts = Counter()
    assert find_audio([top / "none"], on_error=lambda *_: None, passed_over=counts)
    assert not counts


def test_suffixes_are_of_audio_or_of_what_lies_beside_it() -> None:
    assert not AUDIO_SUFFIXES & BESIDE_AUDIO
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in AUDIO_SUFFIXES | BESIDE_AUDIO)


NEW = (
    ".shn", ".ec3", ".awb", ".mpp", ".mp+", ".thd", ".mlp", ".sph", ".nist", ".at3", ".amb", ".gsm", ".rm", ".dtshd",
    ".MP3", ".Opus",
)  # fmt: skip


@pytest.mark.parametrize("suffix", NEW)
def test_suffixes_that_are_taken(touch: Callable[..., Path], suffix: str) -> None:
    assert keys(touch(f"a{suffix}")) == [f"a{suffix}"]


def test_arguments_themselves_may_be_hidden_or_of_any_suffix(touch: Callable[..., Path]) -> None:
    top = touch(".hidden/a.mp3", "b.dat", ".c.mp3")
    assert keys(top / ".hidden") == ["a.mp3"]
    assert [os.path.basename(key) for key in keys(top / "b.dat", top / ".c.mp3")] == ["b.dat", ".c.mp3"]  # noqa: PTH119


def test_a_file_found_twice_counts_once(touch: Callable[..., Path], in_tmp_path: Path) -> None:
    touch("d/a.mp3", "d/e/b.mp3")
    found, _ = find("d/e/b.mp3", "d", in_tmp_path / "d", "d/../d/a.mp3", "d/e")
    assert [(file.key, file.root) for file in found] == [("d/e/b.mp3", ""), ("a.mp3", "d")]


def test_symbolic_links_are_followed(touch: Callable[..., Path]) -> None:
    top = touch("real/a.mp3", "elsewhere/b.mp3")
    (top / "real/dir").symlink_to(top / "elsewhere")
    (top / "real/c.mp3").symlink_to(top / "elsewhere/b.mp3")
    assert keys(top / "real") == ["a.mp3", "c.mp3", "dir/b.mp3"]


def test_directories_that_link_to_each_other_are_searched_once(touch: Callable[..., Path]) -> None:
    names = [f"d{number}" for number in range(8)]
    top = touch(*(f"{name}/{name}.mp3" for name in names))
    for name in names:
        for other in names:
            if other != name:
                (top / name / f"a-{other}").symlink_to(top / other)
    assert [file.key for file in find(top)[0]] == [f"{name}/{name}.mp3" for name in names]


def test_what_is_linked_from_outside_is_searched_once(touch: Callable[..., Path]) -> None:
    top = touch("music/own.mp3", "disk/albums/one.mp3", "music/.hidden/two.mp3")
    (top / "music/a").symlink_to(top / "disk/albums")
    (top / "music/b").symlink_to(top / "disk")
    (top / "music/c").symlink_to(top / "music/.hidden")
    assert [file.key for file in find(top / "music")[0]] == ["a/one.mp3", "c/two.mp3", "own.mp3"]


def test_symbolic_link_loops_end(touch: Callable[..., Path]) -> None:
    top = touch("a/b/song.mp3")
    (top / "a/b/up").symlink_to(top)
    (top / "a/self").symlink_to(top / "a/self")
    (top / "a/self.mp3").symlink_to(top / "a/self.mp3")
    found, errors = find(top)
    assert [file.key for file in found] == ["a/b/song.mp3"]
    assert [path for path, _ in errors] == [str(top / "a/self.mp3")]


def test_what_is_not_there_is_reported_and_the_rest_found(touch: Callable[..., Path]) -> None:
    top = touch("a.mp3")
    (top / "broken.mp3").symlink_to(top / "gone.mp3")
    (top / "broken.txt").symlink_to(top / "gone.txt")
    found, errors = find(top / "missing.mp3", top / "missing", top, top / "broken.txt")
    assert [file.key for file in found] == ["a.mp3"]
    assert errors == [
        (str(top / "missing.mp3"), "no such file or directory"),
        (str(top / "missing"), "no such file or directory"),
        (str(top / "broken.mp3"), "broken symbolic link"),
        (str(top / "broken.txt"), "broken symbolic link"),
    ]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="the superuser reads everything")
def test_unreadable_directory_is_reported(touch: Callable[..., Path]) -> None:
    top = touch("a/x.mp3", "b/y.mp3")
    (top / "a").chmod(0)
    try:
        found, errors = find(top)
    finally:
        (top / "a").chmod(0o755)
    assert [file.key for file in found] == ["b/y.mp3"]
    assert errors == [(str(top / "a"), "cannot be searched: Permission denied")]


def test_directory_that_cannot_be_listed_is_reported(
    touch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    top = touch("a/x.mp3", "b/y.mp3")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found, errors = find(top)
    assert [file.key for file in found] == ["b/y.mp3"]
    assert errors == [(str(top / "a"), "cannot be searched: Permission denied")]


def test_special_files_are_not_songs(touch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(touch("a.mp3"))  # the name of a socket must be short
    os.mkfifo("pipe.wav")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.wav")
        found, errors = find(".", "pipe.wav")
    assert [file.key for file in found] == ["a.mp3"]
    assert errors == [(path, "not a regular file") for path in ("./pipe.wav", "./socket.wav", "pipe.wav")]


def test_names_that_are_not_utf8_or_hold_newlines(tmp_path: Path) -> None:
    names = [b"new\nline.mp3", b"caf\xe9.mp3", "caf\u00e9.mp3".encode()]
    for name in names:
        with open(os.fsencode(tmp_path) + b"/" + name, "wb"):  # noqa: PTH123
            pass
    found, _ = find(tmp_path)
    assert sorted(os.fsencode(file.key) for file in found) == sorted(names)
    assert all(os.path.exists(file.path) for file in found)  # noqa: PTH110


def test_directories_nested_deeper_than_python_recurses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depth = sys.getrecursionlimit() + 100
    monkeypatch.chdir(tmp_path)
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    Path("deep.mp3").touch()
    os.chdir(tmp_path)
    try:
        assert keys("d") == ["d/" * (depth - 1) + "deep.mp3"]
    finally:  # shutil.rmtree, which pytest cleans up with, recurses
        os.chdir("d/" * depth)
        Path("deep.mp3").unlink()
        for _ in range(depth):
            os.chdir("..")
            Path("d").rmdir()
