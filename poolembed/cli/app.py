"""Every verb under one command, and what all of them share: help and the version."""

from __future__ import annotations

from typing import Annotated

import typer

from poolembed import __version__
from poolembed.cli.compare import HELP as COMPARE_HELP
from poolembed.cli.compare import compare
from poolembed.cli.duplicates import HELP as DUPLICATES_HELP
from poolembed.cli.duplicates import duplicates
from poolembed.cli.embed import HELP as EMBED_HELP
from poolembed.cli.embed import embed
from poolembed.cli.evaluate import HELP as EVALUATE_HELP
from poolembed.cli.evaluate import evaluate
from poolembed.cli.grouped import GroupedCommand
from poolembed.cli.index import HELP as INDEX_HELP
from poolembed.cli.index import index
from poolembed.cli.map import HELP as MAP_HELP
from poolembed.cli.map import map_songs
from poolembed.cli.models import HELP as MODELS_HELP
from poolembed.cli.models import models
from poolembed.cli.predict import HELP as PREDICT_HELP
from poolembed.cli.predict import predict
from poolembed.cli.push import HELP as PUSH_HELP
from poolembed.cli.push import push
from poolembed.cli.search import HELP as SEARCH_HELP
from poolembed.cli.search import search
from poolembed.cli.train import HELP as TRAIN_HELP
from poolembed.cli.train import train

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
  poolembed models                                 the models at hand
  poolembed train clips/ -o mymodel                a model of your own, from clips/<label>/**
  poolembed evaluate mymodel labels.csv            is it any good?
  poolembed predict song.mp3 --model mymodel       its labels, with probabilities
  poolembed compare labels.csv -o study            every pooling, side by side

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some files failed, 130 interrupted.
"""

app = typer.Typer(
    name="poolembed",
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,  # drawing help with rich takes longer than all the rest of it
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(help=COMPARE_HELP)(compare)
app.command(help=DUPLICATES_HELP)(duplicates)
app.command(help=EMBED_HELP)(embed)
app.command(help=EVALUATE_HELP)(evaluate)
app.command(help=INDEX_HELP)(index)
app.command("map", help=MAP_HELP)(map_songs)
app.command(help=MODELS_HELP)(models)
app.command(help=PREDICT_HELP)(predict)
app.command(help=PUSH_HELP)(push)
app.command(help=SEARCH_HELP)(search)
app.command(help=TRAIN_HELP, cls=GroupedCommand)(train)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"poolembed {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
