"""A verb: its help in sections, its defaults also from the environment and from `poolembed.toml`."""

from __future__ import annotations

import os
from typing import Any

import typer
from typer.core import TyperCommand

from poolembed.cli.defaults import defaults_of
from poolembed.errors import UsageError

ALIASES = {"--column": "--label-column", "--head": "--label-column", "--folds": "--fold-column"}
"""What options were called before -> what they are called."""


class Verb(TyperCommand):
    """A command whose options are listed under headings, and taken from where nobody typed them too.

    The command line goes before the environment (``POOLEMBED_VERB_OPTION``, then ``POOLEMBED_OPTION``), that before the
    files (`poolembed.cli.defaults`), and those before the defaults.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for parameter in self.params:
            if name := option_name(parameter):
                variable = name.upper().replace("-", "_")
                parameter.envvar = [f"POOLEMBED_{str(self.name).upper()}_{variable}", f"POOLEMBED_{variable}"]
                parameter.show_envvar = False  # type: ignore[attr-defined]

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse; what the files say takes the place of defaults, and is held to the types of the options."""
        verb = str(self.name)
        known = {name for parameter in self.params for name in (*parameter.opts, *parameter.secondary_opts)}
        args = [self._today(argument, known) for argument in args]
        if extra.get("resilient_parsing") or verb == "help" or {"-h", "--help"} & set(args):
            return super().make_context(info_name, args, parent, **extra)
        found = defaults_of(verb, self, parent)
        by_name = {key_of(parameter): parameter for parameter in self.params}
        values = {by_name[key].name: value for key, (value, _) in found.items() if key in by_name}
        try:
            context = super().make_context(info_name, args, parent, default_map=values, **extra)
        except typer.BadParameter as error:
            error.message = _in_words(error.message)
            if error.ctx is None or error.param is None:
                raise
            source = error.ctx.get_parameter_source(str(error.param.name))
            if source is not None and source.name == "ENVIRONMENT":
                variable = next(name for name in error.param.envvar or [] if os.environ.get(name))
                raise UsageError(f"{variable}={os.environ[variable]}: {error.message}") from error
            if not is_from_file(error.ctx, str(error.param.name)):
                raise
            value, place = found[key_of(error.param)]
            raise UsageError(f"{place}{value!r}: {error.message}") from error
        for key, (value, place) in found.items():
            parameter = by_name[key]
            taken = context.params.get(parameter.name)
            if is_from_file(context, parameter.name) and _kind(taken) != _kind(value):
                raise UsageError(f"{place}{value!r} is no {_kind(taken)}")
        return context

    def _today(self, argument: str, known: set[str]) -> str:
        name, equals, value = argument.partition("=")
        today = ALIASES.get(name, "")
        return today + equals + value if name not in known and today in known else argument

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each heading."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                plain = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or plain, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


_WORDS = {
    "Value error, ": "",
    "Value must be an iterable.": "a list is wanted",
    "Input should be a valid integer": "a whole number is wanted",
    "Input should be a valid number": "a number is wanted",
    "Input should be a valid boolean": "true or false is wanted",
    "Input should be a valid string": "text is wanted",
    "Input should be greater than or equal to": "it must be at least",
    "Input should be less than or equal to": "it must be at most",
    "Input should be greater than": "it must be above",
    "Input should be less than": "it must be below",
}
"""How typer begins to say that a value is wrong -> plain words."""


def _in_words(message: str) -> str:
    for theirs, ours in _WORDS.items():
        if message.startswith(theirs):
            rest = message.removeprefix(theirs)
            return ours + ("" if rest.startswith(",") else rest)
    return message


def option_name(parameter: Any) -> str:
    """The first long name of an option, without dashes before it; empty of an argument."""
    if parameter.param_type_name == "argument":
        return ""
    return next((name[2:] for name in parameter.opts if name.startswith("--")), "")


def key_of(parameter: Any) -> str:
    """What a parameter is called in a file."""
    return (option_name(parameter) or str(parameter.name)).replace("-", "_")


def is_from_file(context: Any, name: str) -> bool:
    """Whether a parameter's value is what `poolembed.toml` says."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT_MAP"


def _kind(value: Any) -> str:
    """The type of a value as TOML sees it; of a whole number where any number will do too."""
    if isinstance(value, list | tuple):
        kinds = sorted({_kind(each) for each in value})
        return f"list of {' and '.join(kinds)}" if kinds else "list"
    return {str: "text", bool: "true or false"}.get(type(value), "number")
