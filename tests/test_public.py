"""What the package promises to those who import it."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import poolembed
from tests.waiting import PATIENCE

PACKAGE = Path(poolembed.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
ERRORS = [
    "AudioError",
    "BundleError",
    "BundleNotFoundError",
    "FilesFailedError",
    "LabelsError",
    "NothingFoundError",
    "OutputError",
    "PoolembedError",
    "TrainingError",
    "UsageError",
    "VectorsError",
]


def test_the_surface_is_this() -> None:
    """A name that comes or goes is a change for users, and has to be made here too."""
    pooling = ["AttentionPool", "AutoPool", "GeMPool", "MaxPool", "MeanPool", "SoftmaxPool", "TemporalPool"]
    statistics = ["AttentiveStatisticsPool", "MeanMaxPool"]
    door = ["Hit", "LabelledSong", "Model", "Songs", "TrainConfig", "evaluate", "load", "open", "predict", "train"]
    assert sorted(poolembed.__all__) == sorted([*ERRORS, *pooling, *statistics, *door])
    assert poolembed.__all__ == sorted(poolembed.__all__)


@pytest.mark.parametrize("name", poolembed.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    thing = getattr(poolembed, name)
    assert inspect.getdoc(thing)
    assert thing.__doc__, f"{name} has only an inherited docstring"
    assert name in dir(poolembed)
    for attribute, member in vars(thing).items() if inspect.isclass(thing) else ():
        if not attribute.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            assert inspect.getdoc(getattr(thing, attribute)), f"{name}.{attribute}"


def test_functions_are_not_hidden_by_folders_of_their_names() -> None:
    import poolembed.evaluate.metrics
    import poolembed.train.config

    assert inspect.isfunction(poolembed.evaluate)
    assert inspect.isfunction(poolembed.train)
    assert inspect.ismodule(sys.modules["poolembed.train"])


def test_star_import() -> None:
    names: dict[str, object] = {}
    exec("from poolembed import *", names)
    assert set(poolembed.__all__) <= names.keys()


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Modell'"):
        _ = poolembed.Modell  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        exec("from poolembed import Modell")


@pytest.mark.parametrize("name", ERRORS)
def test_one_tree_of_errors(name: str) -> None:
    error = getattr(poolembed, name)
    assert issubclass(error, poolembed.PoolembedError)
    made = error({"a.mp3": "broken"}) if name == "FilesFailedError" else error("what happened")
    assert str(made)
    assert name in (importlib.import_module("poolembed.errors").__doc__ or "")


def test_errors_say_what_to_do() -> None:
    assert str(poolembed.PoolembedError("no", hint="do this")) == "no (do this)"
    many = poolembed.FilesFailedError({f"{i}.mp3": "broken" for i in range(12)})
    assert len(many.failures) == 12
    assert "12 file(s)" in str(many)
    assert "4.mp3: broken" in str(many)
    assert "5.mp3" not in str(many)
    assert "7 more" in str(many)


def modules_after(statement: str) -> set[str]:
    code = f"import json, sys\n{statement}\njson.dump(sorted(sys.modules), sys.stdout)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=PATIENCE)
    return set(json.loads(done.stdout))


def test_import_is_light() -> None:
    loaded = modules_after("import poolembed")
    assert not loaded & {"torch", "numpy", "librosa", "numba", "soundfile", "av", "typer", "rich", "msgspec"}


def test_embedding_needs_no_librosa() -> None:
    loaded = modules_after(
        "import poolembed.embed.model; import poolembed.embed.run; import poolembed.cli; import poolembed.cli.report"
    )
    assert "torch" in loaded
    assert not loaded & {"librosa", "numba", "scipy", "sklearn", "pyarrow", "matplotlib", "pandas"}


def test_every_module_imports_and_says_what_it_is() -> None:
    for module in pkgutil.walk_packages([str(PACKAGE)], "poolembed."):
        if not module.name.rpartition(".")[2].startswith("_"):
            assert importlib.import_module(module.name).__doc__, module.name


def calls(tree: ast.AST) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_never_prints_exits_or_unpickles(source: Path) -> None:
    tree = ast.parse(source.read_text())
    found = calls(tree)
    assert not found & {"torch.load", "pickle.load", "pickle.loads", "eval", "exec", "os.system"}
    if PACKAGE / "cli" in source.parents or source == PACKAGE / "__main__.py":
        return
    assert not found & {"print", "pprint", "sys.exit", "os._exit", "exit", "quit", "input"}
    # Of one array there is no other way to say that it was hardly meant so.
    assert "warnings.warn" not in found or source == PACKAGE / "embed" / "model.py"
    assert not any(name.startswith(("sys.stdout", "sys.stderr", "typer.", "rich.")) for name in found)
    raised = {ast.unparse(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc}
    assert not any("SystemExit" in each for each in raised)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_error_is_swallowed_unseen(source: Path) -> None:
    """``except Exception`` as control flow hides bugs. Two hand all to another thread; others log it."""
    wide = [
        node
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
        and not calls(node) & {"reason_of", "LOGGER.exception"}
    ]
    assert len(wide) <= (source.name in ("engine.py", "sampling.py"))


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


CALLED = {
    "compare": {"poolembed.compare", "msgspec"},
    "duplicates": {"poolembed.search.duplicates", "poolembed.search.quality"},
    "embed": {"poolembed.embed", "poolembed.identity"},
    "index": {"poolembed.search.index"},
    "map": {"poolembed.map"},
    "models": {"poolembed.bundle"},
    "push": {"poolembed.search"},
    "settings": {"poolembed.compare.config", "poolembed.train", "msgspec"},
    "tags": {"poolembed.heads"},
    "train": {"poolembed.train"},
    "training": {"poolembed.labels", "poolembed.train"},
}
"""What modules of the command line import when they run, beyond `poolembed` itself, names of errors and words."""

SHARED = {
    "click",
    "poolembed.cli",
    "poolembed.embed.crew",
    "poolembed.errors",
    "poolembed.files",
    "poolembed.text",
    "rich",
    "typer",
}


@pytest.mark.parametrize("source", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda path: path.stem)
def test_a_verb_parses_calls_the_library_and_shows(source: Path) -> None:
    """No model is loaded, nothing joined or decoded in the command line."""
    tree = ast.parse(source.read_text())
    hidden = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    imported = set()
    for node in ast.walk(tree):
        if node not in hidden and isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif node not in hidden and isinstance(node, ast.ImportFrom):
            imported |= {str(node.module)}
    allowed = tuple(SHARED | CALLED.get(source.stem, set()))
    beyond = {
        name
        for name in imported - {"poolembed"}
        if name.partition(".")[0] not in sys.stdlib_module_names
        and not any(name == each or name.startswith(f"{each}.") for each in allowed)
    }
    assert not beyond
