"""``poolembed train``: what its options come to, what it says, and how it ends and goes on."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from poolembed.bundle import load_bundle
from poolembed.cli.app import app
from poolembed.cli.settings import resolve
from poolembed.errors import UsageError
from poolembed.train import run as run_module
from poolembed.train.config import (
    AUGMENT,
    CLIPS,
    LEARNING,
    LOOP,
    MACHINE,
    MODEL,
    AugmentConfig,
    ObjectiveConfig,
    TrainConfig,
)
from poolembed.train.configfile import RUN, as_config, read_config, write_config
from poolembed.train.directory import Recording
from poolembed.train.run import Trained
from poolembed.train.trainer import EpochRecord
from tests.cli.conftest import Cli, Send
from tests.train.runs import write_clips

DEFAULTS = TrainConfig(data="clips", output="mymodel")


def parameters() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return {parameter.name: parameter for parameter in group.commands["train"].params}


def fields(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.name: field for field in msgspec.structs.fields(struct)}


@pytest.fixture
def resolved(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainConfig]:
    """The configuration that a command line comes to; nothing is trained."""
    taken: list[TrainConfig] = []

    def pretend(config: TrainConfig, *_: Any, **__: Any) -> Trained:
        taken.append(config)
        return Trained(Path(config.output), {}, {}, finished=False)

    monkeypatch.setattr(run_module, "train", pretend)

    def run(*arguments: str | Path) -> TrainConfig:
        done = cli("train", *arguments, "-q")
        assert taken, done.err
        return taken.pop()

    return run


class TestOptions:
    """What the command line offers is what the configuration states."""

    def test_types_bounds_and_defaults_are_those_of_the_configuration(self) -> None:
        shown = {name: parameters()[name].show_default for name in ("epochs", "lr", "freeze", "balance", "gain", "p")}
        assert shown == {
            "epochs": "30", "lr": "0.001", "freeze": "none", "balance": "balance", "gain": "0.0", "p": "3.0",
        }  # fmt: skip
        assert parameters()["targets"].show_default is False
        assert [parameters()[name].metavar for name in ("init", "patience", "objective")] == [
            "MODEL", "EPOCHS", "NAME[:WEIGHT]",
        ]  # fmt: skip

    def test_they_are_listed_under_headings(self, cli: Cli) -> None:
        text = cli("train", "--help").out.decode()
        places = [
            text.index(f"\n{heading}:\n") for heading in ("Options", MODEL, LEARNING, CLIPS, LOOP, AUGMENT, MACHINE)
        ]
        assert places == sorted(places)
        assert text.index(LEARNING) < text.index("--label-column") < text.index(CLIPS)

    def test_what_has_no_option_is_set_by_its_key(self, resolved: Callable[..., TrainConfig]) -> None:
        config = resolved(
            "clips", "--mixup", "0.3", "--set", "augment.mixup=0.4", "--set", "warmup = 0.2", "--set", "init=scratch",
            "--set", "model.encoder.depth=3", "--set", "nested=[2, 4]", "--set", "valid_fold='3'", "--epochs", "7",
        )  # fmt: skip
        assert (config.augment, config.warmup, config.init, config.epochs) == (
            AugmentConfig(mixup=0.4),
            0.2,
            "scratch",
            7,
        )
        assert (config.nested, config.valid_fold) == ((2, 4), "3")
        assert config.model is not None
        assert config.model.encoder.depth == 3

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ("augment.mxup=1", ["--set augment.mxup is not known", "did you mean mixup?"]),
            ("epoch=1", ["--set epoch is not known", "did you mean epochs?"]),
            ("epochs=many", ["--epochs = 'many' must be a whole number"]),
            ("warmup=2", ["--set warmup = 2 must be a number < 1"]),
            ("lr.peak=1", ["--lr must be a number, not a table"]),
            ("lr", ["--set lr: a key and its value are wanted", "augment.mixup=0.4"]),
        ],
    )
    def test_a_key_or_value_that_cannot_be_set(self, given: str, said: list[str], cli: Cli) -> None:
        done = cli("train", "clips", "--set", given)
        assert (done.code, done.out) == (2, b"")
        assert all(part in done.err for part in said), done.err


class TestResolving:
    def test_nothing_but_data(self, resolved: Callable[..., TrainConfig]) -> None:
        assert resolved("clips") == DEFAULTS

    def test_every_option(self, resolved: Callable[..., TrainConfig]) -> None:
        line = (
            "clips -o out --init scratch --freeze encoder --pooling gem --pooling-scope scalar --alpha 0.5 "
            "--alpha-max 2 --alpha-l2 0.1 --p 4 --pool predictions --pooling-lr 7 "
            "--objective classification:2 --objective supcon --label-column genre --temperature 0.3 --nested 64,128 "
            "--seconds 3 --epochs 7 --batch-size 9 --lr 0.02 --set weight_decay=0.3 --set warmup=0.2 --set clip_norm=3 "
            "--set ema=0.5 "
            "--patience 4 --no-balance --valid 0.3 --valid-fold 2 --seed 8 "
            "--device cpu --precision bf16 --workers 3 --cache c --cache-limit 5 --gain 1 --equalizer 7 --low-pass 0.6 "
            "--set augment.time_mask=0.2 --set augment.band_mask=0.3 --noise 0.25 --mixup 0.4 "
            "--resized-crop 0.5 --shift 0.16"
        )
        expected = TrainConfig(
            data="clips",
            output="out",
            init="scratch",
            freeze="encoder",
            pooling="gem",
            pooling_scope="scalar",
            alpha=0.5,
            alpha_max=2,
            alpha_l2=0.1,
            p=4,
            pool="predictions",
            pooling_lr=7,
            objectives=(
                ObjectiveConfig(weight=2, column="genre"),
                ObjectiveConfig(kind="supcon", column="genre", temperature=0.3),
            ),
            nested=(64, 128),
            seconds=3,
            epochs=7,
            batch_size=9,
            lr=0.02,
            weight_decay=0.3,
            warmup=0.2,
            clip_norm=3,
            ema=0.5,
            patience=4,
            balance=False,
            valid=0.3,
            valid_fold="2",
            seed=8,
            device="cpu",
            precision="bf16",
            workers=3,
            cache="c",
            cache_limit=5,
            augment=AugmentConfig(
                gain_db=1,
                equalizer_db=7,
                low_pass=0.6,
                noise=0.25,
                time_mask=0.2,
                band_mask=0.3,
                mixup=0.4,
                resized_crop=0.5,
                shift=0.16,
            ),
        )
        assert resolved(*line.split()) == expected
        same = [
            name
            for name in fields(TrainConfig)
            if name != "model" and getattr(expected, name) == getattr(DEFAULTS, name) and name != "data"
        ]
        assert same == []  # or the test would not see an option that is ignored

    def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(
        self, resolved: Callable[..., TrainConfig]
    ) -> None:
        Path("run.toml").write_text(
            'data = "other"\noutput = "o"\nepochs = 5\nlr = 1\nbalance = false\n[augment]\ngain_db = 1\nmixup = 0.5\n'
            '[[objectives]]\nkind = "contrastive"\n[model]\nembedding_size = 9\n'
        )
        config = resolved("clips", "--config", "run.toml", "--epochs", "6", "--mixup", "0", "--temperature", "0.7")
        assert config.data == "clips"
        assert (config.output, config.epochs, config.lr, config.balance) == ("o", 6, 1.0, False)
        assert config.augment == AugmentConfig(gain_db=1, mixup=0)
        assert config.objectives == (ObjectiveConfig(kind="contrastive", temperature=0.7),)
        assert config.model is not None
        assert config.model.embedding_size == 9
        assert resolved("--config", "run.toml", "--objective", "supcon").objectives == (ObjectiveConfig(kind="supcon"),)

    def test_a_written_configuration_repeats_the_run(self, resolved: Callable[..., TrainConfig]) -> None:
        config = resolved("clips", "--pooling", "gem", "--objective", "distill:0.3", "--targets", "t", "--mixup", "0.2")
        write_config(Path("run.toml"), config)
        assert resolved("--config", "run.toml") == config

    def test_targets_in_the_order_of_their_objectives(self, resolved: Callable[..., TrainConfig]) -> None:
        config = resolved(
            "c", "--objective", "distill:2", "--targets", "one", "--objective", "supcon", "--objective", "distill",
            "--targets", "two",
        )  # fmt: skip
        assert [(o.kind, o.weight, o.targets) for o in config.objectives] == [
            ("distill", 2.0, "one"),
            ("supcon", 1.0, None),
            ("distill", 1.0, "two"),
        ]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ("", ["nothing to train on", "poolembed train clips/"]),
            ("clips -o ''", ["-o needs a directory"]),
            ("clips --epochs 0", ["--epochs = 0 must be a whole number >= 1"]),
            ("clips --mixup -1", ["--mixup = -1.0 must be a number >= 0"]),
            ("clips --gain -1", ["--gain = -1.0 must be a number >= 0"]),
            ("clips --lr nan", ["--lr = nan must be a number > 0"]),
            ("clips --objective clasification", ["--objective = 'clasification' is not among", "classification"]),
            ("clips --objective supcon:much", ["--objective supcon:much", "'much' is no weight", "supcon:0.5"]),
            ("clips --objective supcon:0", ["--objective = 0.0 must be a number > 0"]),
            ("clips --objective supcon --temperature 0", ["--temperature = 0.0 must be a number > 0"]),
            ("clips --temperature 1", ["--temperature concerns", "supcon and contrastive", "not classification"]),
            ("clips --objective contrastive --label-column a", ["--label-column concerns", "not contrastive"]),
            ("clips --objective distill", ["1 times the objective distill and 0 times --targets"]),
            ("clips --targets t", ["0 times the objective distill and 1 times --targets"]),
            ("clips --nested 64,half", ["--nested 64,half", "64,128,256"]),
            ("clips --nested 64,0", ["--nested = 0 must be a whole number >= 1"]),
            ("clips --pooling gme", ["--pooling", "gme"]),
            ("clips --config nothing.toml", ["cannot read the configuration nothing.toml"]),
            ("clips --config bad.toml", ["bad.toml: augment.mxup is not known", "did you mean mixup?"]),
            ("--resume nothing", ["nothing holds no run to resume"]),
            ("--resume nothing --overwrite", ["--resume", "--overwrite", "drop one of them"]),
        ],
    )
    def test_wrong_use(self, arguments: str, said: list[str], cli: Cli) -> None:
        Path("bad.toml").write_text("[augment]\nmxup = 1\n")
        done = cli("train", *shlex.split(arguments))
        assert (done.code, done.out) == (2, b"")
        assert all(part in done.err for part in said), done.err
        assert [path.name for path in Path().iterdir()] == ["bad.toml"]

    def test_a_run_that_is_described_takes_nothing_from_poolembed_toml(
        self, resolved: Callable[..., TrainConfig]
    ) -> None:
        Path("poolembed.toml").write_text("[train]\nepochs = 7\nlr = 0.5\n")
        assert (resolved("clips").epochs, resolved("clips", "--epochs", "8").epochs) == (7, 8)
        Path("run.toml").write_text("epochs = 5\n")
        config = resolved("clips", "--config", "run.toml")
        assert (config.epochs, config.lr) == (5, DEFAULTS.lr)
        Path("mymodel").mkdir()
        write_config(Path("mymodel") / RUN, config)
        assert resolved("--resume", "mymodel") == config


class TestResume:
    @pytest.fixture
    def kept(self, environment: None) -> TrainConfig:
        config = as_config(
            {"data": "clips", "output": "out", "epochs": 5, "augment": {"mixup": 0.5}, "valid_fold": "1"}, str
        )
        Path("out").mkdir()
        write_config(Path("out") / RUN, config)
        return config

    @pytest.mark.parametrize(
        "options",
        [
            "",
            "clips",
            "clips/ -o ./out --epochs 5 --mixup 0.5 --valid-fold 1 --balance --objective classification:1",
            "--config out/run.toml",
            "--config part.toml",
        ],
    )
    def test_saying_the_same_again_is_fine(
        self, options: str, kept: TrainConfig, resolved: Callable[..., TrainConfig]
    ) -> None:
        Path("part.toml").write_text("epochs = 5\n[augment]\ngain_db = 0\n")
        assert resolved("--resume", "out", *options.split()) == kept

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ("others", "DATA"),
            ("-o other", "--output"),
            ("--epochs 6", "--epochs"),
            ("--mixup 0", "--mixup"),
            ("--pooling gem", "--pooling"),
            ("--objective supcon", "--objective"),
            ("--no-balance --valid-fold 2", "--balance, --valid-fold"),
            ("--config other.toml", "--lr"),
        ],
    )
    def test_saying_something_else_names_it(self, options: str, named: str, kept: TrainConfig, cli: Cli) -> None:
        Path("other.toml").write_text("lr = 0.5\n")
        done = cli("train", "--resume", "out", *options.split())
        assert done.code == 2
        assert f"the run in out was started with another {named}\n" in done.err
        assert "poolembed train --resume out needs no other options" in done.err

    def test_a_directory_that_was_moved(self, kept: TrainConfig, resolved: Callable[..., TrainConfig]) -> None:
        Path("out").rename("moved")
        assert resolved("--resume", "moved") == msgspec.structs.replace(kept, output="moved")

    def test_a_damaged_configuration(self, kept: TrainConfig, cli: Cli) -> None:
        (Path("out") / RUN).write_text("epochs = ")
        done = cli("train", "--resume", "out")
        assert done.code == 2
        assert "out/run.toml is not TOML" in done.err

    @given(
        st.fixed_dictionaries(
            {"data": st.just("clips")},
            optional={
                "epochs": st.integers(1, 9),
                "lr": st.floats(1e-6, 1),
                "pooling": st.sampled_from(["mean", "gem"]),
                "gain": st.floats(0, 9),
                "objective": st.lists(st.sampled_from(["classification", "supcon:0.5"]), min_size=1, max_size=2),
                "label_column": st.text(),
                "balance": st.booleans(),
                "nested": st.sampled_from(["2", "64,128"]),
            },
        )
    )
    def test_whatever_started_a_run_resumes_it(
        self, tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any]
    ) -> None:
        out = str(tmp_path_factory.getbasetemp())
        config = resolve({**options, "output": out})
        write_config(Path(out) / RUN, config)
        assert resolve({"resume": out}) == config
        assert resolve({**options, "output": out, "resume": out}) == config
        other = 1 if config.epochs != 1 else 2
        with pytest.raises(UsageError, match="--epochs"):
            resolve({"resume": out, "epochs": other})


@pytest.fixture
def clips(environment: None) -> Path:
    """In the working directory: six clips each of three tones."""
    return write_clips(Path("clips"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the report takes longer than all the rest of such a run."""
    monkeypatch.setattr(run_module, "write_report", lambda _: None)


TINY = ["--init", "toy", "--precision", "fp32", "--batch-size", "5", "--valid", "0.34"]


class TestRuns:
    def test_from_a_folder_to_a_model_that_predicts(self, cli: Cli, clips: Path) -> None:
        (clips / "tone0" / "broken.wav").write_bytes(b"this is no music")
        done = cli("train", clips, "-o", "mymodel", *TINY, "--epochs", "12", "--lr", "0.01")
        assert done.code == 3, "done, but a clip could not be read"
        assert done.out == b""
        lines = [line for line in done.err.splitlines() if line.rstrip().endswith("best")]
        assert lines
        assert "clips: 18 clips" in done.err
        assert "label: 3 classes" in done.err
        assert "tone0/broken.wav: " in done.err
        closing = done.err.rpartition("\n\n")[2]
        assert "macro_f1" in closing
        for way_on in ("mymodel/report.html", "poolembed predict clip.wav --model mymodel", "poolembed embed ~/Music"):
            assert way_on in closing
        assert Path("mymodel/report.html").is_file()
        predicted = cli("predict", clips / "tone1" / "0.wav", "--model", "./mymodel")
        assert predicted.code == 0
        assert b"tone1" in predicted.out
        assert cli("embed", clips / "tone1", "-m", "./mymodel").code == 0

    @pytest.mark.usefixtures("undrawn")
    def test_the_same_again_from_its_own_configuration(self, cli: Cli, clips: Path) -> None:
        first = cli("train", clips, "-o", "one", *TINY, "--epochs", "2", "--mixup", "0.3", "--json", "-q")
        assert first.err == ""
        assert first.json["finished"] is True
        assert first.json["output"] == "one"
        assert first.json["metric"]["name"] == "macro_f1"
        assert first.json["clips"]["train"] + first.json["clips"]["valid"] == 18
        assert first.json["dropped"] == {}
        assert cli("train", "--config", "one/run.toml", "-o", "two", "-q").code == 0
        assert Path("one/model.safetensors").read_bytes() == Path("two/model.safetensors").read_bytes()
        assert Path("one/heads.safetensors").read_bytes() == Path("two/heads.safetensors").read_bytes()

    @pytest.mark.usefixtures("undrawn")
    def test_twice_is_refused_and_replaced_if_asked(self, cli: Cli, clips: Path) -> None:
        assert cli("train", clips, *TINY, "--epochs", "1", "-q").code == 0
        again = cli("train", clips, *TINY, "--epochs", "2")
        assert again.code == 1
        assert "mymodel" in again.err
        assert "--overwrite" in again.err
        assert cli("train", clips, *TINY, "--epochs", "2", "-q", "--overwrite").code == 0
        assert read_config(Path("mymodel") / RUN).epochs == 2

    @pytest.mark.usefixtures("undrawn")
    def test_without_labels(self, cli: Cli, clips: Path) -> None:
        done = cli("train", clips, "-o", "mymodel", *TINY, "--epochs", "1", "--objective", "contrastive")
        assert done.code == 0
        assert "recall_at_1" in done.err
        assert "poolembed predict" not in done.err
        assert load_bundle("./mymodel").heads == ()

    def test_errors_are_said_without_a_traceback(self, cli: Cli, clips: Path) -> None:
        for arguments in (["nothing"], [clips, "--init", "nothing"], [clips, "--pooling", "max", "--p", "2"]):
            done = cli("train", *arguments, "--epochs", "1")
            assert done.code in (1, 2)
            assert done.err.startswith("poolembed: ")


def epochs_done(directory: Path) -> int:
    path = directory / "history.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


@contextmanager
def after_epoch(number: int, then: Callable[[], None]) -> Iterator[None]:
    """Has something done when a run in this process has ended the epoch of a number."""
    keep = Recording.__call__

    def told(self: Recording, event: Any) -> None:
        keep(self, event)
        if isinstance(event, EpochRecord) and event.epoch == number:
            then()

    with mock.patch.object(Recording, "__call__", told):
        yield


@pytest.mark.usefixtures("undrawn")
@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
class TestInterrupted:
    EPOCHS = ("--epochs", "6", "--patience", "0")

    def test_it_goes_on_to_the_same_weights(self, cli: Cli, clips: Path, send: Send) -> None:
        with after_epoch(2, lambda: send(signal.SIGINT)):
            done = cli("train", clips, "-o", "out", *TINY, *self.EPOCHS, "--cache", "cache")
        assert (done.code, done.out) == (130, b"")
        assert not Path("out/config.json").exists()
        assert "finishing the step in hand; once more to stop at once" in done.err
        assert done.err.splitlines()[-1].endswith("poolembed train --resume out")
        assert 2 <= epochs_done(Path("out")) < 6
        done = cli("train", "--resume", "out", "--json")
        assert done.code == 0
        assert done.json["epochs"] == 6
        assert "going on after step" in done.err
        assert cli("train", clips, "-o", "undisturbed", *TINY, *self.EPOCHS, "--cache", "cache", "-q").code == 0
        for name in ("model.safetensors", "heads.safetensors"):
            assert (Path("out") / name).read_bytes() == (Path("undisturbed") / name).read_bytes()
        for same in (["--resume", "out"], [clips, "-o", "out", *TINY, *self.EPOCHS, "--cache", "cache"]):
            again = cli("train", *same)
            assert again.code == 0
            assert "nothing to train: out holds" in again.err
            assert "mymodel" not in again.err

    def test_twice_ends_at_once(self, cli: Cli, clips: Path, send: Send) -> None:
        def twice() -> None:
            send(signal.SIGINT)
            send(signal.SIGINT)
            raise AssertionError("it goes on")

        with after_epoch(1, twice):
            done = cli("train", clips, "-o", "out", *TINY, *self.EPOCHS)
        assert done.code == 130
        assert epochs_done(Path("out")) == 1

    def test_quiet_says_nothing_about_it(self, cli: Cli, clips: Path, send: Send) -> None:
        with after_epoch(1, lambda: send(signal.SIGINT)):
            done = cli("train", clips, "-o", "out", *TINY, *self.EPOCHS, "-q", "--json")
        assert (done.code, done.err) == (130, "")
        assert done.json == {"output": "out", "finished": False}


def test_of_several_processes_the_first_speaks_for_all(
    resolved: Callable[..., TrainConfig], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    done = cli("train", "clips", "--json")
    assert (done.out, done.err) == (b"", "")
