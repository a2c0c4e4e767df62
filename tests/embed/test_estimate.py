"""How far embedding is, and how much audio is still to come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from poolembed.embed.estimate import Estimate
from poolembed.embed.outputs import Job
from poolembed.embed.song import Embedded, Failed

Told = list[Any]


def job(name: str, size: int) -> Job:
    return Job(name, name, f"/{name}", size, 0.0)


def song(seconds: float) -> Embedded:
    return Embedded(0, np.zeros(8, np.float32), seconds)


def test_the_audio_to_come_is_guessed_from_the_bytes_of_each_format(clock: Any) -> None:
    told: Told = []
    jobs = [job("a.mp3", 100), job("broken.mp3", 1000), job("b.mp3", 100), job("c.flac", 500), job("d.flac", 1000)]
    estimate = Estimate(jobs, 0, lambda *what: told.append(what))
    clock.now += 10
    estimate.audio(90.0)
    assert told[-1][1:3] == (90, 0)  # nothing is known before a song is done
    estimate.song(jobs[0], song(100.0))
    estimate.song(jobs[1], Failed(1, "broken"))  # its bytes were never audio
    estimate.song(jobs[3], song(50.0))
    estimate.audio(60.0)
    # 100 s of mp3 and 100 s of flac are still to come.
    assert told[-1] == ("embedding", 150, 350, "3/5 songs, 2 min 30 s of audio, 15 x real time")
    estimate.audio(250.0)  # longer than guessed: no guess is better than a wrong one
    assert told[-1][1:3] == (400, 0)


def test_a_format_of_which_none_is_done_counts_as_the_others_do(clock: Any) -> None:
    told: Told = []
    estimate = Estimate([job("a.mp3", 100), job("b.ogg", 200)], 0, lambda *what: told.append(what))
    estimate.song(job("a.mp3", 100), song(100.0))
    estimate.audio(100.0)
    assert told[-1][1:3] == (100, 300)


@pytest.mark.parametrize(
    ("songs", "unchanged", "said"),
    [(2, 0, "2 songs"), (1, 3, "1 song, 3 unchanged since an earlier run"), (0, 1000, "0 songs, 1,000 unchanged")],
)
def test_it_begins_with_what_there_is_to_do(songs: int, unchanged: int, said: str) -> None:
    told: Told = []
    Estimate([job(f"{n}.mp3", 1) for n in range(songs)], unchanged, lambda *what: told.append(what))
    assert told == [("embedding", 0, 0, told[0][3])]
    assert told[0][3].startswith(said)
