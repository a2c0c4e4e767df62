"""Songs whose decoder never comes back: each is given up, alone, and nothing waits for its thread.

No decoder here hangs: a fake one waits for an event. And no time passes but what the test's own clock says, so a slow
machine gives up no song that is well.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest
from numpy.typing import NDArray

from poolembed.embed import crew as crew_module
from poolembed.embed import engine as engine_module
from poolembed.embed.crew import Crew, StuckError, Task
from poolembed.embed.engine import Engine
from poolembed.embed.song import Embedded, Failed, Outcome
from poolembed.errors import AudioError, PoolembedError, UsageError
from tests.conftest import noise
from tests.embed.test_engine import (
    NETWORK,
    WINDOW,
    Behaviour,
    Library,
    brute_force,
    device,
    library,
    make_engine,
)
from tests.waiting import PATIENCE, wait_until

__all__ = ["device", "library"]

pytestmark = [pytest.mark.usefixtures("no_new_threads"), pytest.mark.timeout(60)]

TIMEOUT = 0.05
SONG = noise(5 * WINDOW + 77, seed=4)


class Clock:
    """Stands still but while nothing is decoded except songs that hang, and the condition holds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runs: Callable[[], bool] = lambda: True

    def __call__(self) -> float:
        in_hand = [task.work for crew in list(crew_module._crews) for task in list(crew._tasks.values())]
        if in_hand and all(song.source.startswith("hang") for song in in_hand) and self.runs():
            self.now += 1.0
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(crew_module, "clock", made)
    monkeypatch.setattr(crew_module, "LEAVING", TIMEOUT)
    monkeypatch.setattr(engine_module, "LEAVING", TIMEOUT)
    return made


class Hanging:
    """Songs that hang where their names say, until they are released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.stuck = 0
        self.fine = 0

    def __call__(self, name: str) -> Iterator[NDArray[np.float32]]:
        if name.startswith("hang"):
            if name.endswith("later"):
                yield SONG[: 3 * WINDOW]
            self.stuck += 1
            assert self.released.wait(50)
            if name.endswith("error"):
                raise AudioError("too late")
        yield SONG
        self.fine += 1


@pytest.fixture
def hanging(library: Callable[[Behaviour], Library], clock: Clock) -> Iterator[Hanging]:
    behaviour = Hanging()
    made = library(behaviour)
    yield behaviour
    behaviour.released.set()
    for thread in threading.enumerate():
        if thread.name == "poolembed":
            thread.join(30)
    assert all(song.closed for song in made.songs)


NAMES = ["a", "hang", "b", "hang later", "c", "d", "hang, then error", "e"]


class TestOneSongHangs:
    @pytest.mark.parametrize("ordered", [True, False])
    @pytest.mark.parametrize("batch_size", [2, 64])
    @pytest.mark.parametrize("workers", [1, 3])
    def test_it_is_named_and_the_others_are_embedded(
        self,
        workers: int,
        batch_size: int,
        ordered: bool,
        device: object,
        hanging: Hanging,
        clock: Clock,
    ) -> None:
        engine = make_engine(device, workers=workers, batch_size=batch_size, song_timeout=TIMEOUT)  # type: ignore[arg-type]
        outcomes = list(engine.run(NAMES, ordered=ordered))
        if ordered:
            assert [outcome.index for outcome in outcomes] == list(range(8))
        expected = brute_force(NETWORK, SONG)
        assert sorted(outcome.index for outcome in outcomes) == list(range(8))
        for outcome in outcomes:
            if NAMES[outcome.index].startswith("hang"):
                assert isinstance(outcome, Failed)
                assert outcome.reason.startswith(f"no progress for {TIMEOUT:g} s while decoding")
            else:
                assert isinstance(outcome, Embedded)
                np.testing.assert_allclose(outcome.embedding, expected, rtol=0, atol=1e-6)

    def test_what_comes_late_is_dropped(self, hanging: Hanging) -> None:
        found: list[Outcome] = []
        for outcome in make_engine(workers=1, song_timeout=TIMEOUT).run(["hang, then error", *"abcdefg"]):
            found.append(outcome)
            hanging.released.set()
        assert [outcome.index for outcome in found] == list(range(8))
        assert "no progress" in found[0].reason  # type: ignore[union-attr]
        assert all(isinstance(outcome, Embedded) for outcome in found[1:])

    def test_zero_is_never(self, hanging: Hanging) -> None:
        outcomes: list[Outcome] = []
        run = make_engine(workers=2, song_timeout=0).run(NAMES)
        consumer = threading.Thread(target=lambda: outcomes.extend(run))
        consumer.start()
        wait_until(lambda: hanging.stuck == 2)
        hanging.released.set()
        consumer.join(30)
        assert [type(outcome) for outcome in outcomes] == [Embedded] * 6 + [Failed, Embedded]
        assert outcomes[6] == Failed(6, "too late")

    @pytest.mark.parametrize("timeout", [-1.0, math.nan])
    def test_impossible_numbers(self, timeout: float) -> None:
        with pytest.raises(UsageError):
            make_engine(song_timeout=timeout)


class TestAllHang:
    def test_there_is_an_end_to_threads(self, hanging: Hanging, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(crew_module, "MOST", 5)
        clock.runs = lambda: hanging.stuck > 0
        with pytest.raises(PoolembedError, match="5 files made no progress") as caught:
            list(make_engine(workers=2, song_timeout=TIMEOUT).run(["hang"] * 50))
        assert caught.value.hint is not None
        assert hanging.stuck <= 6


class TestStopped:
    @pytest.mark.parametrize("timeout", [0.0, 300.0])
    @pytest.mark.parametrize("ordered", [True, False])
    def test_songs_in_hand_are_finished_and_the_hanging_one_is_left(
        self, ordered: bool, timeout: float, hanging: Hanging, clock: Clock
    ) -> None:
        stop = threading.Event()
        clock.runs = stop.is_set
        engine = make_engine(workers=2, batch_size=1, song_timeout=timeout)
        names = ["a", "hang later", *"bcdefgh"]
        found = []
        for outcome in engine.run(names, ordered=ordered, stop=stop):
            assert isinstance(outcome, Embedded)
            found.append(outcome.index)
            wait_until(lambda: hanging.stuck == 1 and hanging.fine == 8)
            stop.set()
        assert sorted(found) == [0, 2, 3, 4, 5, 6, 7, 8]

    def test_the_consumer_walks_away(self, hanging: Hanging) -> None:
        with closing(make_engine(workers=2, batch_size=1, song_timeout=0).run(["a", "hang", "b"])) as run:
            next(run)
            wait_until(lambda: hanging.stuck == 1)
        assert not hanging.released.is_set()


class Nothing:
    """Whose crew has nobody in it."""

    def __init__(self, timeout: float) -> None:
        self.given_up: list[str] = []
        self.crew: Crew[str] = Crew(self.dismiss, self.stuck, timeout)

    def dismiss(self) -> None: ...

    def stuck(self, work: str, seconds: float) -> None:
        self.given_up.append(work)

    def look(self, clock: Clock, seconds: float) -> None:
        clock.now += seconds
        self.crew.look()


class TestTime:
    @pytest.fixture
    def run(self, clock: Clock) -> Nothing:
        made = Nothing(10.0)
        # Threads of its own are started by their loops alone.
        self.task = made.crew.take("song")
        made.crew._loops[self.task.thread] = lambda: None
        return made

    task: Task[str]

    def test_a_song_that_moves_is_never_given_up(self, run: Nothing, clock: Clock) -> None:
        for _ in range(100):
            self.task.move(away=True)
            run.look(clock, 9)
            self.task.move(away=False)
        assert run.given_up == []

    def test_nor_one_that_is_not_in_a_decoder(self, run: Nothing, clock: Clock) -> None:
        for _ in range(100):
            run.look(clock, 9)
        assert run.given_up == []

    def test_a_laptop_that_slept_gives_up_nothing(self, run: Nothing, clock: Clock) -> None:
        self.task.move(away=True)
        run.look(clock, 1)
        for _ in range(4):
            run.look(clock, 1e6)
        assert run.given_up == []
        self.task.move(away=False)
        run.crew.back(self.task)

    def test_ten_seconds_are_ten_seconds(self, run: Nothing, clock: Clock) -> None:
        self.task.move(away=True)
        for _ in range(10):
            run.look(clock, 1)
        assert run.given_up == []
        run.look(clock, 1)
        assert run.given_up == ["song"]
        with pytest.raises(StuckError):
            run.crew.back(self.task)


PROGRAM = """
import os, sys, threading
from tests.conftest import RATE, noise, tiny_network
from poolembed.embed import crew, engine
from tests.embed.test_engine import make_engine

def case(end, named=lambda songs: songs):
    # In a forked process, which has all the imports already, and whose interpreter ends as any does.
    global g
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        return
    g = make_engine().run(named((noise(4000), RATE) for _ in range(100_000)))
    next(g)
    end()
    sys.exit()

class Hang:
    def __enter__(self): threading.Event().wait()
    def __exit__(self, *error): pass

def hanging(songs):
    real = engine.open_source
    engine.open_source = lambda source, rate: Hang() if source == "hang" else real(source, rate)
    crew.LEAVING = 0.5
    return iter([next(songs), "hang", *(next(songs) for _ in range(300))])

case(lambda: None)
case(lambda: threading.Thread(target=lambda: [next(g) for _ in range(300)]).start())
case(lambda: threading.Thread(target=lambda: list(g), daemon=True).start())
case(lambda: None, hanging)
"""


@pytest.mark.timeout(PATIENCE)
def test_the_interpreter_ends_while_a_generator_is_referenced() -> None:
    """Or consumed by a thread, or by a daemon, or while a decoder hangs."""
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a process of several is not to be forked
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        check=False,
        capture_output=True,
        timeout=PATIENCE,
        text=True,
        env={**os.environ, **one_thread},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_engines_say_their_timeout() -> None:
    assert make_engine().song_timeout == crew_module.SONG_TIMEOUT
    assert isinstance(make_engine(song_timeout=math.inf), Engine)
