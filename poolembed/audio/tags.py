"""What an audio file says of itself: title, artist, length and how it is encoded. Nothing is decoded."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tags:
    """What is known of a file; None where it does not say.

    Attributes:
        title: of the song.
        artist: who plays it, or else whose album it is.
        album: where it is from.
        genre: what kind of music it is.
        duration: seconds.
        bitrate: kilobits per second, on average.
        sample_rate: Hz.
        channels: how many.
    """

    title: str | None = None
    artist: str | None = None
    album: str | None = None
    genre: str | None = None
    duration: float | None = None
    bitrate: float | None = None
    sample_rate: int | None = None
    channels: int | None = None


def read_tags(path: str | os.PathLike[str], *, technical: bool = True) -> Tags:
    """The tags of an audio file; empty ones of a file that is damaged, of an unknown format, or not there.

    Args:
        path: the file.
        technical: also tell duration, bitrate and so on, for which some MP3 files have to be read to their end.
    """
    from tinytag import TinyTag, TinyTagException

    try:
        found = TinyTag.get(path, duration=technical)
    except (TinyTagException, OSError, ValueError):
        return Tags()
    return Tags(
        title=_text(found.title),
        artist=_text(found.artist) or _text(found.albumartist),
        album=_text(found.album),
        genre=_text(found.genre),
        duration=_number(found.duration),
        bitrate=_number(found.bitrate),
        sample_rate=found.samplerate or None,
        channels=found.channels or None,
    )


def _text(value: str | None) -> str | None:
    """A value on one line, or None where there is nothing in it."""
    return " ".join((value or "").replace("\0", " ").split()) or None


def _number(value: float | None) -> float | None:
    return value if value and math.isfinite(value) else None
