"""Whole studies, of a blink each."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from filelock import FileLock

import poolembed
from poolembed.bundle import load_bundle
from poolembed.compare.command import compare, read_results
from poolembed.compare.config import StudyConfig, small_model
from poolembed.compare.contenders import CONTENDERS
from poolembed.compare.jobs import MODELS, RUNS, WORK, perform
from poolembed.compare.results import Results
from poolembed.compare.study import Study, StudyPlan, best_trial, run_study
from poolembed.errors import OutputError, TrainingError, UsageError
from poolembed.train.config import TrainConfig
from tests.compare.studies import TINY, Told, config, record, write_table

pytestmark = pytest.mark.usefixtures("no_new_threads")

BASE = TrainConfig(data="", output="o", patience=0)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results, Told]:
    """A study of mean, GeM and attention, from start to end."""
    root = tmp_path_factory.mktemp("study")
    write_table(root)
    told = Told()
    results = compare(config(root, poolings=("mean", "gem-scalar"), epochs=3), told)
    assert results is not None
    return root, results, told


class TestFinished:
    def test_files(self, done: tuple[Path, Results, Told]) -> None:
        root, results, _ = done
        study = root / "study"
        assert msgspec.json.encode(read_results(study / "study.json")) == msgspec.json.encode(results)
        assert results.finished
        assert "GeM, one p" in (study / "study.md").read_text()
        assert (study / "study.svg").read_text().startswith("<?xml")
        assert not list((study / WORK).iterdir())
        assert not [path for path in study.rglob("*") if path.name.endswith(".part")]

    def test_every_run_is_written_down(self, done: tuple[Path, Results, Told]) -> None:
        root, results, told = done
        names = {path.stem for path in (root / "study" / RUNS).iterdir()}
        assert told.begun == (6 + 4, 0)
        assert len(told.runs) == len(names) == 10
        assert {run.partition(":")[0] for run in told.runs} == names
        assert {run for row in results.rows for run in row.runs} < names

    def test_only_final_runs_are_tested_and_kept(self, done: tuple[Path, Results, Told]) -> None:
        root, _, _ = done
        for path in (root / "study" / RUNS).iterdir():
            run = json.loads(path.read_bytes())
            assert bool(run["test"]) == (run["seed"] > 0) == (root / "study" / MODELS / path.stem).exists()

    def test_models_are_ordinary_bundles(self, done: tuple[Path, Results, Told]) -> None:
        root, results, _ = done
        row = results.rows[1]
        model = poolembed.load(root / "study" / MODELS / row.runs[0])
        assert model.config.model.pooling.kind == "gem"
        assert np.isclose(np.linalg.norm(model.embed(str(root / "clips" / "tone0" / "0.wav"))), 1)

    def test_seeds_take_folds_in_turn(self, done: tuple[Path, Results, Told]) -> None:
        root, results, _ = done
        assert results.tests == ["fold 1", "fold 2"]
        assert results.clips == [{"train": 6, "valid": 6, "test": 6}] * 2
        for seed, fold in ((1, 1), (2, 2)):
            run = next(run for run in results.rows[0].runs if f"-seed{seed}-" in run)
            assert f"fold-{fold}.learn.jsonl" in (root / "study" / MODELS / run / "run.toml").read_text()

    def test_the_chosen_trial_is_the_best_of_the_search(self, done: tuple[Path, Results, Told]) -> None:
        row = done[1].rows[1]
        best = max(score for _, score in row.search)
        assert row.trial == next(trial for trial, score in row.search if score == best)
        assert len(row.search) == 6

    def test_mean_and_differences(self, done: tuple[Path, Results, Told]) -> None:
        mean, gem = done[1].rows
        assert mean.minus_mean == {}
        values = np.array([mean.test["accuracy"].values, gem.test["accuracy"].values])
        np.testing.assert_allclose(gem.minus_mean["accuracy"].values, values[1] - values[0])
        assert mean.training == 1.0
        assert mean.pooling == 1.0
        assert (mean.parameters, gem.parameters) == (0, 1)
        assert gem.learned is not None
        assert (gem.learned.parameter, gem.learned.start) == ("p", gem.trial["p"])
        assert gem.learned.min <= gem.learned.mean <= gem.learned.max

    def test_test_scores_are_those_of_the_kept_model(self, done: tuple[Path, Results, Told]) -> None:
        """Decoded and embedded anew, through another path than the log-mel cache."""
        root, results, _ = done
        run = results.rows[0].runs[0]
        assert "-seed1-" in run
        bundle = load_bundle(root / "study" / MODELS / run)
        model = poolembed.load(root / "study" / MODELS / run, precision="fp32")
        head = bundle.heads[0]
        right = []
        for label in range(3):
            for number in (0, 3):  # fold 1
                vector = model.embed(str(root / "clips" / f"tone{label}" / f"{number}.wav"))
                scores = head(poolembed_tensor(vector)).argmax(1).item()
                right.append(head.config.labels[int(scores)] == f"tone{label}")
        assert np.isclose(results.rows[0].test["accuracy"].values[0], np.mean(right))

    def test_again_does_nothing_but_read(self, done: tuple[Path, Results, Told]) -> None:
        root, results, _ = done
        before = {path: path.stat().st_mtime_ns for path in (root / "study" / RUNS).iterdir()}
        told = Told()
        again = compare(config(root, poolings=("mean", "gem-scalar"), epochs=3), told)
        assert again is not None
        assert {path: path.stat().st_mtime_ns for path in (root / "study" / RUNS).iterdir()} == before
        assert [row.test for row in again.rows] == [row.test for row in results.rows]
        assert told.begun == (10, 8)
        assert len(told.runs) == 2  # which final runs a search leads to shows as it goes

    def test_a_changed_option_is_another_run(self, done: tuple[Path, Results, Told]) -> None:
        root, _, _ = done
        one = run_study(config(root, poolings=("mean",), seeds=1, epochs=3), told := Told())
        assert one is not None
        assert told.begun == (1, 1)
        stop = threading.Event()
        stop.set()
        assert run_study(config(root, poolings=("mean",), seeds=1, epochs=3, lr=0.5), Told(), stop=stop) is None


def poolembed_tensor(vector: Any) -> Any:
    import torch

    return torch.from_numpy(vector).unsqueeze(0)


def test_ids_of_runs_outlast_new_options_of_training() -> None:
    """Golden: a study that an earlier version began goes on, and is told apart by what runs are made of alone."""
    plan = StudyPlan(cast(Study, SimpleNamespace(config=StudyConfig(data="", output="o"))), BASE, [("a", "b")], ["x"])
    assert [plan.job(CONTENDERS["mean"], {}, seed).id for seed in (0, 1)] == [
        "mean-seed0-ee977417a0",
        "mean-seed1-bd24417a00",
    ]
    scratch = msgspec.structs.replace(BASE, init="scratch", model=small_model())
    plan = StudyPlan(
        cast(Study, SimpleNamespace(config=StudyConfig(data="", output="o"))), scratch, [("a", "b")], ["x"]
    )
    assert plan.job(CONTENDERS["mean"], {}, 0).id == "mean-seed0-7001ffeecf"
    encoder = msgspec.structs.replace(small_model().encoder, context=True)
    plan.base = msgspec.structs.replace(scratch, model=msgspec.structs.replace(small_model(), encoder=encoder))
    assert plan.job(CONTENDERS["mean"], {}, 0).id != "mean-seed0-7001ffeecf"


def test_a_run_is_what_train_makes(tmp_path: Path) -> None:
    """Bit for bit: nothing stands between a study and `poolembed.train`."""
    from poolembed.train.configfile import read_config
    from tests.train.runs import train

    write_table(tmp_path)
    results = compare(config(tmp_path, poolings=("max",), seeds=1), Told())
    assert results is not None
    kept = tmp_path / "study" / MODELS / results.rows[0].runs[0]
    again = msgspec.structs.replace(read_config(kept / "run.toml"), output=str(tmp_path / "again"))
    train(again)
    for name in ("model.safetensors", "heads.safetensors"):
        assert (kept / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_stopped_and_gone_on(tmp_path: Path) -> None:
    write_table(tmp_path)
    stop = threading.Event()
    first = Told(on_run=stop.set)
    results = compare(config(tmp_path, jobs=1), first, stop=stop)
    assert len(first.runs) == 1
    assert results is not None
    assert not results.finished
    assert "Not finished" in (tmp_path / "study" / "study.md").read_text()
    second = Told()
    results = compare(config(tmp_path, jobs=1), second)
    assert second.begun == (4, 1)
    assert len(second.runs) == 3
    assert results is not None
    assert results.finished
    assert "Not finished" not in (tmp_path / "study" / "study.md").read_text()


def test_a_torn_record_and_a_run_cut_off_are_done_again(tmp_path: Path) -> None:
    write_table(tmp_path)
    told = Told()
    results = compare(config(tmp_path, seeds=1), told)
    assert results is not None
    one, other = sorted((tmp_path / "study" / RUNS).iterdir())
    one.write_bytes(one.read_bytes()[:50])
    other.unlink()
    cut_off = tmp_path / "study" / WORK / other.stem
    cut_off.mkdir(parents=True)
    (cut_off / "run.toml").write_text("half")
    again = compare(config(tmp_path, seeds=1), told)
    assert again is not None
    assert [row.test for row in again.rows] == [row.test for row in results.rows]


def test_a_run_that_fails_is_named_and_costs_itself(tmp_path: Path) -> None:
    write_table(tmp_path)
    study = config(tmp_path, lr=1e30, batch_size=2)  # no loss survives that
    told = Told()
    with pytest.raises(TrainingError, match=r"every run of the study failed; mean-seed1-.*: the loss is"):
        compare(study, told)
    assert len(told.runs) == 4
    assert all(": failed: " in run and "loss is" in run for run in told.runs)


def test_a_process_that_dies_is_named(tmp_path: Path) -> None:
    write_table(tmp_path)
    killed: list[int] = []

    def kill_one() -> None:
        """At the first result, the other run in hand; the process of its own that runs it."""
        import multiprocessing

        if not killed:
            for child in multiprocessing.active_children():
                assert child.pid is not None
                killed.append(child.pid)
                os.kill(child.pid, signal.SIGKILL)

    three = {"poolings": ("mean", "max", "softmax"), "seeds": 1}
    results = compare(config(tmp_path, jobs=2, **three), told := Told(on_run=kill_one))
    assert killed
    assert results is not None
    died = [run for run in told.runs if ": failed: " in run]
    assert died
    assert all("ended with code -9" in run for run in died)
    assert len(told.runs) == 3
    assert len(results.failures) == len(died)
    assert "## Failed" in (tmp_path / "study" / "study.md").read_text()
    again = compare(config(tmp_path, **three), Told())
    assert again is not None
    assert not again.failures
    assert all(len(row.runs) == 1 for row in again.rows)


def test_predictions_leave_out_what_gives_two_numbers(tmp_path: Path) -> None:
    write_table(tmp_path, several=True)
    poolings = ("mean", "max", "mean+max", "attentive-statistics")
    results = compare(config(tmp_path, poolings=poolings, pool="predictions", seeds=1), Told())
    assert results is not None
    assert [row.name for row in results.rows] == ["mean", "max"]
    assert set(results.skipped) == {"mean+max", "attentive-statistics"}
    assert results.metrics == ["map", "macro_f1"]
    assert "## Left out" in (tmp_path / "study" / "study.md").read_text()


@pytest.mark.parametrize("objective", ["supcon", "contrastive"])
def test_retrieval(tmp_path: Path, objective: str) -> None:
    write_table(tmp_path)
    results = compare(config(tmp_path, objective=objective, seeds=1), Told())
    assert results is not None
    assert results.metric == "recall_at_1"
    assert results.metrics == ["recall_at_1", "retrieval_map"]
    assert all(0 <= row.test["recall_at_1"].mean <= row.test["retrieval_map"].mean + 1 for row in results.rows)


def test_from_scratch_the_architecture_is_the_studys(tmp_path: Path) -> None:
    write_table(tmp_path)
    results = compare(config(tmp_path, init="scratch", model=TINY, poolings=("max",), seeds=1), Told())
    assert results is not None
    network = load_bundle(tmp_path / "study" / MODELS / results.rows[0].runs[0]).network
    assert network.config.encoder == TINY.encoder
    assert network.config.pooling.kind == "max"


def test_search_takes_the_best_on_the_validation_split() -> None:
    records = [record("gem-scalar", 0, score, trial={"p": p}) for p, score in ((1, 0.3), (2, 0.5), (3, 0.5), (4, 0.1))]
    assert best_trial(records) == {"p": 2}


def test_what_means_nothing_is_said(tmp_path: Path) -> None:
    write_table(tmp_path)
    with pytest.raises(UsageError, match="no such pooling: men"):
        run_study(config(tmp_path, poolings=("men", "max")), Told())
    with pytest.raises(UsageError, match="no pooling to compare"):
        run_study(config(tmp_path, poolings=()), Told())
    with pytest.raises(UsageError, match="supcon has no predictions"):
        run_study(config(tmp_path, objective="supcon", pool="predictions"), Told())


def test_two_studies_in_one_directory(tmp_path: Path) -> None:
    write_table(tmp_path)
    (tmp_path / "study").mkdir()
    with FileLock(tmp_path / "study" / ".study.lock"), pytest.raises(OutputError, match="another study is running"):
        run_study(config(tmp_path), Told())


def test_perform_is_what_a_worker_does(tmp_path: Path) -> None:
    """In this process, so that coverage and debuggers see it."""
    from poolembed.compare.contenders import CONTENDERS

    write_table(tmp_path)
    plan = StudyPlan.make(config(tmp_path), Told(), threading.Event())
    assert plan is not None
    job = plan.job(CONTENDERS["autopool-channel"], {"pooling_lr": 10.0, "alpha": 0.0}, 1)
    found = perform(job)
    assert job.record.exists()
    assert found.learned is not None
    assert len(found.learned.end) == 12
    assert len(found.losses) == len(found.curve) == 2
    assert set(found.test) == {"accuracy", "macro_f1", "recall_at_1", "retrieval_map"}
    search = perform(plan.job(CONTENDERS["autopool-channel"], {"pooling_lr": 10.0, "alpha": 0.0}, 0))
    assert search.test == {}
    assert search.id != found.id
