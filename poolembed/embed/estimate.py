"""How far embedding is, and how much audio is still to come."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence

from poolembed.embed.outputs import Job
from poolembed.embed.song import Embedded, Outcome
from poolembed.progress import Progress
from poolembed.text import duration


class Estimate:
    """Counts songs and seconds of audio, and tells them with the speed and a guess of the whole.

    How long a song is shows only when it has been decoded, so the seconds still to come are guessed from the bytes
    still to come, at the seconds per byte of the songs of the same format that are done, or of all that are.

    Args:
        songs: to embed.
        unchanged: songs that an earlier run embedded.
        progress: told.
    """

    def __init__(self, songs: Sequence[Job], unchanged: int, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._began = time.perf_counter()
        self._seconds = 0.0
        self._songs, self._done = len(songs), 0
        self._bytes_left: defaultdict[str, float] = defaultdict(float)
        self._bytes_done: defaultdict[str, float] = defaultdict(float)
        self._seconds_done: defaultdict[str, float] = defaultdict(float)
        for song in songs:
            self._bytes_left[_suffix(song)] += song.size or 0
        already = f", {unchanged:,} unchanged since an earlier run" if unchanged else ""
        progress("embedding", 0, 0, f"{self._songs:,} song{'' if self._songs == 1 else 's'}{already}")

    def audio(self, seconds: float) -> None:
        """So many more seconds of audio were decoded; called from any thread."""
        with self._lock:
            self._seconds += seconds
            self._tell()

    def song(self, song: Job, outcome: Outcome) -> None:
        """A song is done."""
        with self._lock:
            self._done += 1
            self._bytes_left[_suffix(song)] -= song.size or 0
            if isinstance(outcome, Embedded):
                self._bytes_done[_suffix(song)] += song.size or 0
                self._seconds_done[_suffix(song)] += outcome.duration
            self._tell()

    def _tell(self) -> None:
        speed = self._seconds / max(time.perf_counter() - self._began, 1e-9)
        left = self._seconds_left()
        self._progress(
            "embedding",
            self._seconds,
            self._seconds + left if left > 0 else 0,
            f"{self._done:,}/{self._songs:,} songs, {duration(self._seconds)} of audio, {speed:,.0f} x real time",
        )

    def _seconds_left(self) -> float:
        """Guess of the seconds of audio still to come; 0 as long as, or when, there is none."""
        all_bytes, all_seconds = sum(self._bytes_done.values()), sum(self._seconds_done.values())
        if not all_bytes:
            return 0.0
        left = all_seconds - self._seconds  # less what is decoded of the songs in hand
        for suffix, size in self._bytes_left.items():
            known = self._bytes_done.get(suffix)
            left += size * (self._seconds_done[suffix] / known if known else all_seconds / all_bytes)
        return left


def _suffix(song: Job) -> str:
    return song.path.rpartition(".")[2].lower()
