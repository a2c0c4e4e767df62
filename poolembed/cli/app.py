"""Every verb under one command, and what all of them share: help and the version."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from poolembed import __version__

HELP = """\
Turn songs into fixed-length embeddings: whole directories, songs of any length, learned pooling.

\b
Examples:
  poolembed embed ~/Music                          one .npy per song, in ./embeddings
  poolembed embed ~/Music -o all --format matrix   one (N, D) array and a manifest
  find . -name '*.flac' | poolembed embed - -o -   paths in, JSON Lines out
  poolembed index embeddings/ -o music.index       for libraries that are too large to compare with every song
  poolembed map                                    see the library; click a dot, hear the song
  poolembed duplicates embeddings/                 the same recording under other names; deletes nothing
  poolembed push --to s3://bucket/music.lance      a table that many machines search
  poolembed search song.mp3                        the ten nearest songs in ./embeddings
  poolembed tags embeddings/                       what a model of yours hears in every song; nothing is decoded
  poolembed models                                 the models at hand
  poolembed train clips/ -o mymodel                a model of your own, from clips/<label>/**
  poolembed evaluate mymodel labels.csv            is it any good?
  poolembed predict song.mp3 --model mymodel       what is heard in it, with probabilities
  poolembed compare labels.csv -o study            every pooling, side by side
  poolembed sync                                   the steps that poolembed.toml names: a line for a crontab

Options that are not given are taken from the environment (POOLEMBED_MODEL=tiny, or of one verb POOLEMBED_EMBED_MODEL),
then from poolembed.toml in the working folder, then from that in ~/.config/poolembed.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some files failed, 130 interrupted.
"""

VERBS = {
    "compare": "Compare every temporal pooling on labelled clips: same encoder, same seeds, same batches.",
    "duplicates": "Find the same recording under other names, bitrates and formats. Nothing is deleted.",
    "embed": "Embed songs: audio files of any length to unit vectors of one length.",
    "evaluate": "Score a model on labelled clips: nearest neighbours, linear probe and retrieval.",
    "help": "Show the help of a verb.",
    "index": "Build an index of a collection: one file that finds nearly the nearest songs.",
    "map": "Make a map of a collection: one HTML file that shows every song as a dot and plays it.",
    "models": "List the models at hand: those that ship with poolembed, then those in $POOLEMBED_MODELS.",
    "predict": "Label songs: what a model that knows labels hears in them.",
    "push": "Bring a table of songs up to date: in a folder, or in an object store that many machines search.",
    "search": "Search for songs like these, the nearest embeddings by cosine, or for songs that tags fit.",
    "sync": "Run the steps that poolembed.toml names.",
    "tags": "Tell what is heard in the songs of a collection, from their embeddings alone.",
    "train": "Train a model, its pooling included, on clips.",
}
"""What each does, in a line. Its module is loaded when it is wanted, so that the help of others answers at once."""

_FUNCTIONS = {"map": "map_songs", "help": "show_help"}


class _Commands(MutableMapping[str, Any]):
    """The commands by name, each made when it is asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made and name in VERBS:
            from poolembed.cli.verb import Verb

            module = import_module(f"poolembed.cli.{name}")
            alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            settings = {"help_option_names": ["-h", "--help"]}
            help = f"{VERBS[name]}\n\n{module.HELP}"
            make = alone.command(name, help=help, cls=Verb, context_settings=settings)
            make(getattr(module, _FUNCTIONS.get(name, name)))
            self._made[name] = typer.main.get_command(alone)
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(VERBS)

    def __len__(self) -> int:
        return len(VERBS)


class Verbs(TyperGroup):
    """All verbs."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands()

    def get_params(self, ctx: Any) -> list[Any]:
        """The options of the whole, all of them switches."""
        parameters = super().get_params(ctx)
        for parameter in parameters:  # None makes typer load pydantic, to look at it, before a verb can show its help
            parameter.default = parameter.default or False
        return parameters

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the verbs without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


app = typer.Typer(
    name="poolembed",
    cls=Verbs,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,  # drawing help with rich takes longer than all the rest of it
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"poolembed {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
