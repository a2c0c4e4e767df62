"""What a command line of ``poolembed train`` comes to: options before a configuration file before the defaults.

The defaults are those of `TrainConfig` alone: an option that is not given is None here, and no key there.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poolembed.errors import UsageError

if TYPE_CHECKING:
    from poolembed.train.config import TrainConfig

OUTPUT = "mymodel"
"""Where to, unless said otherwise."""

AUGMENT = {
    "gain": "gain_db",
    "equalizer": "equalizer_db",
    **{name: name for name in ("low_pass", "time_mask", "band_mask", "mixup", "resized_crop", "shift")},
}
"""Parameters here -> keys of [augment]."""

OBJECTIVE = {
    "label_column": ("column", ("classification", "supcon")),
    "temperature": ("temperature", ("supcon", "contrastive")),
}
"""Parameters here -> key of [[objectives]], and the kinds that it concerns."""

NOT_SETTINGS = {"config", "resume", "overwrite", "quiet", "as_json", "objective", "targets", *AUGMENT, *OBJECTIVE}
"""Parameters here that are not keys of the configuration by the same name."""


def resolve(given: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a run.

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
    merged = {**settings, **{name: value for name, value in given.items() if name not in NOT_SETTINGS}}
    if "nested" in given:
        merged["nested"] = _sizes(given["nested"])
    if augment := {key: given[name] for name, key in AUGMENT.items() if name in given}:
        merged["augment"] = {**settings.get("augment", {}), **augment}
    objectives = [_objective(text) for text in given.get("objective", [])] or settings.get("objectives")
    if any(name in given for name in ("objective", "targets", *OBJECTIVE)):
        merged["objectives"] = _objectives(objectives or [{"kind": "classification"}], given)
    return merged


def _sizes(text: str) -> list[int]:
    try:
        return [int(size) for size in text.split(",")]
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
    objectives = [dict(objective) for objective in objectives]
    kinds = [objective.get("kind", "classification") for objective in objectives]
    for name, (key, concerned) in OBJECTIVE.items():
        if name not in given:
            continue
        for objective, kind in zip(objectives, kinds, strict=True):
            if kind in concerned:
                objective[key] = given[name]
        if not set(kinds) & set(concerned):
            raise UsageError(
                f"{_option(name)} concerns the objectives {' and '.join(concerned)}, not {', '.join(kinds)}"
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


def _option(key: str) -> str:
    """What a key of the configuration is called on the command line."""
    first, _, last = key.rpartition(".")
    if key.startswith("objectives"):
        names = {"targets": "targets", **{key: name for name, (key, _) in OBJECTIVE.items()}}
        name = names.get(last, "objective") if first else "objective"
    else:
        name = {key: name for name, key in AUGMENT.items()}.get(last, last).partition("[")[0]
    return "DATA" if name == "data" else "--" + name.replace("_", "-")
