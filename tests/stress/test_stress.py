"""Half a minute of the three harnesses. The tables in ``tests/benchmarks/results`` come from all of them."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stress import conditions, kills, mutations
from tests.stress.common import toy
from tests.stress.corpus import MUTATIONS, Clean, clean_files, mutated
from tests.stress.zygote import Zygote, supported

pytestmark = pytest.mark.skipif(not supported(), reason="no looking at a child's system calls here")

SEED = 1000  # not that of the tables: other files, other moments


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote(training=True) as made:
        yield made


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("stress")
    toy(made)
    return made


@pytest.fixture(scope="module")
def clean() -> list[Clean]:
    return clean_files()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job").mkdir()
    return tmp_path / "job"


_PREPARED: dict[tuple[Path, str], kills.Prepared] = {}


def prepared(zygote: Zygote, root: Path, name: str) -> kills.Prepared:
    if (made := _PREPARED.get((root, name))) is not None:
        return made
    (scenario,) = (one for one in kills.scenarios() if one.name == name)
    made = kills.prepare(zygote, root, scenario)
    assert made.faults == []
    assert made.calls > 5
    _PREPARED[root, name] = made
    return made


class TestMutations:
    def test_the_seed_gives_the_files(self, clean: list[Clean]) -> None:
        assert [one.data for one in clean] == [one.data for one in clean_files()]
        assert len(clean) > 30
        several = [mutated(clean, SEED, number) for number in range(len(clean) * len(MUTATIONS))]
        assert [data for _, _, data in several[::9]] == [
            mutated(clean, SEED, number)[2] for number in range(0, len(several), 9)
        ]
        assert len({(one.name, way) for one, way, _ in several}) == len(several), "every pair comes once"

    @pytest.mark.parametrize("first", [0, mutations.CHUNK, 2 * mutations.CHUNK, 7 * mutations.CHUNK])
    def test_no_damaged_file_is_lost_or_ends_a_run(
        self, first: int, clean: list[Clean], zygote: Zygote, root: Path, folder: Path
    ) -> None:
        files = mutations.chunk_of(clean, SEED, first, first + 60)
        chunk = mutations.run_chunk(zygote, folder, files, root / "toy")
        assert chunk.faults == []
        assert sum(chunk.counts.values()) == 60
        outcomes = {key.rpartition("|")[2] for key in chunk.counts}
        assert outcomes == {"embedded", "noted", "failed"}

    def test_undamaged_files_are_embedded_without_a_note(
        self, clean: list[Clean], zygote: Zygote, root: Path, folder: Path
    ) -> None:
        files = [(number, one, "none", one.data) for number, one in enumerate(clean)]
        chunk = mutations.run_chunk(zygote, folder, files, root / "toy")
        assert chunk.faults == []
        assert {key for key in chunk.counts if not key.endswith("|embedded")} == set()


class TestKills:
    @pytest.mark.parametrize(
        ("name", "trials"),
        [
            ("embed npy", 4),
            ("embed matrix with timestamps, again", 4),
            ("embed parquet, again", 2),
            ("embed jsonl, again", 3),
            ("index, again", 3),
            ("push, again", 2),
            ("map", 1),
            ("train from a checkpoint", 2),
        ],
    )
    def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
        self, name: str, trials: int, zygote: Zygote, root: Path
    ) -> None:
        made = prepared(zygote, root, name)
        done = [kills.trial(zygote, made.inputs, made, SEED, number) for number in range(trials)]
        assert [one["faults"] for one in done] == [[]] * trials
        assert sum(one["kills"] for one in done) > 0

    def test_a_kill_comes_before_the_call_that_it_is_asked_for(self, zygote: Zygote, root: Path, folder: Path) -> None:
        made = prepared(zygote, root, "embed npy")
        done = zygote.run(made.scenario.command(made.inputs), folder, at=1)
        assert (done.code, done.calls, done.hit) == (-signal.SIGKILL, 1, True)
        assert list(folder.iterdir()) == []


class TestConditions:
    @pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
    def test_a_disk_that_fails(self, error: int, zygote: Zygote, root: Path) -> None:
        made = prepared(zygote, root, "embed jsonl, again")
        outcome = conditions.failing(error, lasting=True)(zygote, made.inputs, {"": made}, 4)
        assert outcome.faults == []
        assert outcome.codes["1"] > 0

    @pytest.mark.parametrize(
        "row", ["songs change after they are looked at", "output removed midway", "a decoder that hangs"]
    )
    def test_what_befalls_a_run(self, row: str, zygote: Zygote, root: Path, folder: Path) -> None:
        """With files of their own, and with rows of which a table is made."""
        made = {name: prepared(zygote, root, name) for name in ("embed npy", "embed jsonl with timestamps")}
        outcome = conditions.ROWS[row](zygote, folder, made, 1)
        assert outcome.faults == []
        assert sum(outcome.codes.values()) > 2
