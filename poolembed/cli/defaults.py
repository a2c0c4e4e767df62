"""Defaults from files: ``poolembed.toml`` in the user's configuration folder, then in the working folder, which wins.

A file has a table for a verb (``[search]``), and keys above all tables for every verb that has such an option.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any

from poolembed.errors import UsageError
from poolembed.files.reading import read_regular

NAME = "poolembed.toml"


def places() -> list[Path]:
    """Where such files are looked for, the last of which wins."""
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111
    return [Path(folder) / "poolembed" / NAME, Path(NAME)]


def defaults_of(verb: str, command: Any, parent: Any) -> dict[str, tuple[Any, str]]:
    """What the files say of a verb's options: key -> value and where it stands, for an error about it.

    Args:
        verb: its name.
        command: its command.
        parent: the context of the whole command line, which knows the other verbs; None if there are none.

    Raises:
        UsageError: a file cannot be read, or has a key that is not known.
    """
    from poolembed.cli.verb import key_of

    keys = [key_of(parameter) for parameter in command.params]
    found: dict[str, tuple[Any, str]] = {}
    for path in places():
        settings = _read(path)
        verbs = parent.command.commands if parent is not None else {verb: command}
        own = settings.pop(verb, {})
        for key, value in settings.items():
            if isinstance(value, dict):
                if key not in verbs:
                    raise _unknown(path, f"[{key}]", key, verbs)
            elif key.replace("-", "_") in keys:
                found[key.replace("-", "_")] = _home(value), f"{path}: {key} = "
            else:
                others = {key_of(each): None for other in verbs.values() for each in other.params}
                if key.replace("-", "_") not in others:
                    raise _unknown(path, key, key, others)
        if not isinstance(own, dict):
            raise UsageError(f"{path}: {verb} is a verb, and no option", hint=f"a table is wanted: [{verb}]")
        for key, value in own.items():
            if key.replace("-", "_") not in keys:
                raise _unknown(path, f"[{verb}] {key}", key, keys)
            found[key.replace("-", "_")] = _home(value), f"{path}: [{verb}] {key} = "
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        # As of the command line, bytes that are not UTF-8 go through text and back.
        return tomllib.loads(read_regular(path).decode("utf-8", "surrogateescape"))
    except OSError as error:
        if not os.path.lexists(path):  # nor where its folder may not be entered, as that of another user
            return {}
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error


def _unknown(path: Path, name: str, key: str, known: Any) -> UsageError:
    near = difflib.get_close_matches(key.replace("-", "_"), list(known), 1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known))}"
    return UsageError(f"{path}: {name} is not known", hint=hint)


def _home(value: Any) -> Any:
    """A value with the user's folder in the place of a ``~``, as a shell would put it there."""
    if isinstance(value, list):
        return [_home(each) for each in value]
    is_home = isinstance(value, str) and (value == "~" or value.startswith("~/"))
    return os.path.expanduser(value) if is_home else value  # noqa: PTH111
