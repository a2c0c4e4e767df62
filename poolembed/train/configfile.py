"""A run's configuration in TOML: what ``--config`` reads, and the ``run.toml`` that every run leaves behind.

A file holds any of the keys of `TrainConfig`, nested as there (``[augment]``, ``[[objectives]]``, ``[model.encoder]``).
`write_config` writes all of them, defaults too, so that its file means the same to a version with other defaults.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from poolembed.errors import UsageError
from poolembed.files.reading import read_regular
from poolembed.files.writing import replacing, writing
from poolembed.train.config import TrainConfig

RUN = "run.toml"

Config = TypeVar("Config", bound=msgspec.Struct)

_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}


def read_config(path: Path) -> TrainConfig:
    """The whole configuration of a run.

    Raises:
        UsageError: the file cannot be read, is no TOML, or a key of it is unknown, missing or impossible.
    """
    return as_config(_read(path), f"{path}: ".__add__)


def read_settings(path: Path) -> dict[str, Any]:
    """The keys that a configuration file has, all valid; it need not have those that every run needs.

    Raises:
        UsageError: the file cannot be read, is no TOML, or a key of it is unknown or impossible.
    """
    settings = _read(path)
    as_config({"data": "", "output": "", **settings}, f"{path}: ".__add__)
    return settings


def write_config(path: Path, config: TrainConfig) -> None:
    """Write every key of a configuration; the file appears whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(path), replacing(path, path.parent) as part:
        part.write_bytes(_encoded(config))


def is_written(path: Path, config: TrainConfig) -> bool:
    """Whether a file is what `write_config` writes of a configuration."""
    try:
        return read_regular(path) == _encoded(config)
    except OSError:
        return False


def format_config(config: TrainConfig) -> str:
    """The TOML of a configuration. A key whose value is None is left out, for TOML has none."""
    import tomli_w

    return tomli_w.dumps(as_settings(config), multiline_strings=False)


def as_settings(config: TrainConfig) -> dict[str, Any]:
    """A configuration as the plain data that TOML can hold; the inverse of `as_config`."""
    settings = _without_none(msgspec.to_builtins(config))
    assert isinstance(settings, dict)
    return settings


def as_config(settings: Mapping[str, Any], place: Callable[[str], str]) -> TrainConfig:
    """The configuration that plain data describes.

    Args:
        settings: keys and values of `TrainConfig`, nested.
        place: what to call a key in an error, given its path with dots ("augment.mixup"; "" for the whole).

    Raises:
        UsageError: a key is unknown, missing or impossible.
    """
    return converted(settings, place, TrainConfig)


def converted(settings: Mapping[str, Any], place: Callable[[str], str], kind: type[Config]) -> Config:
    """The configuration of any kind that plain data describes; otherwise as `as_config`."""
    try:
        return msgspec.convert(settings, kind)
    except msgspec.ValidationError as error:
        raise _readable(str(error), settings, place, kind) from error


def _encoded(config: TrainConfig) -> bytes:
    return format_config(config).encode("utf-8", "surrogateescape")


def _read(path: Path) -> dict[str, Any]:
    try:
        # Paths may be any bytes; those that are not UTF-8 go through text and back as they do in Python's own paths.
        return tomllib.loads(read_regular(path).decode("utf-8", "surrogateescape"))
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list | tuple) else value


def _readable(problem: str, settings: Mapping[str, Any], place: Callable[[str], str], config: type) -> UsageError:
    """What msgspec says of a value, in words, with the value and what it may be."""
    reason, _, path = problem.partition(" - at `$")
    path = path.removesuffix("`").removeprefix(".")
    steps = re.findall(r"\[(\d+)\]|([^.\[\]]+)", path)
    value, kind = _follow(settings, [int(number) if number else name for number, name in steps], config)
    if missing := re.fullmatch(r"Object (?:missing required|contains unknown) field `(.*)`", reason):
        key = missing[1]
        whole = f"{path}.{key}" if path else key
        if "missing" in reason:
            return UsageError(f"{place(whole)} is missing")
        keys = [field.encode_name for field in kind.fields] if isinstance(kind, inspect.StructType) else []
        near = difflib.get_close_matches(key, keys, 1)
        hint = f"did you mean {near[0]}?" if near else f"the keys there are: {', '.join(keys)}"
        return UsageError(f"{place(whole)} is not known", hint=hint)
    shown = f"{place(path)} = {value!r}" if isinstance(value, str | int | float) else place(path)
    if isinstance(kind, inspect.LiteralType) and reason.startswith("Invalid enum value"):
        return UsageError(f"{shown} is not among: {', '.join(map(str, kind.values))}")
    if expected := re.fullmatch(r"Expected `([^`]*)`(?: ([<>]=? \S+))?(?:, got `([^`]*)`)?", reason):
        names = " or ".join(_WORDS.get(name, name) for name in expected[1].split(" | ") if name != "null")
        bound = f" {expected[2].removesuffix('.0')}" if expected[2] else ""
        got = f", not {_WORDS.get(expected[3], expected[3])}" if expected[3] else ""
        return UsageError(f"{shown} must be {names}{bound}{got}")
    return UsageError(f"{shown}: {reason}")


def _follow(value: Any, steps: list[int | str], config: type) -> tuple[Any, inspect.Type]:
    """The value at the end of a path through plain data, and the type that it should have."""
    kind: inspect.Type = inspect.type_info(config)
    for step in steps:
        value = value[step]
        if isinstance(kind, inspect.StructType):
            kind = next(field.type for field in kind.fields if field.encode_name == step)
        elif isinstance(kind, inspect.VarTupleType):
            kind = kind.item_type
        if isinstance(kind, inspect.UnionType):
            kind = next(part for part in kind.types if not isinstance(part, inspect.NoneType))
        if isinstance(kind, inspect.Metadata):
            kind = kind.type
    return value, kind


def same_path(one: str, other: str) -> bool:
    """Whether two paths lead to one place."""
    return os.path.realpath(os.path.expanduser(one)) == os.path.realpath(os.path.expanduser(other))  # noqa: PTH111
