"""Which of two copies of a recording is better, by what their decoder told of them; and whether that is certain.

Codecs are all that is known here. A codec cannot know what it was given: a FLAC that was made from an MP3 is lossless.
"""

from __future__ import annotations

import filecmp
from collections.abc import Iterator
from dataclasses import dataclass

from poolembed.audio.mixing import OUT_OF_PHASE, is_silent

SLACK = 0.25
"""Seconds by which the better of two copies may be shorter: encoders pad by less, and a lost quarter is heard."""

TIMES = 2.5
"""By how many times the bit rate of one lossy codec must be another's to be better for sure, whichever is the newer."""

# Those that a bit rate says something of across codecs; not ADPCM or mu-law, which are bad at any.
_PERCEPTUAL = frozenset({"mp3", "aac", "vorbis", "opus", "musepack7", "musepack8", "wmav2", "wmapro"})
_FULL_RATE = 44_100  # all that can be heard; Opus is of 48 kHz whatever it was made from


@dataclass(frozen=True, slots=True)
class Copy:
    """One song of a group.

    Attributes:
        key: its name in the collection.
        path: of the audio.
        cosine: to the group's best song; 1 for that song itself.
        duration: seconds, as decoded; None where unknown, as all that follow.
        size: bytes.
        codec: by FFmpeg's name, as its decoder tells.
        lossless: whether that codec loses nothing.
        bits: of a sample, where nothing is lost.
        bitrate: kb/s of the sound on average, where something is lost or may be.
        sample_rate: Hz.
        channels: how many.
        note: what was wrong with the file when it was decoded; None where nothing was.
        doubt: why it is not certain that the group's best song is as good as this one; None where it is, and for the
            best song itself.
    """

    key: str
    path: str
    cosine: float
    duration: float | None
    size: int | None
    codec: str | None
    lossless: bool | None
    bits: int | None
    bitrate: float | None
    sample_rate: int | None
    channels: int | None
    note: str | None
    doubt: str | None = None


def is_soundless(note: str | None) -> bool:
    """Whether a note says that a mono mix holds nothing: such songs are all alike, and none is a copy of another.

    Earlier versions noted so of channels that cancel each other.
    """
    return is_silent(note) or any(part.startswith("its channels cancel") for part in _parts(note))


def _parts(note: str | None) -> list[str]:
    return [] if note is None else note.split("; ")


def _damage(note: str | None) -> str:
    """What a note says but for channels out of phase, of which nothing is missing."""
    return "; ".join(part for part in _parts(note) if not part.startswith(OUT_OF_PHASE))


def _is_out_of_phase(song: Copy) -> bool:
    return any(part.startswith(OUT_OF_PHASE) for part in _parts(song.note))


def rank(song: Copy) -> tuple[float, ...]:
    """Less is better. What is not there comes last, and what is damaged before it."""
    return (
        song.size is None,
        song.codec is None,
        bool(_damage(song.note)),
        {True: 0, None: 1, False: 2}[song.lossless],
        0 if song.lossless else song.codec not in _PERCEPTUAL,
        0 if song.lossless else -round(song.bitrate or 0),
        -(song.sample_rate or 0),
        -(song.channels or 0),
        -(song.bits or 0),
        _is_out_of_phase(song),
        -round(song.duration or 0, 1),
        song.size or 0,
    )


def doubt(best: Copy, song: Copy, tolerance: float) -> str | None:
    """Why it is not certain that `best` is at least as good as `song`, in words for people; None where it is.

    Args:
        best: the one to keep.
        song: the one that may go.
        tolerance: seconds that lengths may differ.
    """
    if _is_same_file(best, song):
        return None
    return next(_doubts(best, song, tolerance), None)


def _doubts(best: Copy, song: Copy, tolerance: float) -> Iterator[str]:
    """Of which only the first is asked for: each takes for granted that there was none before it."""
    if song.size is None or best.size is None:
        yield "one of the two cannot be looked at"
    yield from _doubts_of_condition(best, song)
    if best.codec is None or song.codec is None or best.duration is None or song.duration is None:
        yield "it is not known how they are encoded"
        return
    if song.duration > best.duration + SLACK:
        yield f"it is {song.duration - best.duration:.1f} s longer than the best one"
    if best.duration > song.duration + tolerance:
        yield f"the best one is {best.duration - song.duration:.1f} s longer"
    for each in (best, song):
        if each.lossless is None:
            yield f"{each.codec} may be lossless or not, and the file does not tell"
    assert best.sample_rate and song.sample_rate and best.channels and song.channels
    if song.channels != best.channels and not song.channels < best.channels <= 2:
        yield f"it has {_channels(song)}, and the best one {_channels(best)}"
    if song.lossless:
        yield from _doubts_of_lossless(best, song)
        return
    if best.sample_rate < min(song.sample_rate, _FULL_RATE):
        yield f"it has {song.sample_rate / 1000:g} kHz, and the best one {best.sample_rate / 1000:g}"
    if not best.lossless:
        yield from _doubts_of_lossy(best, song)
    elif best.bits is not None and best.bits < 16 and not best.codec.startswith("dsd_"):
        yield f"the best one is lossless, but of {best.bits} bits"


def _doubts_of_condition(best: Copy, song: Copy) -> Iterator[str]:
    if damage := _damage(best.note):
        yield f"the best one is not whole: {damage}"
    if _is_out_of_phase(best) and not _is_out_of_phase(song):
        yield "the channels of the best one are out of phase"


def _doubts_of_lossless(best: Copy, song: Copy) -> Iterator[str]:
    """Of a lossless song."""
    assert best.codec and song.codec and best.sample_rate and song.sample_rate
    if not best.lossless:
        yield "it is lossless, and the best one is not"
    if best.codec.startswith("dsd_") != song.codec.startswith("dsd_"):
        yield "DSD and PCM do not compare"
    if best.bits is None or song.bits is None:
        yield "it is not known of how many bits they are"
    elif best.sample_rate < song.sample_rate or best.bits < song.bits:
        facts = (
            f"{bits} bits at {rate / 1000:g} kHz"
            for bits, rate in ((song.bits, song.sample_rate), (best.bits, best.sample_rate))
        )
        yield "it has {}, and the best one {}".format(*facts)


def _doubts_of_lossy(best: Copy, song: Copy) -> Iterator[str]:
    """Of two lossy ones."""
    if best.channels != song.channels:
        yield f"it has {_channels(song)}, and the best one {_channels(best)}"
    if best.bitrate is None or song.bitrate is None:
        yield "their bit rates are not known, for there is more than sound in the files"
    elif best.codec == song.codec:
        if best.codec == "wavpack":
            yield "of lossy WavPack the part that makes it lossless may lie beside it"
        if best.bitrate + 1 < song.bitrate:
            yield "it has the higher bit rate"
    elif not {best.codec, song.codec} <= _PERCEPTUAL or best.bitrate < TIMES * song.bitrate:
        yield f"{song.codec} and {best.codec} of such bit rates do not compare"


def _channels(song: Copy) -> str:
    return "one channel" if song.channels == 1 else f"{song.channels} channels"


def _is_same_file(best: Copy, song: Copy) -> bool:
    """Whether every byte is the same."""
    try:
        return best.size == song.size and filecmp.cmp(best.path, song.path, shallow=False)
    except OSError:
        return False
