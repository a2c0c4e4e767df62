"""Options made of the flags of a configuration, and the configuration that a command line comes to.

The command line goes before a configuration file and that before the defaults, which are the configuration's alone: an
option that is not given is None here, and no key there.
"""

from __future__ import annotations

import inspect
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
import typer

from poolembed.errors import UsageError
from poolembed.train.config import Flag, ObjectiveConfig, TrainConfig

if TYPE_CHECKING:
    from poolembed.compare.config import StudyConfig

OUTPUT = "mymodel"
"""Where to, unless said otherwise."""

CONCERNED = {"label_column": ("classification", "supcon"), "temperature": ("supcon", "contrastive")}
"""Options of objectives -> the kinds that they concern."""

_Command = TypeVar("_Command", bound=Callable[..., None])


class Option(NamedTuple):
    """An option that is a key of a configuration: the key with dots, its flag, what is typed, and the default shown."""

    key: str
    flag: Flag
    kind: Any
    default: str | bool


@cache
def options_of(config: type[msgspec.Struct]) -> dict[str, Option]:
    """The options of a configuration by the names of their parameters, in its order, nested ones in their places."""
    return dict(_options_of(config, ""))


def _options_of(config: type[msgspec.Struct], prefix: str) -> Iterator[tuple[str, Option]]:
    hints = get_type_hints(config, include_extras=True)
    for field in msgspec.structs.fields(config):
        kind, flag = _taken_apart(hints[field.name])
        several = get_origin(kind) is tuple
        inner = get_args(kind)[0] if several else kind
        if flag is not None:
            shown = flag.default or (field.default is not msgspec.NODEFAULT and field.default is not None)
            if shown is True:
                shown = (flag.name or field.name) if field.default is True else str(field.default)
            if several:  # typed with commas between; but objectives again and again, as each has its own targets
                kind = list[str] if inner is ObjectiveConfig else str
            elif flag.name == "targets" or field.name == "targets":
                kind = list[str]
            name = (flag.name or field.name).replace("-", "_")
            yield name, Option(prefix + field.name, flag, kind, shown)
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            yield from _options_of(inner, f"{prefix}{field.name}.")


def _taken_apart(hint: Any) -> tuple[Any, Flag | None]:
    """The plain type of an annotation, without bounds and None, and its flag."""
    flag = None
    while get_origin(hint) in (Annotated, Union, UnionType):
        if get_origin(hint) is Annotated:
            flag = flag or next((each for each in hint.__metadata__ if isinstance(each, Flag)), None)
            hint = hint.__origin__
        else:
            hint = next(part for part in get_args(hint) if part is not NoneType)
    return hint, flag


def with_options_of(config: type[msgspec.Struct]) -> Callable[[_Command], _Command]:
    """Give a command, in the place of its ``**options``, an option for each flag of a configuration, and ``--set``."""

    def decorate(command: _Command) -> _Command:
        signature = inspect.signature(command, eval_str=True)
        parameters = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        for name, option in options_of(config).items():
            flag = f"--{name.replace('_', '-')}"
            made = typer.Option(
                f"{flag}/--no-{flag[2:]}" if option.kind is bool else flag,
                metavar=option.flag.metavar,
                help=option.flag.help,
                rich_help_panel=option.flag.group or None,
                show_default=option.default,
            )
            parameters.append(_parameter(name, option.kind, made))
        made = typer.Option(
            "--set", metavar="KEY=VALUE", help="Any key of the configuration, as in its TOML file.", show_default=False
        )
        parameters.append(_parameter("set", list[str], made))
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def _parameter(name: str, kind: Any, option: Any) -> inspect.Parameter:
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def study(given: Mapping[str, Any]) -> StudyConfig:
    """The configuration of a study, of the options that were given.

    Raises:
        UsageError: one is unknown or impossible.
    """
    from poolembed.compare.config import StudyConfig
    from poolembed.train.configfile import converted

    merged: dict[str, Any] = {}
    _put_all(merged, StudyConfig, given)
    return converted(merged, lambda key: _option(key, StudyConfig), StudyConfig)


def resolve(given: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a training run.

    Args:
        given: the options that were given, by the names of the command's parameters.

    Raises:
        UsageError: an option or a key of the file is unknown, missing or impossible, or not what the run that is to be
            resumed was started with.
    """
    from poolembed.train.configfile import as_config, read_settings

    settings = read_settings(Path(given["config"])) if "config" in given else {}
    if "resume" in given:
        return _resumed(given["resume"], settings, given)
    merged = {"output": OUTPUT, **_merge(settings, given)}
    if not merged.get("data"):
        raise UsageError("nothing to train on", hint="give a folder per label, or a table: poolembed train clips/")
    if not merged["output"]:
        raise UsageError("-o needs a directory")
    return as_config(merged, _option)


def _resumed(directory: str, settings: Mapping[str, Any], given: Mapping[str, Any]) -> TrainConfig:
    """The configuration of the run in a directory, which options may repeat but not change."""
    from poolembed.train.configfile import RUN, as_config, as_settings, read_config, same_path

    if not (Path(directory) / RUN).is_file():
        raise UsageError(f"{directory} holds no run to resume", hint="drop --resume to start one")
    # The directory may have been moved since: it is where it is.
    before = {**as_settings(read_config(Path(directory) / RUN)), "output": directory}
    told = {**before, **settings, "augment": {**before["augment"], **settings.get("augment", {})}}
    asked = as_settings(as_config(_merge(told, given), _option))
    for key in ("data", "output"):
        if same_path(asked[key], before[key]):
            asked[key] = before[key]
    if different := [key for key in _flat({**before, **asked}) if _flat(before).get(key) != _flat(asked).get(key)]:
        names = ", ".join(map(_option, different))
        raise UsageError(
            f"the run in {directory} was started with another {names}",
            hint=f"poolembed train --resume {shlex.quote(directory)} needs no other options; "
            "to change them, start a new run with another -o",
        )
    return as_config(before, _option)


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{key: value for key, value in settings.items() if key != "augment"},
        **{f"augment.{key}": value for key, value in settings.get("augment", {}).items()},
    }


def _merge(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the options of the command line in their places."""
    merged = deepcopy(dict(settings))
    if any(option.key.startswith("objectives") and name in given for name, option in options_of(TrainConfig).items()):
        objectives = [_objective(text) for text in given.get("objective", [])] or merged.get("objectives")
        merged["objectives"] = _objectives(objectives or [{"kind": "classification"}], given)
    _put_all(merged, TrainConfig, given)
    return merged


def _put_all(settings: dict[str, Any], config: type[msgspec.Struct], given: Mapping[str, Any]) -> None:
    """Put what was given in its places, but for what concerns single objectives; ``--set`` has the last word."""
    settings |= {name: given[name] for name in ("data", "output") if name in given}
    for name, option in options_of(config).items():
        if name in given and not option.key.startswith("objectives"):
            value = given[name]
            _put(settings, option.key, _listed(option, value) if option.key in ("nested", "poolings") else value)
    for text in given.get("set", []):
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: a key and its value are wanted", hint="--set augment.mixup=0.4")
        _put(settings, key.strip(), _toml(value))


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for name in path:
        inner = settings.get(name)
        settings[name] = settings = dict(inner) if isinstance(inner, dict) else {}
    settings[last] = value


def _toml(text: str) -> Any:
    """A value as TOML has it; text that is none stands for itself."""
    try:
        values = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return values["value"] if len(values) == 1 else text


def _listed(option: Option, text: str) -> list[Any]:
    parts = [part.strip() for part in text.split(",")]
    if option.key == "poolings":
        return parts
    try:
        return [int(part) for part in parts]
    except ValueError as error:
        raise UsageError(f"--nested {text}: numbers with commas between are wanted", hint="64,128,256") from error


def _objective(text: str) -> dict[str, Any]:
    kind, colon, weight = text.partition(":")
    try:
        return {"kind": kind, "weight": float(weight)} if colon else {"kind": kind}
    except ValueError as error:
        raise UsageError(f"--objective {text}: {weight!r} is no weight", hint=f"for example {kind}:0.5") from error


def _objectives(objectives: list[dict[str, Any]], given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Objectives with the options that concern them."""
    kinds = [objective.get("kind", "classification") for objective in objectives]
    for name, concerned in CONCERNED.items():
        if name not in given:
            continue
        for objective, kind in zip(objectives, kinds, strict=True):
            if kind in concerned:
                objective[options_of(TrainConfig)[name].key.rpartition(".")[2]] = given[name]
        if not set(kinds) & set(concerned):
            raise UsageError(
                f"--{name.replace('_', '-')} concerns the objectives {' and '.join(concerned)}, not {', '.join(kinds)}"
            )
    distilled = [objective for objective, kind in zip(objectives, kinds, strict=True) if kind == "distill"]
    targets = given.get("targets", [objective["targets"] for objective in distilled if "targets" in objective])
    if len(targets) != len(distilled):
        raise UsageError(
            f"{len(distilled)} times the objective distill and {len(targets)} times --targets",
            hint="each distill needs a directory that `poolembed embed` wrote: --objective distill --targets DIR",
        )
    for objective, directory in zip(distilled, targets, strict=True):
        objective["targets"] = directory
    return objectives


def _option(key: str, config: type[msgspec.Struct] = TrainConfig) -> str:
    """What a key of the configuration is called on the command line."""
    key = re.sub(r"\[\d+\]", "", key)
    if key in ("data", "output"):
        return {"data": "DATA", "output": "--output"}[key]
    if key in ("objectives.kind", "objectives.weight"):
        key = "objectives"
    found = next((name for name, option in options_of(config).items() if option.key == key), None)
    return f"--set {key}" if found is None else f"--{found.replace('_', '-')}"
