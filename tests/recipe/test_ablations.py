"""Ablations: each variant changes what it says, the smaller tables are fair, and what is done is not done again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import numpy as np
import pytest
import soundfile
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from models.recipe import tables
from models.recipe.ablations import __main__ as ablations
from models.recipe.ablations import trials
from models.recipe.ablations.variants import (
    FULL,
    SECTIONS,
    VARIANTS,
    Row,
    apply,
    changes,
    draw,
    objective_name,
    spelt_out,
    teachable,
    usable,
)
from poolembed.errors import TrainingError
from poolembed.nn.config import PoolingKind
from poolembed.train.config import AugmentConfig, ObjectiveConfig, TrainConfig
from poolembed.train.configfile import as_config, as_settings, read_settings
from poolembed.train.objectives.objectives import Objectives
from poolembed.train.start import start_model
from tests.conftest import RATE, tiny_config

RECIPE = Path(ablations.__file__).parents[1]
CONFIGS = ("base.toml", "tiny.toml")
KINDS = {
    *("music", "modules", "copies", "speech", "drums", "oneshots", "effects"),
    *("notes", "chords", "drum notes", "phrases", "pieces", "mixes"),
}
BROAD = {"loss-distillation", "loss-all-but-distillation"}


def recipe(name: str) -> TrainConfig:
    return as_config({**read_settings(RECIPE / name), "output": ""}, str)


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """Every setting by its key with dots; objectives by their names."""
    if not isinstance(value, dict):
        return {key: value}
    return {name: leaf for part, inner in value.items() for name, leaf in flat(inner, f"{key}.{part}").items()}


def settings_of(config: TrainConfig) -> dict[str, Any]:
    settings = as_settings(config)
    objectives = settings.pop("objectives")
    named = {objective_name(each): plain for each, plain in zip(config.objectives, objectives, strict=True)}
    return flat({**settings, "objectives": named})


class TestVariants:
    @pytest.mark.parametrize("name", VARIANTS)
    @pytest.mark.parametrize("file", CONFIGS)
    def test_a_variant_changes_what_it_says_and_nothing_else(self, file: str, name: str) -> None:
        full, variant = spelt_out(recipe(file)), VARIANTS[name]
        config = apply(variant, full)
        before, after = settings_of(full), settings_of(config)
        gone = {objective_name(each) for each in full.objectives} - {objective_name(each) for each in config.objectives}
        named = {objective_name(o) for o in full.objectives if {o.kind, objective_name(o)} & {*variant.objectives}}
        assert gone == named
        if not variant.settings and not variant.kinds and name != FULL:
            assert gone
        said = tuple(f".{key}" for key in variant.settings) + tuple(f".objectives.{each}." for each in gone)
        for key in before.keys() | after.keys():
            if not key.startswith(said or "-"):
                assert before[key] == after[key], key
        for key, value in variant.settings.items():
            for leaf, wanted in flat(value, f".{key}").items():
                assert after[leaf] == wanted

    def test_the_full_run_is_first_and_changes_nothing(self) -> None:
        assert next(iter(VARIANTS)) == FULL
        assert {name.partition("-")[0] for name in VARIANTS} == {FULL, *SECTIONS}
        full = spelt_out(recipe("base.toml"))
        assert apply(VARIANTS[FULL], full) == full

    @pytest.mark.parametrize("file", CONFIGS)
    def test_everything_is_left_out_by_some_variant(self, file: str) -> None:
        full = spelt_out(recipe(file))
        objectives = {objective_name(each) for each in full.objectives}
        alone = {name for each in VARIANTS.keys() - BROAD for name in VARIANTS[each].objectives}
        assert objectives == alone
        left = {name: apply(VARIANTS[name], full).objectives for name in BROAD}
        kinds = {name: {each.kind for each in objectives} for name, objectives in left.items()}
        assert "distill" not in kinds["loss-distillation"]
        assert kinds["loss-all-but-distillation"] == {"distill"}
        assert set(left["loss-distillation"]) | set(left["loss-all-but-distillation"]) == set(full.objectives)

        clips = [kind for variant in VARIANTS.values() for kind in variant.kinds]
        assert sorted(clips) == sorted(KINDS)
        zeroed = [variant.settings for name, variant in VARIANTS.items() if name.startswith("augment-")]
        used = {key for key in AugmentConfig.__struct_fields__ if getattr(full.augment, key)}
        assert used <= {key.removeprefix("augment.") for settings in zeroed for key in settings}
        assert not any(value for settings in zeroed for value in flat(dict(settings)).values())
        assert apply(VARIANTS["augment-all"], full).augment == AugmentConfig(gain_db=0.0)

        asked = [VARIANTS[name].settings["model.pooling"] for name in VARIANTS if name.startswith("pooling-")]
        assert {pooling["kind"] for pooling in asked} == set(get_args(PoolingKind))
        scopes = Counter(pooling["kind"] for pooling in asked)
        assert {kind for kind, count in scopes.items() if count == 2} == {"autopool", "gem"}

    @pytest.mark.parametrize(("file", "own"), [("base.toml", "autopool-channel"), ("tiny.toml", "gem-channel")])
    def test_what_the_full_run_has_already_is_known(self, file: str, own: str) -> None:
        full = spelt_out(recipe(file))
        off = {
            f"augment-{name}"
            for name, key in (("gain", "gain_db"), ("equalizer", "equalizer_db"), ("low-pass", "low_pass"))
            if not getattr(full.augment, key)
        }
        same = {name for name, variant in VARIANTS.items() if not changes(variant, full, KINDS)}
        assert same == {FULL, f"pooling-{own}", *off}
        assert not changes(VARIANTS["clips-music"], full, KINDS - {"music"})
        labels = structs.replace(full, objectives=tuple(o for o in full.objectives if o.kind != "distill"))
        assert not changes(VARIANTS["loss-all-but-distillation"], labels, KINDS)

    @pytest.mark.parametrize("file", CONFIGS)
    def test_spelt_out_it_is_the_same_model(self, file: str) -> None:
        config = structs.replace(recipe(file), alpha_max=None)
        before, after = start_model(config), start_model(spelt_out(config))
        assert before.config == after.config
        states = before.state_dict(), after.state_dict()
        assert all(states[0][key].equal(states[1][key]) for key in states[0])

    @pytest.mark.parametrize("file", CONFIGS)
    def test_models_have_the_pooling_that_is_asked_for(self, file: str) -> None:
        full = spelt_out(recipe(file))
        for name, variant in VARIANTS.items():
            if name.startswith("pooling-"):
                pooling = as_settings(structs.replace(full, model=start_model(apply(variant, full)).config))["model"][
                    "pooling"
                ]
                assert pooling == {**pooling, **variant.settings["model.pooling"]}

    def test_only_what_starts_from_scratch_can_be_changed(self) -> None:
        with pytest.raises(ValueError, match="scratch"):
            spelt_out(structs.replace(recipe("tiny.toml"), init="base", model=None))


def row(number: int, kind: str, split: str = "train", **cells: str) -> Row:
    return {"path": f"{kind}/{number}.flac", "start": "0", "kind": kind, "split": split, **cells}


rows_drawn = st.lists(
    st.tuples(st.sampled_from(["music", "notes", "speech", "drums"]), st.sampled_from(["train", "train", "valid"])),
    min_size=1,
    max_size=150,
).map(lambda pairs: [row(number, *pair) for number, pair in enumerate(pairs)])


class TestTable:
    @given(rows_drawn, st.data())
    def test_a_fair_share_of_every_kind(self, rows: list[Row], data: st.DataObject) -> None:
        train = [each for each in rows if each["split"] == "train"]
        valid = [each for each in rows if each["split"] == "valid"]
        wanted = data.draw(st.integers(0, len(train)))
        held_out = data.draw(st.integers(0, 60))
        drawn = draw(rows, wanted, held_out, seed=data.draw(st.integers(0, 3)))
        places = [rows.index(each) for each in drawn]
        assert places == sorted(set(places))
        for split, whole, size in (("train", train, wanted), ("valid", valid, min(held_out, len(valid)))):
            mine = Counter(each["kind"] for each in drawn if each["split"] == split)
            assert mine.total() == size
            for kind, count in Counter(each["kind"] for each in whole).items():
                assert abs(mine[kind] - size * count / len(whole)) < 1

    @given(rows_drawn, st.data())
    def test_more_clips_hold_the_fewer(self, rows: list[Row], data: st.DataObject) -> None:
        count = sum(each["split"] == "train" for each in rows)
        few, many = sorted(data.draw(st.tuples(st.integers(0, count), st.integers(0, count))))
        for shuffled in (rows, data.draw(st.permutations(rows))):
            fewer, more = draw(rows, few, 20, seed=1), draw(shuffled, many, 20, seed=1)
            lost = Counter(each["kind"] for each in fewer if each not in more)
            assert max(lost.values(), default=0) <= 1  # to rounding

    def test_the_seed_draws_what_trains_and_not_what_is_held_out(self) -> None:
        rows = [row(number, "music", split) for split in ("train", "valid") for number in range(100)]
        one, again, other = (draw(rows, 40, 30, seed=seed) for seed in (0, 0, 1))
        assert one == again
        assert [each for each in one if each["split"] == "valid"] == [o for o in other if o["split"] == "valid"]
        shared = [each for each in one if each["split"] == "train" and each in other]
        assert 5 < len(shared) < 28  # 16 by chance
        assert [each["path"] for each in one[:40]] != [f"music/{number}.flac" for number in range(40)]

    def test_others_take_the_place_of_what_is_left_out(self) -> None:
        rows = [
            row(n, kind, split)
            for kind in ("music", "notes", "speech")
            for split in ("train", "valid")
            for n in range(50)
        ]
        full = draw(rows, 60, 30, seed=0)
        less = draw(usable(rows, VARIANTS["clips-notes+chords"], [ObjectiveConfig(kind="contrastive")]), 60, 30, seed=0)
        counted = [Counter((each["kind"], each["split"]) for each in drawn) for drawn in (full, less)]
        assert counted[0] == {
            (kind, split): n for kind in ("music", "notes", "speech") for split, n in (("train", 20), ("valid", 10))
        }
        assert counted[1] == Counter(
            {**counted[0], ("music", "train"): 30, ("speech", "train"): 30, ("notes", "train"): 0}
        )
        assert all(each in less for each in full if (each["kind"], each["split"]) != ("notes", "train"))

    def test_too_few(self) -> None:
        with pytest.raises(ValueError, match=r"31 training clips.*30"):
            draw([row(number, "music") for number in range(30)], 31, 0, seed=0)

    def test_clips_that_teach_nothing_are_replaced_where_a_run_would_drop_them(self) -> None:
        rows = [
            row(0, "speech", pitch="", alike=""),
            row(1, "music", pitch="", alike="a"),
            row(2, "notes", pitch="60", alike=""),
            row(3, "speech", "valid", pitch="", alike=""),
        ]
        labels = [ObjectiveConfig(column="pitch"), ObjectiveConfig(kind="supcon", column="alike")]
        teacher = ObjectiveConfig(kind="distill", targets="targets/mn04-blocks.parquet")
        assert usable(rows, VARIANTS[FULL], [*labels, teacher]) == rows
        assert usable(rows, VARIANTS[FULL], labels) == rows[1:]
        assert usable(rows, VARIANTS[FULL], labels[:1]) == rows[2:]

    def test_what_can_be_learned(self) -> None:
        pitch, chord = ObjectiveConfig(column="pitch"), ObjectiveConfig(column="chord")
        teacher = ObjectiveConfig(kind="distill", targets="targets/mn04-blocks.parquet")
        rows = [
            row(0, "notes", pitch="60", chord="minor"),
            row(1, "notes", pitch="61", chord=""),
            row(2, "chords", "valid", pitch="", chord="major"),
        ]
        assert teachable([chord, teacher, pitch], rows) == (teacher, pitch)
        assert teachable([chord], [row(0, "chords", chord="minor;major")]) == (chord,)
        assert teachable([chord], []) == ()


@given(st.permutations(recipe("tiny.toml").objectives), st.integers(1, 12))
def test_metrics_are_those_of_their_objectives(objectives: Sequence[ObjectiveConfig], count: int) -> None:
    """As a run names them, which depends on which objectives there are, and in which order."""
    objectives = objectives[:count]
    names = []
    for each in objectives:
        about = Path(each.targets).name if each.targets else each.column
        metrics = {"distill": ("cosine",), "supcon": ("recall_at_1",)}.get(each.kind, ("macro_f1", "accuracy"))
        if each.column == "instruments":
            metrics = ("map", "macro_f1")
        names.append(SimpleNamespace(name=f"{each.kind} of {about}", metrics=metrics))
    all_of_them = cast(Objectives, SimpleNamespace(all=names))
    valid: Any = {
        Objectives.called(all_of_them, cast(Any, each), m): f"{each.name} {m}" for each in names for m in each.metrics
    }
    heads = {each.column: {"multi_label": each.column == "instruments"} for each in objectives}
    config = structs.replace(recipe("tiny.toml"), objectives=tuple(objectives))
    found = trials.by_objective(config, {"valid": {"loss": 1.0, **valid}, "heads": heads})
    expected: Any = {
        objective_name(each): {m: f"{named.name} {m}" for m in named.metrics}
        for each, named in zip(objectives, names, strict=True)
    }
    assert found == expected


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 96 clips of a third of a second, with a teacher of music and drums."""
    root = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    vectors = []
    for number in range(96):
        kind = ("music", "notes", "drums")[number % 3]
        tone = np.sin(np.arange(RATE // 3) * (0.2 + 0.3 * (number % 4)))
        soundfile.write(root / f"{number}.wav", 0.3 * tone + 0.1 * random.standard_normal(len(tone)), RATE)
        labels: dict[str, dict[str, str]] = {
            "music": {"track": f"t{number % 8}"},
            "notes": {"pitch": str(60 + number % 4), "program": str(number % 2)},
            "drums": {"drum": ("kick", "snare")[number % 2]},
        }
        cells = {**dict.fromkeys(tables.COLUMNS, ""), **labels[kind], "path": f"{number}.wav", "kind": kind}
        rows.append({**cells, "split": "valid" if number >= 78 else "train", "alike": tables.alike(cells)})
        if kind != "notes":
            vectors.append({"path": f"{number}.wav", "embedding": random.standard_normal(5).tolist()})
    tables.write_table(root / "train.csv", rows)
    (root / "targets").mkdir()
    teachers = [f"targets/mn04-{output}.jsonl" for output in ("blocks", "logits")]
    for teacher in teachers:
        (root / teacher).write_text("".join(f"{json.dumps(each)}\n" for each in vectors))
    objectives = [
        *({"kind": "distill", "targets": teacher} for teacher in teachers),
        {"kind": "supcon", "column": "alike"},
        *({"column": column} for column in ("pitch", "program", "drum")),
    ]
    config = TrainConfig(data="train.csv", output="", init="scratch", model=tiny_config(), seconds=0.3, patience=0)
    augment = {"gain_db": 6.0, "low_pass": 0.3}
    settings = {**as_settings(config), "augment": augment, "objectives": objectives, "nested": [4], "pooling": "gem"}
    (root / "config.toml").write_text(tomli_w.dumps(settings))
    (root / "dev").mkdir()
    lines = [f"../{number}.wav,{number % 4},{number // 4 % 2}" for number in range(40)]
    (root / "dev" / "labels.csv").write_text("\n".join(["path,label,fold", *lines]) + "\n")
    return root


def arguments(corpus: Path, work: Path, *more: str) -> list[str]:
    given = [str(corpus), str(work), str(corpus / "dev" / "labels.csv"), "--config", str(corpus / "config.toml")]
    return [*given, "--cache", str(work.parent / "cache"), "--smoke", "--jobs", "1", *more]


def test_a_run_is_called_by_all_that_it_depends_on(corpus: Path, tmp_path: Path) -> None:
    def jobs(*more: str) -> list[trials.Job]:
        options = ablations.parse(arguments(corpus, tmp_path / "work", *more))
        full = ablations.full_run(options)
        rows = list(tables.read_table(corpus / "train.csv"))
        names = [
            name for name, variant in VARIANTS.items() if name == FULL or changes(variant, full, {"music", "notes"})
        ]
        return [ablations.make_job(name, seed, full, rows, options) for name in names for seed in (0, 1)]

    before = jobs()
    assert len({job.record for job in before}) == len(before) > 20
    assert [job.record for job in jobs("--jobs", "1", "--cache", str(tmp_path / "other"))] == [j.record for j in before]
    text = (corpus / "config.toml").read_text()
    (corpus / "config.toml").write_text(text.replace("lr = 0.001", "lr = 0.002"))
    assert not {job.record for job in jobs()} & {job.record for job in before}
    (corpus / "config.toml").write_text(text)
    assert [job.config.seed for job in before] == [0, 1] * (len(before) // 2)
    (silent,) = {job.config.objectives for job in before if job.untaught == ("pitch", "program")}
    assert [objective_name(each) for each in silent] == ["mn04-blocks", "mn04-logits", "supcon", "drum"]
    for job in before:
        rows = list(tables.read_table(Path(job.config.data)))
        assert all(Path(row["path"]).is_absolute() and Path(row["path"]).exists() for row in rows)
        assert Counter(row["split"] for row in rows) == {"train": 36, "valid": 18}


def test_the_table_to_draw_from(corpus: Path, tmp_path: Path) -> None:
    for more, name in (((), "train.csv"), (("--name", "more"), "more.csv")):
        options = ablations.parse(arguments(corpus, tmp_path, *more))
        assert ablations.full_run(options).data == str(corpus / name)
        assert " ".join(more) in ablations.command(options)


def test_smoke(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    given = arguments(corpus, work, "--only", "clips-notes+chords")
    assert ablations.main(given) == 0
    text = (work / "ablations.md").read_text()
    saved = json.loads((work / "ablations.json").read_text())
    assert saved["variants"].keys() == {FULL, "clips-notes+chords"}
    full, less = (variant["seeds"]["0"] for variant in saved["variants"].values())
    assert full["steps"] == less["steps"] == 4
    assert full["clips"]["train"] == less["clips"]["train"] == 36
    assert full["valid"].keys() == {"mn04-blocks", "mn04-logits", "supcon", "pitch", "program", "drum"}
    assert less["valid"].keys() == {"mn04-blocks", "mn04-logits", "supcon", "drum"}
    assert "clips-notes+chords: pitch, program" in text
    assert str(corpus) not in text + json.dumps(saved)
    assert full["dev"]["dev"]["knn"]["accuracy"]["value"] > 0.5  # four tones
    runs = {path.name for path in (work / "runs").iterdir() if path.is_dir()}
    assert len(runs) == len(list((work / "results").iterdir())) == 2

    # Once more: nothing is left to do, and the page is the same but for the machine's load.
    monkeypatch.setattr("models.recipe.ablations.trials.train", None)
    assert ablations.main(given) == 0
    assert json.loads((work / "ablations.json").read_text())["variants"] == saved["variants"]
    capsys.readouterr()

    # A run that is new, and fails: the others stay on the page.
    def fail(*_: object, **__: object) -> None:
        raise TrainingError("no luck")

    monkeypatch.setattr("models.recipe.ablations.trials.train", fail)
    assert ablations.main([*given[:-1], "loss-drum"]) == 1
    assert "loss-drum, seed 0: FAILED: no luck" in capsys.readouterr().err
    assert json.loads((work / "ablations.json").read_text())["variants"] == saved["variants"]


@pytest.mark.parametrize("cut_off", [False, True])
def test_what_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_off: bool) -> None:
    config = structs.replace(recipe("tiny.toml"), output=str(tmp_path / "work" / "runs" / "key"))
    if cut_off:
        Path(config.output).mkdir(parents=True)
        (Path(config.output) / "run.toml").touch()
    told: list[object] = []

    def train(given: TrainConfig, **options: object) -> None:
        told.append((given, options["resume"]))
        raise TrainingError("no luck")

    monkeypatch.setattr("models.recipe.ablations.trials.train", train)
    with pytest.raises(TrainingError, match="no luck"):
        trials.perform(trials.Job(config, ()), [])
    assert told == [(config, cut_off)]
