"""Standard MIDI files: notes with times in seconds to bytes, and back."""

from __future__ import annotations

import heapq
import struct
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

DRUM_CHANNEL = 9
_TICKS = 1000  # per quarter note, of which there are two a second: half a millisecond each


@dataclass(frozen=True, slots=True)
class Note:
    """One note; `start` and `end` in seconds, `pitch` and `velocity` of MIDI."""

    start: float
    end: float
    pitch: int
    velocity: int = 100
    channel: int = 0
    program: int = 0

    @property
    def drum(self) -> bool:
        """Whether it is on General MIDI's percussion channel, where the pitch names a drum."""
        return self.channel == DRUM_CHANNEL


@dataclass(frozen=True, slots=True)
class Control:
    """Any other message for a channel: `status` is its upper four bits, such as 0xB0."""

    time: float
    status: int
    data: tuple[int, ...]
    channel: int = 0


def program(time: float, channel: int, number: int, bank: int = 0) -> list[Control]:
    """Choose a preset."""
    return [Control(time, 0xB0, (0, bank), channel), Control(time, 0xC0, (number,), channel)]


def silence(time: float, channel: int = 0) -> Control:
    """End all sound of a channel at once, releases too."""
    return Control(time, 0xB0, (120, 0), channel)


def bend(time: float, cents: float, channel: int = 0) -> Control:
    """Detune a channel by up to two semitones."""
    value = min(max(round(8192 + cents / 200 * 8192), 0), 16383)
    return Control(time, 0xE0, (value & 127, value >> 7), channel)


def write_midi(notes: Iterable[Note], controls: Iterable[Control] = ()) -> bytes:
    """A file of one track. Of what happens at one time, notes end first, then come controls, then notes begin."""
    events: list[tuple[int, int, bytes]] = []
    for note in notes:
        begin = _ticks(note.start)
        events.append((begin, 2, bytes((0x90 | note.channel, note.pitch, note.velocity))))
        events.append((max(_ticks(note.end), begin + 1), 0, bytes((0x80 | note.channel, note.pitch, 0))))
    events += [(_ticks(each.time), 1, bytes((each.status | each.channel, *each.data))) for each in controls]
    events.sort(key=lambda event: event[:2])
    track = bytearray()
    now = 0
    for tick, _, message in events:
        track += _variable(tick - now) + message
        now = tick
    track += b"\x00\xff\x2f\x00"
    return struct.pack(">4sIHHH4sI", b"MThd", 6, 0, 1, _TICKS, b"MTrk", len(track)) + bytes(track)


def read_midi(data: bytes) -> list[Note]:
    """The notes of a file of format 0 or 1, in order of their start; notes that never end, end with the file.

    Raises:
        ValueError: it is no such file.
    """
    if data[:4] != b"MThd" or len(data) < 14:
        raise ValueError("not a MIDI file")
    division = struct.unpack(">H", data[12:14])[0]
    if division & 0x8000:
        raise ValueError("times in SMPTE frames are not read")
    tracks: list[list[_Message]] = []
    at = 8 + struct.unpack(">I", data[4:8])[0]
    while at + 8 <= len(data):
        name, length = struct.unpack(">4sI", data[at : at + 8])
        if name == b"MTrk":
            tracks.append(_messages(data[at + 8 : at + 8 + length], len(tracks)))
        at += 8 + length
    return _play(heapq.merge(*tracks, key=lambda message: message[:2]), division)


_Message = tuple[int, int, int, bytes]
"""Tick, track, status byte (0xFF for a tempo), data."""


def _messages(track: bytes, number: int) -> list[_Message]:
    messages: list[_Message] = []
    at = tick = status = 0
    while at < len(track):
        delta, at = _read_variable(track, at)
        tick += delta
        if at >= len(track):
            break
        if track[at] & 0x80:
            status = track[at]
            at += 1
        if status in (0xFF, 0xF0, 0xF7):
            kind = track[at] if status == 0xFF else 0
            at += status == 0xFF
            length, at = _read_variable(track, at)
            if status == 0xFF and kind == 0x51:
                messages.append((tick, number, 0xFF, track[at : at + 3]))
            at += length
        else:
            length = 1 if status & 0xF0 in (0xC0, 0xD0) else 2
            messages.append((tick, number, status, track[at : at + length]))
            at += length
    return messages


def _play(messages: Iterable[_Message], division: int) -> list[Note]:
    notes: list[Note] = []
    sounding: dict[tuple[int, int], list[tuple[float, int, int]]] = defaultdict(list)
    programs = [0] * 16
    seconds, last, tempo = 0.0, 0, 500_000
    for tick, _, status, data in messages:
        seconds += (tick - last) * tempo / division / 1e6
        last = tick
        channel = status & 15
        if status == 0xFF:
            tempo = int.from_bytes(data, "big")
        elif status & 0xF0 == 0xC0 and data:
            programs[channel] = data[0]
        elif status & 0xF0 == 0x90 and len(data) == 2 and data[1]:
            sounding[channel, data[0]].append((seconds, data[1], programs[channel]))
        elif status & 0xF0 in (0x80, 0x90) and len(data) == 2 and sounding[channel, data[0]]:
            start, velocity, preset = sounding[channel, data[0]].pop(0)
            notes.append(Note(start, seconds, data[0], velocity, channel, preset))
    for (channel, pitch), waiting in sounding.items():
        notes += [Note(start, seconds, pitch, velocity, channel, preset) for start, velocity, preset in waiting]
    return sorted(notes, key=lambda note: (note.start, note.channel, note.pitch))


def _ticks(seconds: float) -> int:
    return round(seconds * 2 * _TICKS)


def _variable(number: int) -> bytes:
    groups = [number & 127]
    while number := number >> 7:
        groups.append(number & 127 | 128)
    return bytes(reversed(groups))


def _read_variable(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    while at < len(data):
        byte = data[at]
        at += 1
        number = number << 7 | byte & 127
        if not byte & 128:
            break
    return number, at
