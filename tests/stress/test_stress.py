"""A minute of the three harnesses. The tables in ``tests/benchmarks/results`` come from all of them."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stress import conditions, kills, mutations
from tests.stress.common import toy
from tests.stress.corpus import MUTATIONS, clean_files, mutated
from tests.stress.zygote import Zygote, supported

pytestmark = pytest.mark.skipif(not supported(), reason="no looking at a child's system calls here")

SEED = 1000  # not that of the tables: other files, other moments


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as made:
        yield made


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("stress")
    toy(made)
    return made


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
    def test_the_seed_gives_the_files(self) -> None:
        files = clean_files()
        assert [one.data for one in files] == [one.data for one in clean_files()]
        assert len(files) > 30
        several = [mutated(files, SEED, number) for number in range(len(files) * len(MUTATIONS))]
        assert [data for _, _, data in several] == [
            mutated(files, SEED, number)[2] for number in range(len(files) * len(MUTATIONS))
        ]
        assert len({(clean.name, way) for clean, way, _ in several}) == len(several), "every pair comes once"

    @pytest.mark.parametrize("first", [0, mutations.CHUNK, 2 * mutations.CHUNK, 7 * mutations.CHUNK])
    def test_no_damaged_file_is_lost_or_ends_a_run(self, first: int, zygote: Zygote, root: Path, folder: Path) -> None:
        files = mutations.chunk_of(clean_files(), SEED, first, first + 100)
        chunk = mutations.run_chunk(zygote, folder, files, root / "toy")
        assert chunk.faults == []
        assert sum(chunk.counts.values()) == 100
        outcomes = {key.rpartition("|")[2] for key in chunk.counts}
        assert outcomes == {"embedded", "noted", "failed"}

    def test_undamaged_files_are_embedded_without_a_note(self, zygote: Zygote, root: Path, folder: Path) -> None:
        files = [(number, one, "none", one.data) for number, one in enumerate(clean_files())]
        chunk = mutations.run_chunk(zygote, folder, files, root / "toy")
        assert chunk.faults == []
        assert {key for key in chunk.counts if not key.endswith("|embedded")} == set()


class TestKills:
    @pytest.mark.parametrize(
        ("name", "trials"),
        [
            ("embed npy", 6),
            ("embed matrix with timestamps, again", 6),
            ("embed parquet, again", 4),
            ("embed jsonl, again", 6),
            ("index, again", 4),
            ("push, again", 3),
            ("map", 2),
            ("train from a checkpoint", 2),
        ],
    )
    def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
        self, name: str, trials: int, zygote: Zygote, root: Path, folder: Path
    ) -> None:
        made = prepared(zygote, root, name)
        done = [kills.trial(zygote, folder, made, SEED, number) for number in range(trials)]
        assert [one["faults"] for one in done] == [[]] * trials
        assert sum(one["kills"] for one in done) > 0

    def test_a_kill_comes_before_the_call_that_it_is_asked_for(self, zygote: Zygote, root: Path, folder: Path) -> None:
        made = prepared(zygote, root, "embed npy")
        done = zygote.run(made.scenario.command(made.inputs), folder, at=1)
        assert (done.code, done.calls, done.hit) == (-signal.SIGKILL, 1, True)
        assert list(folder.iterdir()) == []


class TestConditions:
    @pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
    def test_a_disk_that_fails(self, error: int, zygote: Zygote, root: Path, folder: Path) -> None:
        made = prepared(zygote, root, "embed jsonl, again")
        outcome = conditions.failing(error, lasting=True)(zygote, folder, {"": made}, 6)
        assert outcome.faults == []
        assert outcome.codes["1"] > 0

    @pytest.mark.parametrize("row", ["songs change after they are looked at", "output removed midway"])
    def test_what_changes_under_a_run(self, row: str, zygote: Zygote, root: Path, folder: Path) -> None:
        names = ["embed npy", "embed matrix", "embed parquet", "embed jsonl with timestamps"]
        made = {name: prepared(zygote, root, name) for name in names}
        assert conditions.ROWS[row](zygote, folder, made, 1).faults == []

    def test_a_decoder_that_hangs(self, zygote: Zygote, root: Path, folder: Path) -> None:
        names = ["embed npy", "embed matrix", "embed parquet with timestamps", "embed jsonl"]
        outcome = conditions.ROWS["a decoder that hangs"](
            zygote, folder, {name: prepared(zygote, root, name) for name in names}, 1
        )
        if outcome.skipped:
            pytest.skip(outcome.skipped)
        assert outcome.faults == []
