"""Help answers at once, shows examples first, and knows every command and option."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import typer

import poolembed
from poolembed.cli.app import app
from tests.cli.conftest import Cli
from tests.waiting import PATIENCE

HEAVY = {
    "torch",
    "numpy",
    "librosa",
    "numba",
    "scipy",
    "soundfile",
    "av",
    "soxr",
    "safetensors",
    "pyarrow",
    "matplotlib",
    "sklearn",
    "tomli_w",
    "tinytag",
    "usearch",
    "lance",
}
DRAWING = {"rich.progress", "rich.table", "rich.console", "rich.markdown"}


def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def loaded_by(
    *arguments: str, below: Sequence[str] = (), variables: Mapping[str, str] | None = None
) -> tuple[set[str], str]:
    """The modules that a run of the command line, started by the command `below`, imports, and what it prints."""
    code = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: sys.stderr.write('MODULES' + json.dumps(sorted(sys.modules))))\n"
        "from poolembed.cli import main\n"
        f"sys.argv = ['poolembed', *{arguments!r}]\n"
        "main()"
    )
    done = subprocess.run(
        [*below, sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=variables or {},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return set(json.loads(done.stderr.partition("MODULES")[2])), done.stdout


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["embed", "--help"], ["tags", "-h"], ["train", "-h"], ["--version"], []]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    modules, out = loaded_by(*arguments)
    assert "typer" in modules
    assert not modules & (HEAVY | DRAWING | {"pydantic"})
    assert out or not arguments


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_imports_nothing_heavy_and_completes(shell: str) -> None:
    words = {
        "COMP_WORDS": "poolembed em",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "poolembed em",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    modules, out = loaded_by(variables={"_POOLEMBED_COMPLETE": f"complete_{shell}", **words})
    assert "embed" in out
    assert "models" not in out
    assert not modules & HEAVY


def test_options_and_their_values_complete() -> None:
    words = {"COMP_WORDS": "poolembed embed --format ", "COMP_CWORD": "3"}
    modules, out = loaded_by(variables={"_POOLEMBED_COMPLETE": "complete_bash", **words})
    assert out.split() == ["npy", "matrix", "parquet", "jsonl"]
    assert not modules & HEAVY


BASH = shutil.which("bash")


@pytest.mark.skipif(BASH is None, reason="there is no bash")
def test_completion_can_be_installed() -> None:
    """Typer looks for the shell among the processes above it: without one, as under a service, there would be none."""
    assert BASH is not None
    modules, out = loaded_by("--show-completion", below=(BASH, "-c", '"$@"; exit $?', "bash"))
    assert "_POOLEMBED_COMPLETE" in out
    assert not modules & HEAVY


def test_the_script_is_there(script: Cli) -> None:
    done = script("--version")
    assert done.out.decode().strip() == f"poolembed {poolembed.__version__}"
    done = script("--help")
    assert done.code == 0
    assert done.err == ""


def test_examples_come_first(cli: Cli) -> None:
    text = cli("--help").out.decode()
    assert 0 < text.index("poolembed embed ~/Music") < text.index("Options:") < text.index("Commands:")
    for code in ("0 done", "1 failed", "2 wrong usage", "3 done but some files failed"):
        assert code in text


def test_no_arguments_show_the_help(cli: Cli) -> None:
    done = cli()
    assert "Examples:" in done.out.decode() + done.err
    assert done.code in (0, 2)


@pytest.mark.parametrize("name", commands())
def test_every_command_has_an_example_and_every_option_a_word(name: str, cli: Cli) -> None:
    text = cli(name, "--help").out.decode()
    assert f"poolembed {name}" in text.partition("Options:")[0].replace(f"Usage: poolembed {name}", "")
    for parameter in commands()[name].params:
        assert parameter.help, parameter.name
        if parameter.param_type_name == "option":
            assert all(option in text for option in parameter.opts), parameter.opts
    assert len(max(text.splitlines(), key=len)) <= 120


def test_the_overview_names_every_command(cli: Cli) -> None:
    overview = cli("--help").out.decode().partition("Commands:")[2]
    assert [line.split()[0] for line in overview.splitlines() if line.startswith("  ") and line[2] != " "] == list(
        commands()
    )


@pytest.mark.parametrize("arguments", [["emded"], ["--nonsense"], ["embed", "--formt", "npy"]])
def test_wrong_use_is_exit_code_2(arguments: list[str], cli: Cli) -> None:
    done = cli(*arguments)
    assert (done.code, done.out) == (2, b"")
    assert "No such" in done.err
