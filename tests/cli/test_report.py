from __future__ import annotations

import time

import numpy as np
import pytest

from poolembed.cli import report
from poolembed.embed.outputs import Job
from poolembed.embed.song import Embedded, Failed


def job(name: str, size: int) -> Job:
    return Job(name, name, f"/{name}", size, 0.0)


def song(seconds: float) -> Embedded:
    return Embedded(0, np.zeros(8, np.float32), seconds)


def test_the_time_left_is_guessed_from_the_bytes_of_each_format(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    counter = report._Counter()
    jobs = [job("a.mp3", 100), job("broken.mp3", 1000), job("b.mp3", 100), job("c.flac", 500), job("d.flac", 1000)]
    counter.begin(jobs, 0)
    counter.audio(90.0)
    assert "left" not in counter._amount()  # nothing is known before a song is done
    counter.song(jobs[0], song(100.0))
    counter.song(jobs[1], Failed(1, "broken"))  # its bytes were never audio
    counter.song(jobs[3], song(50.0))
    counter.audio(60.0)
    now += 10
    # 100 s of mp3 and 100 s of flac are still to come, at 15 x real time.
    assert counter._amount() == "2.5 min of audio, 15 x real time, about 0:13 left"
    counter.audio(250.0)  # longer than guessed: no guess is better than a wrong one
    assert "left" not in counter._amount()


def test_a_format_of_which_none_is_done_counts_as_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    counter = report._Counter()
    counter.begin([job("a.mp3", 100), job("b.ogg", 200)], 0)
    counter.song(job("a.mp3", 100), song(100.0))
    counter.audio(100.0)
    now += 10
    assert counter._amount().endswith("about 0:20 left")


def test_plain_lines_begin_with_what_there_is_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    report._Lines().begin([job("a.mp3", 100), job("b.ogg", 200)], 3)
    assert capsys.readouterr() == ("", "2 songs to embed, 3 unchanged since an earlier run\n")
