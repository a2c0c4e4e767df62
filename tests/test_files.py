"""Files that somebody else wrote: what is no regular file is refused, and lists that do not end."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolembed.files.reading import is_below, open_regular, read_list, read_regular
from poolembed.files.writing import create, replacing

posix = pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")


@posix
def test_what_is_no_regular_file_is_refused_in_words(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name, words in {"pipe": "no regular file", "device": "no regular file", ".": "directory"}.items():
        with pytest.raises(OSError, match=words) as caught:
            open_regular(tmp_path / name)
        assert words in str(caught.value.strerror)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_no_file_can_have(name: str) -> None:
    with pytest.raises(OSError, match=r"no file can have this name|No such file"):
        open_regular(name)


@posix
def test_links_are_followed_to_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link") == b"content"


def test_a_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert read_regular(tmp_path / "file", 7) == b"content"
    with pytest.raises(OSError, match="7 bytes, and 6 at most"):
        read_regular(tmp_path / "file", 6)


@given(st.lists(st.binary(max_size=20)), st.booleans())
def test_a_list_is_what_it_was_made_of(entries: list[bytes], ended: bool) -> None:
    entries = [entry.replace(b"\n", b"") for entry in entries]
    data = b"\n".join(entries) + (b"\n" if ended else b"")
    expected = data.split(b"\n")
    assert read_list(io.BytesIO(data), b"\n") == (expected if expected[-1] else expected[:-1])


class Endless(io.RawIOBase):
    def __init__(self, block: bytes) -> None:
        self.block = block
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        self.given += len(self.block)
        return self.block


@pytest.mark.parametrize("block", [b"\0" * 4096, b"\xff" * (1 << 20)])
def test_a_list_that_is_none_is_given_up_soon(block: bytes) -> None:
    endless = Endless(block)
    with pytest.raises(OSError, match="no list of paths"):
        read_list(endless, b"\n")  # type: ignore[arg-type]
    assert endless.given < 1 << 23


@given(st.lists(st.sampled_from(["a", "..", ".", "", "...", "a.b", "..a", "\0"]), min_size=1, max_size=4))
def test_a_name_is_below_exactly_if_all_its_parts_are_names(parts: list[str]) -> None:
    assert is_below("/".join(parts)) == (not {"", ".", "..", "\0"} & set(parts))


def test_a_signal_while_a_file_is_put_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network file systems end a rename for it; it is made then all the same."""
    true, calls = os.replace, iter(range(100))

    def interrupted(*arguments: Path) -> None:
        if next(calls) % 2 == 0:
            raise InterruptedError
        true(*arguments)

    monkeypatch.setattr(os, "replace", interrupted)
    create(tmp_path / "folder" / "a", b"new", tmp_path)
    with replacing(tmp_path / "b", tmp_path) as part:
        part.write_bytes(b"whole")
    assert (tmp_path / "folder" / "a").read_bytes() == b"new"
    assert (tmp_path / "b").read_bytes() == b"whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "folder"]
