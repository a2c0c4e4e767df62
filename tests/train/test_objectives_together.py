"""Several objectives on one table, each with clips of its own: who counts where, and what the views are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from poolembed.bundle import load_bundle
from poolembed.errors import LabelsError, UsageError
from poolembed.progress import silent
from poolembed.train.config import TrainConfig
from poolembed.train.dataset import load_dataset
from poolembed.train.features import FeatureBatch
from poolembed.train.module import Inputs
from poolembed.train.processes import Processes
from poolembed.train.run import Run
from poolembed.train.sampling import Batch
from poolembed.train.start import start_model
from tests.train.runs import config, train, write_clips

ALONE = Processes(torch.device("cpu"))


def write_table(root: Path) -> Path:
    """18 clips: 12 train and 6 validate; a third has a program, a third a track, a third nothing but targets."""
    if (root / "clips" / "table.csv").exists():
        return root / "clips" / "table.csv"
    write_clips(root / "clips")
    rows = ["path,program,track,split"]
    for label in range(3):
        for clip in range(6):
            program = f"p{clip % 2}" if label == 0 else ""
            track = f"t{clip // 2}" if label == 1 else ""
            rows.append(f"tone{label}/{clip}.wav,{program},{track},{'valid' if clip > 3 else 'train'}")
    (root / "clips" / "table.csv").write_text("\n".join(rows))
    return root / "clips" / "table.csv"


def write_targets(root: Path, name: str, tone: int, size: int) -> str:
    """Vectors of the clips of one tone."""
    random = np.random.default_rng(tone)
    lines = [{"path": f"tone{tone}/{clip}.wav", "embedding": random.normal(size=size).tolist()} for clip in range(6)]
    (root / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return str(root / f"{name}.jsonl")


def objectives(root: Path) -> list[dict[str, Any]]:
    """As of a model that is taught everything at once."""
    return [
        {"kind": "distill", "targets": write_targets(root, "one", 2, 5)},
        {"kind": "distill", "targets": write_targets(root, "two", 0, 3), "weight": 0.5},
        {"kind": "classification", "column": "program"},
        {"kind": "supcon", "column": "track"},
    ]


def run_of(root: Path, **options: Any) -> Run:
    return prepared(config(root, data=str(write_table(root)), objectives=objectives(root), batch_size=12, **options))


def prepared(settings: TrainConfig) -> Run:
    network = start_model(settings)
    data = load_dataset(settings, network, silent, ALONE)
    assert data is not None
    return Run(settings, network, data, ALONE)


def batches(run: Run, steps: int) -> list[tuple[Batch | FeatureBatch, Inputs]]:
    """The batches of the first steps, and what the network is given of them."""
    loader = run.loader()
    with loader.prefetch(0, steps) as made:
        return [(batch, loader.inputs(batch, step)) for step, batch in enumerate(made)]


@pytest.mark.parametrize("nested", [[], [2, 4]], ids=["whole", "nested"])
def test_each_objective_learns_from_its_own_clips_alone(tmp_path: Path, nested: list[int]) -> None:
    run = run_of(tmp_path, nested=nested)
    ((_, inputs),) = batches(run, 1)
    headed = run.module.headed
    assert isinstance(inputs.features, torch.Tensor)
    features = headed.features(inputs.features, inputs.frames)
    outputs = headed.finalize(headed.fold(features, inputs.frames), inputs.clips)
    tones = [run.data.labelled.clips[clip].key[4] for clip in inputs.clips.tolist()]
    assert sorted(set(tones)) == ["0", "1", "2"], "clips without any label are dropped"
    for objective, tone in zip(run.objectives.all, "2001", strict=True):
        (loss,) = objective.losses(outputs)
        (gradient,) = torch.autograd.grad(loss, outputs.embeddings, retain_graph=True)
        touched = gradient.abs().sum(1) > 0
        if tone == "1":  # a clip of any other is one that those of the track are told from
            assert touched.all()
        else:
            assert touched.tolist() == [mine == tone for mine in tones]


def test_classes_are_balanced_over_the_labelled_clips(tmp_path: Path) -> None:
    table = write_table(tmp_path)
    table.write_text(table.read_text().replace("tone0/1.wav,p1", "tone0/1.wav,p0"))  # three p0 train, one p1
    run = run_of(tmp_path)
    (objective,) = run.objectives.classified
    assert objective.known.sum() == 6
    assert objective.class_weights.tolist() == pytest.approx([4 / (2 * 3), 4 / (2 * 1)])


def test_the_second_view_is_of_the_same_track_whatever_else_is_learned(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    assert run.objectives.partner_column == "track"
    clips = run.data.labelled.clips
    for batch, _ in batches(run, 3):
        for first, second in batch.clips.reshape(2, -1).T.tolist():
            track = clips[first].labels["track"]
            assert clips[second].labels["track"] == track
            assert (first == second) == (not track)


def test_a_column_of_which_no_clip_held_out_has_a_label_is_learned_and_not_measured(tmp_path: Path) -> None:
    table = write_table(tmp_path)
    lines = table.read_text().splitlines()
    table.write_text(
        "\n".join(
            line.replace(",p0,", ",,").replace(",p1,", ",,") if line.endswith("valid") else line for line in lines
        )
    )
    options = {"data": str(table), "objectives": objectives(tmp_path)}
    trained = train(config(tmp_path, **options), report=True)
    assert (tmp_path / "out" / "report.html").exists()
    assert not [name for name in trained.results["valid"] if "f1" in name or "accuracy" in name]
    assert [score["clips"] for score in trained.results["heads"]["program"]["per_class"]] == [0, 0]
    first = [options["objectives"][2], *options["objectives"][:2]]
    with pytest.raises(UsageError, match=r"no clip held out.*classification of program"):
        train(config(tmp_path, output=str(tmp_path / "other"), **{**options, "objectives": first}))


def test_a_column_that_is_not_there_is_refused_beside_objectives_that_need_none(tmp_path: Path) -> None:
    both = [*objectives(tmp_path)[:1], {"kind": "classification", "column": "programme"}]
    with pytest.raises(LabelsError, match="'programme'"):
        train(config(tmp_path, data=str(write_table(tmp_path)), objectives=both))


def test_a_nested_run_leaves_a_nested_bundle(tmp_path: Path) -> None:
    trained = train(config(tmp_path, nested=[4, 2], epochs=1))
    bundle = load_bundle(trained.output)
    assert bundle.config.nested == (2, 4)
    assert "first 2, 4 numbers" in bundle.card
    assert [head.config.labels for head in bundle.heads] == [("tone0", "tone1", "tone2")]
    assert bundle.heads[0].weight.shape == (3, 8), "what predicts is not of the whole embedding"


def test_a_nested_run_teaches_its_first_numbers(tmp_path: Path) -> None:
    """The first two of eight numbers tell three tones apart; without, they need not."""
    train(config(tmp_path, nested=[2], epochs=12, lr=0.01))
    run = prepared(config(tmp_path, init=str(tmp_path / "out")))
    clips = list(range(len(run.data.labelled.clips)))
    first = run.whole_clips().outputs(run.module.headed.eval(), clips).first(2).embeddings
    tones = torch.tensor([int(run.data.labelled.clips[clip].key[4]) for clip in clips])
    cosines = (first @ first.T).fill_diagonal_(-2)
    assert (tones[cosines.argmax(1)] == tones).float().mean() > 0.8


def test_more_numbers_than_there_are_cannot_be_nested(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="first 8 numbers of an embedding that has 8"):
        train(config(tmp_path, nested=[2, 8]))
