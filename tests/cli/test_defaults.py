"""Where options come from that nobody typed, and what comes of it where they are wrong; `sync` and `help`."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import typer

import poolembed
from poolembed.cli.app import app
from poolembed.cli.verb import option_name
from poolembed.embed import model as model_module
from poolembed.evaluate import run as run_module
from tests.cli.conftest import Cli, npys

HERE = Path("poolembed.toml")


@pytest.fixture
def user(environment: None, tmp_path: Path) -> Path:
    """The user's file, in a folder that is there."""
    (tmp_path / "config" / "poolembed").mkdir(parents=True)
    return tmp_path / "config" / "poolembed" / "poolembed.toml"


def group() -> Any:
    return typer.main.get_command(app)


def taken(verb: str, *arguments: str) -> dict[str, Any]:
    """The parameters that a command line comes to."""
    whole = group()
    with whole.make_context("poolembed", [verb]) as parent:
        context = whole.commands[verb].make_context(verb, list(arguments), parent=parent)
        params: dict[str, Any] = context.params
        return params


def test_a_users_folder_that_cannot_be_entered(
    environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service runs as a user whose home is another's, or is none."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "shut"))
    if os.geteuid():
        (tmp_path / "shut").mkdir(mode=0)
    else:  # whom no mode keeps out
        (tmp_path / "shut").write_text("no folder")
    assert taken("embed")["model"] == "base"


def test_command_line_environment_working_folder_users_folder_default(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def model(*arguments: str) -> str:
        return str(taken("embed", *arguments)["model"])

    assert model() == "base"
    user.write_text('model = "u"\n')
    assert model() == "u"
    user.write_text('model = "u"\n[embed]\nmodel = "u embed"\n')
    assert model() == "u embed"
    HERE.write_text('model = "w"\n')
    assert model() == "w"
    HERE.write_text('model = "w"\n[embed]\nmodel = "w embed"\n[predict]\nmodel = "another"\n')
    assert model() == "w embed"
    monkeypatch.setenv("POOLEMBED_MODEL", "e")
    assert model() == "e"
    monkeypatch.setenv("POOLEMBED_EMBED_MODEL", "e embed")
    assert model() == "e embed"
    assert model("-m", "c") == "c"
    assert taken("predict", "x.mp3")["model"] == "e"


def test_every_kind_of_value(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    user.write_text(
        '[embed]\npaths = ["~/Music", "b.mp3"]\nworkers = 3\nsong-timeout = 10\ntimestamps = 0.5\nformat = "jsonl"\n'
        "quiet = true\nfiles_from = ['~/list']\n[train]\nlr = 1\nepochs = 3\nset = ['warmup=0.2']\nbalance = false\n"
    )
    embed = taken("embed")
    assert embed["paths"] == ["/home/me/Music", "b.mp3"]
    assert (embed["workers"], embed["song_timeout"], embed["timestamps"], embed["quiet"]) == (3, 10.0, 0.5, True)
    assert (embed["format"], embed["files_from"]) == ("jsonl", ["/home/me/list"])
    train = taken("train")
    assert (train["lr"], train["epochs"], train["balance"], train["set"]) == (1.0, 3, False, ["warmup=0.2"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modell = 'x'", ["poolembed.toml: modell is not known", "did you mean model?"]),
        ("[embd]\nworkers = 1", ["poolembed.toml: [embd] is not known", "did you mean embed?"]),
        ("[embed]\nworker = 1", ["poolembed.toml: [embed] worker is not known", "did you mean workers?"]),
        ("[embed]\nworkers = '1'", ["poolembed.toml: [embed] workers = '1'"]),
        ("[embed]\nworkers = 0", ["poolembed.toml: [embed] workers = 0", "at least 1"]),
        ("[embed]\nworkers = 1.5", ["poolembed.toml: [embed] workers = 1.5"]),
        ("[embed]\noverwrite = 'yes'", ["poolembed.toml: [embed] overwrite = 'yes'"]),
        ("[embed]\noutput = 3", ["poolembed.toml: [embed] output = 3"]),
        ("[embed]\nformat = 'tpy'", ["poolembed.toml: [embed] format = 'tpy'", "npy"]),
        ("[embed]\nfiles_from = 'a'", ["poolembed.toml: [embed] files_from = 'a': a list is wanted"]),
        ("[embed]\nfiles_from = ['a', 1]", ["poolembed.toml: [embed] files_from = ['a', 1] is no list of text"]),
        ("embed = 3", ["poolembed.toml: embed is a verb", "[embed]"]),
        ("embed = ", ["poolembed.toml is not TOML"]),
    ],
)
def test_what_is_wrong_is_named_by_file_and_key(text: str, said: list[str], user: Path, cli: Cli) -> None:
    HERE.write_text(text + "\n")
    done = cli("embed", "song.mp3")
    assert (done.code, done.out) == (2, b""), done.err
    assert all(part in done.err for part in said), done.err
    assert not any(word in done.err.lower() for word in ("pydantic", "msgspec", "input should"))
    assert cli("embed", "--help").code == cli("help", "embed").code == 0


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(user: Path, cli: Cli) -> None:
    os.mkfifo(HERE)
    done = cli("embed", "song.mp3")
    assert done.code == 2
    assert "cannot read poolembed.toml" in done.err


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("POOLEMBED_TOP", "five", "a whole number is wanted"),
        ("POOLEMBED_SEARCH_TOP", "0", "it must be at least 1"),
        ("POOLEMBED_QUIET", "maybe", "true or false is wanted"),
        ("POOLEMBED_DEVICE", "tpu", "'tpu' is not one of"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named_by_its_variable(
    variable: str, value: str, said: str, user: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    done = cli("search", "song.mp3")
    assert (done.code, done.out) == (2, b"")
    assert f"{variable}={value}: " in done.err
    assert said in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["embed", "x", "--workers", "many"], "whole number"),
        (["embed", "x", "--workers", "0"], "at least 1"),
        (["embed", "x", "--format", "tpy"], "'tpy' is not one of"),
        (["train", "x", "--lr", "much"], "number"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_said_in_plain_words(arguments: list[str], said: str, cli: Cli) -> None:
    done = cli(*arguments)
    assert (done.code, done.out) == (2, b"")
    assert "Value error" not in done.err
    assert "Input should" not in done.err


def test_former_names_of_options_are_understood(environment: None) -> None:
    assert taken("evaluate", "m", "l.csv", "--column", "genre", "--folds=fold")["column"] == "genre"
    assert taken("evaluate", "m", "l.csv", "--folds=fold")["folds"] == "fold"
    assert taken("predict", "x.mp3", "--head", "genre")["head"] == ["genre"]
    assert taken("compare", "l.csv", "--column", "genre")["label_column"] == "genre"


SAME = {
    "quiet": {"--quiet", "-q"},
    "model": {"--model", "-m"},
    "output": {"--output", "-o", "--out"},
    "null": {"--null", "-0"},
}


def test_the_same_thing_has_the_same_flags_in_every_verb() -> None:
    seen: dict[str, set[str]] = {}
    without = {"quiet": {"help", "models"}, "json": {"help", "sync"}}
    commands = group().commands
    for verb in commands:
        names = {option_name(parameter): set(parameter.opts) for parameter in commands[verb].params}
        for name, flags in names.items():
            if name in ("label-column", "paths", "device", "precision", "workers", "json", *SAME):
                assert seen.setdefault(name, flags) == flags == SAME.get(name, flags), verb
        for name, verbs in without.items():
            assert (name in names) == (verb not in verbs), (name, verb)
    assert set(SAME) <= set(seen)


class TestSync:
    def test_the_readme_names_steps_and_options_that_there_are(self, user: Path) -> None:
        readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
        (text,) = re.findall(r"<!-- poolembed.toml -->\n```toml\n(.*?)```", readme, re.DOTALL)
        HERE.write_text(text)
        steps = taken("sync")["steps"]
        assert steps == ["embed", "index", "map", "duplicates"]
        assert [taken(step)["output"] for step in steps] == ["embeddings", "music.index", "map.html", "duplicates.txt"]
        assert taken("embed")["model"] == "tiny"

    def test_the_steps_of_the_file(self, user: Path, cli: Cli, songs: Path) -> None:
        HERE.write_text(
            f"[sync]\nsteps = ['embed', 'map', 'duplicates']\n[embed]\nmodel = 'toy'\npaths = ['{songs}']\n"
            "output = 'vectors'\n"
            "[map]\noverwrite = true\n[duplicates]\noutput = 'duplicates.txt'\nthreshold = 0.999\n"
        )
        done = cli("sync")
        assert done.code == 3  # two songs are broken, and the other steps are done all the same
        assert [line for line in done.err.splitlines() if line in ("embed", "map", "duplicates")] == [
            "embed", "map", "duplicates",
        ]  # fmt: skip
        assert len(npys(Path("vectors"))) == 6  # which the other steps take, unless the file says otherwise
        assert Path("map.html").is_file()
        assert Path("duplicates.txt").is_file()

    def test_quiet_where_there_is_nothing_to_do(self, user: Path, cli: Cli, songs: Path) -> None:
        HERE.write_text(f"[sync]\nsteps = ['embed']\n[embed]\nmodel = 'toy'\npaths = ['{songs / 'a.wav'}']\n")
        assert cli("sync", "-q").code == 0
        done = cli("sync", "-q")
        assert (done.code, done.out, done.err) == (0, b"", "")

    def test_a_step_that_fails_is_the_last(self, user: Path, cli: Cli, songs: Path) -> None:
        HERE.write_text("[sync]\nsteps = ['embed', 'map']\n[embed]\nmodel = 'toy'\npaths = ['nothing.wav']\n")
        done = cli("sync")
        assert done.code == 1
        assert "nothing.wav" in done.err
        assert not Path("map.html").exists()

    @pytest.mark.parametrize("wrong", ["[map]\noverwrit = true", "[map]\noverwrite = 'yes'"])
    def test_a_wrong_option_of_the_last_step_is_told_before_the_first(
        self, wrong: str, user: Path, cli: Cli, songs: Path
    ) -> None:
        HERE.write_text(
            f"[sync]\nsteps = ['embed', 'map']\n[embed]\nmodel = 'toy'\npaths = ['{songs / 'a.wav'}']\n{wrong}\n"
        )
        done = cli("sync")
        assert done.code == 2
        assert "[map] overwrit" in done.err
        assert not Path("embeddings").exists()

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], ["no steps to run", "steps = "]),
            (["train"], ["train is no step", "embed, index, push, map, duplicates"]),
        ],
    )
    def test_no_step(self, arguments: list[str], said: list[str], user: Path, cli: Cli) -> None:
        done = cli("sync", *arguments)
        assert done.code == 2
        assert all(part in done.err for part in said)


def test_the_version_and_the_help_of_a_verb(cli: Cli) -> None:
    assert cli("-V").out.decode() == f"poolembed {poolembed.__version__}\n"
    assert cli("help", "embed").out == cli("embed", "--help").out
    assert cli("help").out == cli("--help").out
    done = cli("help", "emded")
    assert done.code == 2
    assert "Did you mean 'embed'?" in done.err


def test_json_is_there_for_what_a_script_wants(cli: Cli, songs: Path) -> None:
    cli("embed", songs)
    asked = cli("search", songs / "a.wav", "--json", "-k", "2")
    assert [len(line["neighbours"]) for line in asked.lines] == [2]
    assert all("songs" in line for line in cli("duplicates", "--json", "-q").lines)
    made = cli("map", "--json", "-q")
    assert made.err == ""
    assert json.loads(made.out)["path"] == "map.html"
    assert os.path.getsize("map.html") == made.json["size"]  # noqa: PTH202


def test_how_the_model_runs_is_said_alike(cli: Cli, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a model runs, `--device`, `--precision` and `--workers` reach it."""
    cli("embed", songs)
    seen: list[tuple[Any, ...]] = []

    def built(model: Any, **options: Any) -> Any:
        seen.append((options["device"], options["precision"], options["workers"]))
        raise poolembed.UsageError("seen")

    for module in (model_module, run_module):
        monkeypatch.setattr(module, "build_engine", built)
    how = ("--device", "cpu", "--precision", "bf16", "--workers", "3")
    Path("new.wav").write_bytes((songs / "a.wav").read_bytes())
    labels = {"a.wav": "x", "b.flac": "y", "c.ogg": "x", "d.mp3": "y"}
    Path("labels.csv").write_text("path,label\n" + "".join(f"{songs}/{name},{labels[name]}\n" for name in labels))
    for command in (["embed", "new.wav"], ["search", "new.wav"], ["evaluate", "toy", "labels.csv"]):
        assert cli(*command, *how).code == 2
    assert seen == [("cpu", "bf16", 3)] * 3
