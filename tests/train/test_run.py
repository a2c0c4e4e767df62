"""Whole runs, tiny: what they learn, what they leave, and that stopping them changes nothing."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
import torch
from filelock import FileLock

import poolembed
from poolembed.bundle import load_bundle
from poolembed.embed.predict import Prediction, load_predictor
from poolembed.embed.windows import WindowShape
from poolembed.errors import LabelsError, OutputError, TrainingError, UsageError
from poolembed.progress import silent
from poolembed.train import start, trainer
from poolembed.train.cache import dequantise, quantise
from poolembed.train.config import TrainConfig
from poolembed.train.configfile import read_config
from poolembed.train.dataset import load_dataset
from poolembed.train.loading import WholeClips
from poolembed.train.module import HeadedModel
from poolembed.train.objectives.objectives import Objectives
from poolembed.train.processes import Processes
from poolembed.train.run import Run
from poolembed.train.sampling import Crops
from poolembed.train.start import start_model
from tests.conftest import RATE, tiny_config
from tests.train.runs import Quiet, config, train, write_clips

ALONE = Processes(torch.device("cpu"))


def bundle_files(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in ("model.safetensors", "heads.safetensors", "config.json")}


def test_a_run_leaves_a_bundle_that_embeds_and_its_report(tmp_path: Path) -> None:
    watcher = Quiet()
    trained = train(config(tmp_path, epochs=12, lr=0.01), on_event=watcher.event, report=True)
    assert trained.finished
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        ".train.lock",
        "README.md",
        "config.json",
        "heads.safetensors",
        "history.jsonl",
        "model.safetensors",
        "report.html",
        "results.json",
        "run.toml",
    }
    bundle = load_bundle(out)
    assert [head.config.labels for head in bundle.heads] == [("tone0", "tone1", "tone2")]
    assert trained.results["metric"]["value"] > 0.9, "three tones an octave apart are not told apart"
    assert watcher.records[-1].train["loss"] < watcher.records[0].train["loss"]
    vector = poolembed.load(out, precision="fp32").embed(tmp_path / "clips" / "tone0" / "0.wav")
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert json.loads((out / "results.json").read_text()) == trained.results
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 13))
    assert lines == [record.as_json() for record in watcher.records]
    assert read_config(out / "run.toml") == config(tmp_path, epochs=12, lr=0.01)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(
            config(
                tmp_path,
                output=str(tmp_path / name),
                seed=seed,
                augment={"gain_db": 3, "equalizer_db": 5, "low_pass": 0.5, "time_mask": 0.2},
            ),
        )
    a, b, c = (load_bundle(tmp_path / name).network.state_dict() for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["project.weight"], c["project.weight"])


def test_supcon_takes_labels_that_only_the_clips_held_out_have(tmp_path: Path) -> None:
    """Tracks that were never heard find each other all the same, and measured; no classifier could know them."""
    write_clips(tmp_path / "clips", labels=4, clips=3)
    rows = ["path,label,split"]
    rows += [f"tone{n}/{i}.wav,tone{n},{'valid' if n > 1 else 'train'}" for n in range(4) for i in range(3)]
    (tmp_path / "clips" / "labels.csv").write_text("\n".join(rows))
    watcher = Quiet()
    options = {"data": str(tmp_path / "clips" / "labels.csv"), "objectives": [{"kind": "supcon"}]}
    trained = train(config(tmp_path, **options), on_event=watcher.event)
    assert trained.results["metric"]["name"] == "recall_at_1"
    assert all(record.valid["recall_at_1"] > 0.6 for record in watcher.records)  # tones of other heights; by chance 0.4


RESUMED: list[dict[str, Any]] = [
    {"augment": {"gain_db": 3, "time_mask": 0.3, "band_mask": 0.3, "mixup": 0.4, "resized_crop": 0.1, "shift": 0.03}},
    {"pool": "predictions", "pooling": "gem"},
    {"freeze": "encoder"},
    {"objectives": [{"kind": "contrastive"}, {"kind": "supcon", "weight": 0.5}]},
    {"precision": "bf16", "init": "scratch"},
    {"objectives": [{"kind": "classification"}, {"kind": "supcon"}], "nested": [2, 4]},
]


@pytest.mark.parametrize("options", RESUMED, ids="+".join)
def test_stopping_and_resuming_equals_not_having_stopped(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "ModelConfig", tiny_config)
    options = {"batch_size": 3, "seconds": 0.4, "epochs": 2, **options}
    whole = train(config(tmp_path, output=str(tmp_path / "whole"), **options))
    for after in (2, 4):  # in an epoch, and at its end
        stop = threading.Event()
        first = Quiet(on_step=lambda step, stop=stop, after=after: stop.set() if step == after else None)
        broken = config(tmp_path, output=str(tmp_path / str(after)), **options)
        assert not train(broken, first, stop=stop).finished
        assert first.steps == list(range(1, after + 1))
        second = Quiet()
        resumed = train(broken, second, resume=True)
        assert second.steps[0] == after + 1
        assert resumed.finished
        for name in ("model.safetensors", "heads.safetensors"):
            if (tmp_path / "whole" / name).exists():
                assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / str(after) / name).read_bytes(), name
        timings = {"seconds", "clips_per_second", "waiting"}
        histories = [
            [{k: v for k, v in json.loads(line).items() if k not in timings} for line in path.read_text().splitlines()]
            for path in (tmp_path / "whole" / "history.jsonl", tmp_path / str(after) / "history.jsonl")
        ]
        assert histories[0] == histories[1]
        assert whole.results["metric"] == resumed.results["metric"]


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class KilledError(BaseException):
        pass

    def kill(step: int) -> None:
        if step == 5:
            raise KilledError

    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY", 0.0)
    train(config(tmp_path, output=str(tmp_path / "whole")))
    broken = config(tmp_path, output=str(tmp_path / "broken"))
    with pytest.raises(KilledError):
        train(broken, Quiet(on_step=kill))
    with pytest.raises(OutputError, match=r"not finished.*--resume"):
        train(broken)
    again = Quiet()
    train(broken, again, resume=True)
    assert again.steps[0] == 5
    assert (
        bundle_files(tmp_path / "whole")["model.safetensors"] == bundle_files(tmp_path / "broken")["model.safetensors"]
    )


def test_resuming_a_run_that_never_reached_a_checkpoint_starts_it(tmp_path: Path) -> None:
    class KilledError(BaseException):
        pass

    def kill(step: int) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        train(config(tmp_path), Quiet(on_step=kill))
    again = Quiet()
    assert train(config(tmp_path), again, resume=True).finished
    assert again.steps[0] == 1


@pytest.mark.parametrize("resume", [True, False])
def test_a_finished_run_once_more_changes_nothing(resume: bool, tmp_path: Path) -> None:
    results = train(config(tmp_path)).results
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    watcher = Quiet()
    again = train(config(tmp_path), watcher, resume=resume)
    assert again.finished
    assert again.already
    assert watcher.steps == []
    assert again.results == results
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("resume", [True, False])
def test_what_a_kill_while_the_model_was_written_left_is_removed(resume: bool, tmp_path: Path) -> None:
    train(config(tmp_path))
    out = tmp_path / "out"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / ".out.12345.part").mkdir()
    (out / ".out.12345.part" / "model.safetensors").write_bytes(b"half")
    for name in ("checkpoint.safetensors", "results.json.part", "history.jsonl.part"):
        (out / name).write_bytes(b"half")
    (out / "mine.part").write_bytes(b"mine")
    assert train(config(tmp_path), resume=resume).finished
    (out / "mine.part").unlink()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_resuming_refuses_other_clips(tmp_path: Path) -> None:
    stop = threading.Event()
    train(config(tmp_path), Quiet(on_step=lambda _: stop.set()), stop=stop)
    (tmp_path / "clips" / "tone0" / "0.wav").unlink()
    with pytest.raises(OutputError, match="not those"):
        train(config(tmp_path), resume=True)


def test_directories_that_hold_something_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no run to resume"):
        train(config(tmp_path), resume=True)
    train(config(tmp_path))
    with pytest.raises(OutputError, match=r"holds a model already.*--overwrite"):
        train(config(tmp_path, seed=1))
    assert train(config(tmp_path, seed=1), overwrite=True).finished
    with FileLock(tmp_path / "out" / ".train.lock"), pytest.raises(OutputError, match="another run"):
        train(config(tmp_path), overwrite=True)


def test_pooling_parameters_move_and_their_path_is_kept(tmp_path: Path) -> None:
    trained = train(config(tmp_path, pooling="gem", pooling_scope="channel", p=2.0, epochs=4))
    (pool,) = trained.results["pooling"]
    assert (pool["where"], pool["kind"], pool["parameter"]) == ("features", "gem", "p")
    assert pool["start"] == [2.0] * 12
    assert len(set(pool["end"])) > 6
    assert min(pool["end"]) >= 1
    learned = load_bundle(tmp_path / "out").network.pools[0]
    assert learned.p.tolist() == pytest.approx(pool["end"])  # type: ignore[operator]


def test_a_bound_on_alpha_is_never_crossed(tmp_path: Path) -> None:
    watcher = Quiet()
    options: dict[str, Any] = {"pooling": "autopool", "alpha_max": 0.6, "pooling_lr": 1000.0}
    train(config(tmp_path, **options), on_event=watcher.event)
    spans = [(pool.min, pool.max) for record in watcher.records for pool in record.pooling]
    assert all(0 <= low <= high <= np.float32(0.6) for low, high in spans)
    assert any(low < high for low, high in spans)


def test_a_frozen_encoder_keeps_its_weights_and_sees_each_clip_once(tmp_path: Path) -> None:
    watcher = Quiet()
    train(config(tmp_path, freeze="encoder", epochs=4), watcher, on_event=watcher.event)
    start, end = load_bundle(tmp_path / "start").network, load_bundle(tmp_path / "out").network
    for (name, before), after in zip(start.state_dict().items(), end.state_dict().values(), strict=True):
        if name.startswith(("encoder", "frontend", "mel_norm")):
            assert torch.equal(before, after), name
    assert not torch.equal(start.project.weight, end.project.weight)
    windows = sum(-(-int(1 + soundfile.info(f).frames // 80) // 32) for f in (tmp_path / "clips").rglob("*.wav"))
    assert watcher.told["encoding"][-1] == (windows, windows)
    assert watcher.plans[0].trained_parameters < watcher.plans[0].parameters


def test_what_validation_scores_is_what_embedding_gives(tmp_path: Path) -> None:
    settings = config(tmp_path)
    network = start_model(settings)
    data = load_dataset(settings, network, silent, ALONE)
    assert data is not None
    run = Run(settings, network, data, ALONE)
    outputs = run.whole_clips().outputs(run.module.headed.eval(), data.division.valid)
    model = poolembed.load(tmp_path / "start", precision="fp32")
    for clip, embedding in zip(data.division.valid, outputs.embeddings, strict=True):
        expected = torch.from_numpy(model.embed(data.labelled.clips[clip].path))
        assert float(embedding @ expected) > 0.999, "quantised log-mels lead elsewhere"


@pytest.mark.parametrize("pool", ["features", "predictions"])
def test_a_model_with_context_is_trained_and_embeds_as_it_was_validated(tmp_path: Path, pool: str) -> None:
    encoder = msgspec.structs.replace(tiny_config().encoder, context=True)
    model = msgspec.to_builtins(msgspec.structs.replace(tiny_config(), encoder=encoder))
    settings = config(tmp_path, init="scratch", model=model, pool=pool, epochs=3, augment={"time_mask": 0.2})
    assert train(settings).finished
    trained = load_bundle(tmp_path / "out")
    assert trained.network.config.encoder == encoder
    data = load_dataset(settings, trained.network, silent, ALONE)
    assert data is not None
    crops = Crops.of(data.cache, data.rows, encoder)
    whole_clips = WholeClips(crops, device=ALONE.device, log_floor=data.cache.log_floor)
    outputs = whole_clips.outputs(HeadedModel(trained.network, trained.heads), data.division.valid)
    clips = [data.labelled.clips[clip].path for clip in data.division.valid]
    embedded = poolembed.load(tmp_path / "out", precision="fp32").embed_files(clips)
    predicted = load_predictor(tmp_path / "out", precision="fp32").predict(clips)
    for embedding, score, (_, vector), prediction in zip(
        outputs.embeddings, outputs.scores["label"], embedded, predicted, strict=True
    ):
        assert float(embedding @ torch.from_numpy(vector)) > 0.999
        assert isinstance(prediction, Prediction)
        found = score.softmax(0) if pool == "features" else score
        np.testing.assert_allclose(prediction.probabilities["label"], found, atol=0.02)


def test_halves_of_a_clip_merge_to_the_whole(tmp_path: Path) -> None:
    settings = config(
        tmp_path, init="scratch", model=msgspec.to_builtins(tiny_config(mel_statistics=False)), pooling="max"
    )
    network = start_model(settings)
    data = load_dataset(settings, network, silent, ALONE)
    assert data is not None
    run = Run(settings, network, data, ALONE)
    halves = run.whole_clips().halves(run.module.headed.eval(), [3])
    assert halves.shape == (2, 1, 8)
    assert not torch.allclose(halves[0], halves[1])


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step \d+.*--lr"):
        train(config(tmp_path, lr=1e30, clip_norm=1e30))


def test_early_stopping_keeps_the_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.1, 0.7, 0.5, 0.6, 0.9])
    monkeypatch.setattr(Objectives, "validate", lambda *_: {"macro_f1": next(scores)})
    trained = train(config(tmp_path, epochs=5, patience=2))
    assert trained.results["epochs"] == 4
    assert trained.results["metric"] == {"name": "macro_f1", "value": 0.7, "epoch": 2}


def test_broken_clips_cost_only_themselves(tmp_path: Path) -> None:
    settings = config(tmp_path)
    (tmp_path / "clips" / "tone0" / "broken.wav").write_bytes(b"RIFF no")
    watcher = Quiet()
    train(settings, on_event=watcher.event)
    assert list(watcher.reports[0].dropped) == ["tone0/broken.wav"]


def test_no_clip_that_can_be_decoded_is_an_error(tmp_path: Path) -> None:
    settings = config(tmp_path)
    for path in (tmp_path / "clips").rglob("*.wav"):
        path.write_bytes(b"RIFF no")
    with pytest.raises(LabelsError, match=r"none of the 18 clips.*tone0/0.wav"):
        train(settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 3.0}, "p is an option of gem"),
        ({"pooling": "mean", "alpha_max": 3.0}, "alpha_max is an option of autopool"),
        ({"pooling": "max", "pooling_scope": "scalar"}, "no parameter"),
        ({"pooling": "mean+max", "pool": "predictions"}, "no probability"),
        ({"objectives": [{"kind": "supcon"}], "augment": {"mixup": 0.2}}, "mixup"),
        ({"objectives": [{}, {}]}, "twice"),
        ({"model": {}}, "scratch"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train(config(tmp_path, **options))


def test_a_full_disk_at_the_end_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def full(path: Path, *args: Any, **options: Any) -> int:
        if "results.json" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OutputError, match=r"results.json.*make room"):
            train(config(tmp_path))
    assert not (tmp_path / "out" / "config.json").exists()
    again = Quiet()
    assert train(config(tmp_path), again, resume=True).finished
    assert again.steps == [], "what was learned was learned again"


def test_distilling_learns_a_teachers_vectors(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips")
    keys = sorted(path.relative_to(tmp_path / "clips").as_posix() for path in (tmp_path / "clips").rglob("*.wav"))
    lines = [{"path": key, "embedding": [5.0 * (key[4] == "0"), 7.0 * (key[4] == "1"), 1.0]} for key in keys]
    (tmp_path / "teacher.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    objective = {"kind": "distill", "targets": str(tmp_path / "teacher.jsonl")}
    trained = train(config(tmp_path, objectives=[objective], epochs=40, lr=0.02))
    assert trained.results["metric"]["name"] == "cosine"
    assert trained.results["metric"]["value"] > 0.7


def test_quantising_is_within_half_a_level_of_what_embedding_sees() -> None:
    floor = tiny_config().frontend.log_floor
    mel = torch.linspace(np.log(floor), 5, 1000)
    assert (dequantise(quantise(mel, floor), floor) - mel).abs().max() <= 0.0401


def test_crops_are_as_long_as_asked(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips", labels=2)
    window = WindowShape.of(tiny_config()).frames * 80 / RATE
    for seconds, windows in ((0.1, 1), (window, 1), (window + 0.01, 2), (None, 3)):
        settings = config(tmp_path, seconds=seconds)
        network = start_model(settings)
        data = load_dataset(settings, network, silent, ALONE)
        assert data is not None
        assert Run(settings, network, data, ALONE).windows == windows


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="epoch"):
        msgspec.convert({"data": "a", "output": "b", "epoch": 3}, TrainConfig)


def test_a_run_that_could_not_begin_leaves_the_directory_free(tmp_path: Path) -> None:
    broken = config(tmp_path, data=str(tmp_path / "nowhere.csv"))
    with pytest.raises(LabelsError, match=r"nowhere.csv"):
        train(broken)
    assert train(config(tmp_path)).finished
