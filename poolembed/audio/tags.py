"""What an audio file says of its music: title, artist, album. Nothing is decoded, and bad tags are no tags.

Three readers in turn, as what they know is not the same: tinytag, quick, for the common formats; one of APE tags, which
tinytag and, in MP3, FFmpeg leave alone; and FFmpeg for every other format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from poolembed.audio.faults import raise_want, reason_of
from poolembed.errors import AudioError
from poolembed.text import printable

_FOOTER = 32
_ID3V1 = 128
# A tag may hold a picture; a text does not get near to this.
_MOST = 16 << 20
_LONGEST = 300  # characters of a text that are shown
_LOOKED_AT = 10_000  # of which the first that are may come

# What no line of text has: control characters, and halves of characters that bytes of another encoding turn into.
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


@dataclass(frozen=True, slots=True)
class Tags:
    """What is known of a song, each on one line; None where the file does not say.

    Attributes:
        title: of the song.
        artist: who plays it, or else whose album it is.
        album: where it is from.
    """

    title: str | None = None
    artist: str | None = None
    album: str | None = None


def read_tags(path: str | os.PathLike[str]) -> Tags:
    """The tags of an audio file; empty ones of a file that is damaged, of an unknown format, or not there.

    Raises:
        AudioError: memory or open files ran out, so that it is not known what tags it has.
    """
    try:
        return _read_tags(path)
    except (OSError, MemoryError) as error:
        raise AudioError(f"the tags of {printable(os.fsdecode(path))}: {reason_of(error, path)}") from error


def _read_tags(path: str | os.PathLike[str]) -> Tags:
    if not os.path.isfile(path):  # noqa: PTH113 - quick; and a pipe would wait for its writer
        return Tags()
    tags, is_known = _by_tinytag(path)
    if tags.title is None:
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                tags = _or(tags, _from(read_ape(file)))
                if tags.title is None and (not is_known or _is_mp4(file)):
                    tags = _or(tags, _by_ffmpeg(file))
        except OSError as error:
            raise_want(error)
    return tags


def _by_tinytag(path: str | os.PathLike[str]) -> tuple[Tags, bool]:
    """The tags, and whether it knows the format and found no fault."""
    from tinytag import TinyTag, TinyTagException

    try:
        found = TinyTag.get(path, duration=False)
    except (TinyTagException, OSError, ValueError) as error:
        raise_want(error)
        return Tags(), False
    artists = [found.artist, *found.other.get("artist", [])]
    artist = ", ".join(dict.fromkeys(text for text in map(_text, artists) if text))
    return Tags(_text(found.title), artist or _text(found.albumartist), _text(found.album)), True


def _by_ffmpeg(file: BinaryIO) -> Tags:
    from poolembed.audio._ffmpeg import read_metadata

    with suppress(AudioError):
        return _from(read_metadata(file.fileno()))
    return Tags()


def _from(fields: Mapping[str, str]) -> Tags:
    named = {name.lower(): text for name, text in fields.items()}
    artist = named.get("artist") or named.get("album_artist") or named.get("album artist")
    return Tags(_text(named.get("title")), _text(artist), _text(named.get("album")))


def _or(tags: Tags, others: Tags) -> Tags:
    return Tags(tags.title or others.title, tags.artist or others.artist, tags.album or others.album)


def _text(value: str | None) -> str | None:
    """A value on one line of reasonable length, or None where there is nothing in it."""
    line = " ".join(_UNSHOWN.sub(" ", (value or "")[:_LOOKED_AT]).split())
    return line[:_LONGEST] + "…" if len(line) > _LONGEST else line or None


def _is_mp4(file: BinaryIO) -> bool:
    """Whether it is of the family of which tinytag knows only some members' tags."""
    file.seek(4)
    return file.read(4) == b"ftyp"


def read_ape(file: BinaryIO) -> dict[str, str]:
    """The texts of the APE tag (version 1 or 2) at the end of a file, before an ID3v1 tag if there is one.

    Several values of one name are joined by commas. Of a damaged tag, what comes before the damage.
    """
    for behind in (0, _ID3V1):
        size = file.seek(0, os.SEEK_END)
        if size < behind + _FOOTER:
            break
        file.seek(size - behind - _FOOTER)
        footer = file.read(_FOOTER)
        if footer[:8] == b"APETAGEX":
            length = int.from_bytes(footer[12:16], "little")  # of the items and this footer
            count = int.from_bytes(footer[16:20], "little")
            start = size - behind - length
            if length > _MOST or length < _FOOTER or start < 0:
                break
            file.seek(start)
            return dict(_items(file.read(length - _FOOTER), count))
    return {}


def _items(data: bytes, count: int) -> Iterator[tuple[str, str]]:
    place = 0
    for _ in range(count):
        end = data.find(b"\0", place + 8)
        if end < 0:
            return
        size, flags = (int.from_bytes(data[at : at + 4], "little") for at in (place, place + 4))
        name, value = data[place + 8 : end], data[end + 1 : end + 1 + size]
        if len(value) < size:
            return
        if not flags & 6:  # a text
            yield name.decode("ascii", "replace"), ", ".join(value.decode("utf-8", "replace").split("\0"))
        place = end + 1 + size
