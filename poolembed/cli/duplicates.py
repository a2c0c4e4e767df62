"""``poolembed duplicates``: the same recording under other names, bitrates, formats."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from poolembed.cli.options import CollectionPath, Json, Null, Quiet, Rows
from poolembed.cli.progress import showing
from poolembed.cli.separated import csv_line, rule
from poolembed.errors import PoolembedError, UsageError
from poolembed.text import duration, printable, size

if TYPE_CHECKING:
    from poolembed.search.duplicates import Duplicates, Group
    from poolembed.search.quality import Copy
    from poolembed.search.songs import Songs

HELP = """\
\b
Examples:
  poolembed duplicates                             those in ./embeddings
  poolembed duplicates embeddings/ --threshold 0.99
  poolembed duplicates --format jsonl | jq '.songs[0].path'
  poolembed duplicates --format paths -0 | xargs -0 mv -nt /somewhere/else

Groups are listed by how much space they would free, and in each group the best song first: whole files before damaged
ones, lossless before lossy, then by bitrate, sample rate, channels, bits, phase and length, all by the account of the
decoder. Every other song of a group is as near to the best one as the threshold asks, and as long within the
tolerance. Of clips that are shorter than 10 s more is asked, for short sounds are alike without being copies: at 5 s a
cosine of 0.9 and lengths within 1 s, at 1 s 0.98 and 0.2 s. A --threshold that is given holds for all.

--format paths lists only songs that the best one of their group can stand for, for it is as good for sure; of the
others the table says why that is not certain. Songs that are silent are never listed. A codec cannot tell what it was
given: a FLAC that was made from an MP3 counts as lossless.
""" + rule("CSV")


def duplicates(
    collection: CollectionPath = "embeddings",
    threshold: Annotated[
        float | None,
        typer.Option(
            min=-1,
            max=1,
            help="Cosine from which on two songs are one recording.",
            show_default="0.8, which fits the model base, and more below 10 s",
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="S", help="Seconds that their lengths may differ, where known; inf: any.", show_default="2"
        ),
    ] = None,
    format: Annotated[
        Literal["table", "jsonl", "csv", "paths"],
        typer.Option(
            help="jsonl: a line per group. csv: a line per song. paths: what the best of each group can stand for."
        ),
    ] = "table",
    null: Null = False,
    output: Annotated[
        str, typer.Option("--output", "-o", "--out", metavar="FILE", help="Where to; - is standard output.")
    ] = "-",
    paths: Rows = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Find the same recording under other names, bitrates and formats. Nothing is deleted."""
    format = "jsonl" if as_json else format
    if null and format != "paths":
        raise UsageError("-0 belongs to --format paths")
    for option, value in (("--threshold", threshold), ("--tolerance", tolerance)):
        if value is not None and math.isnan(value):
            raise UsageError(f"{option} needs a number, and nan is none")

    import poolembed

    songs = poolembed.open(collection, paths)
    if format == "paths" and not songs.has_paths:
        raise UsageError(f"{collection} does not name its songs", hint="--paths FILE does, with a path a line")
    with showing(quiet) as progress:
        found = songs.duplicates(threshold=threshold, tolerance=tolerance, progress=progress)
    if format == "paths":
        text = _as_paths(found.groups, b"\0" if null else b"\n")
    else:
        render = {"table": _as_table, "jsonl": _as_jsonl, "csv": _as_csv}[format]
        text = render(found.groups).encode("utf-8", "surrogateescape")
    if output == "-":
        typer.echo(text, nl=False)
    else:
        from poolembed.files.writing import replacing, writing

        path = Path(output)
        with writing(path), replacing(path, path.parent) as part:
            part.write_bytes(text)
    if not quiet:
        _say(songs, found, chosen=threshold is not None, format=format)


def _as_table(groups: list[Group]) -> str:
    lines = []
    for number, group in enumerate(groups, start=1):
        lines.append(f"{number}. {len(group.songs)} songs, {size(group.freed)} to free")
        for place, song in enumerate(group.songs):
            kept = "keep" if place == 0 else f"{song.cosine:.4f}"
            lines.append("  ".join([f"  {kept:>6}", *_facts(song), printable(song.key)]))
            if song.doubt is not None:
                lines.append(f"{'':10}not for sure: {printable(song.doubt)}")
        lines.append("")
    return "".join(f"{line}\n" for line in lines)


def _facts(song: Copy) -> list[str]:
    """Length, encoding and size, each of a fixed width but for long names of codecs."""
    bitrate = "lossless" if song.lossless else f"{song.bitrate:.0f} kb/s" if song.bitrate else "-"
    return [
        f"{'-' if song.duration is None else duration(song.duration):>12}",
        f"{song.codec or '-':>9}",
        f"{bitrate:>9}",
        f"{f'{song.sample_rate / 1000:g} kHz' if song.sample_rate else '-':>10}",
        f"{f'{song.channels} ch' if song.channels else '-':>4}",
        f"{'-' if song.size is None else size(song.size):>9}",
    ]


def _as_jsonl(groups: list[Group]) -> str:
    lines = [{"freed": group.freed, "songs": [_as_dict(song) for song in group.songs]} for group in groups]
    return "".join(json.dumps(line) + "\n" for line in lines)


def _as_dict(song: Copy) -> dict[str, object]:
    return {**dataclasses.asdict(song), "cosine": round(song.cosine, 6)}


def _as_csv(groups: list[Group]) -> str:
    from poolembed.search.quality import Copy

    lines = [csv_line("group", "place", *(field.name for field in dataclasses.fields(Copy)))]
    for number, group in enumerate(groups, start=1):
        for place, song in enumerate(group.songs, start=1):
            lines.append(csv_line(number, place, *_as_dict(song).values()))
    return "".join(lines)


def _as_paths(groups: list[Group], end: bytes) -> bytes:
    paths = [os.fsencode(song.path) for group in groups for song in group.spare]
    for path in paths:
        if end in path:
            raise PoolembedError(f"{path!r} would be two lines", hint="-0 ends paths in NUL, as xargs -0 reads them")
    return b"".join(path + end for path in paths)


def _say(songs: Songs, found: Duplicates, *, chosen: bool, format: str) -> None:
    """What it comes to, what to be careful of, and that nothing is deleted; on standard error."""
    from poolembed.search.duplicates import MEASURED_ON, SHORT

    lengths = f" and lengths within {found.tolerance:g} s" if found.by_length and found.tolerance < math.inf else ""
    short = "" if chosen or not found.by_length else f", and nearer and of nearer lengths below {SHORT:g} s"
    by = f"by a cosine of at least {found.threshold:g}{lengths}{short}"
    if found.stale:
        typer.echo(f"left out, for they are gone or have changed since they were embedded: {found.stale}", err=True)
    if found.links:
        typer.echo(f"left out, for they lead to a file of the same group: {found.links}", err=True)
    if found.soundless:
        typer.echo(f"left out, for they are silent: {found.soundless}", err=True)
    if not found.by_length:
        typer.echo("note: these vectors do not say how long the songs are, so that only the cosine decides", err=True)
    if not chosen and (songs.model is None or songs.model.fingerprint != MEASURED_ON):
        than = "that of these vectors" if songs.model is None else songs.model.name
        typer.echo(f"note: {found.threshold:g} was chosen for another model than {than}; --threshold sets it", err=True)
    if not found.groups:
        typer.echo(f"no duplicates among {len(songs)} songs, {by}", err=True)
        return
    spare = sum(len(group.spare) for group in found.groups)
    unsure = sum(len(group.songs) - 1 for group in found.groups) - spare
    freed = size(sum(group.freed for group in found.groups))
    typer.echo(f"groups of duplicates among {len(songs)} songs, {by}: {len(found.groups)}", err=True)
    typer.echo(f"that the best of each can stand for: {spare} song{'' if spare == 1 else 's'}, {freed}", err=True)
    if unsure:
        why = "" if format == "table" else "; --format table says why"
        typer.echo(f"that it may not be as good as, and --format paths leaves out: {unsure}{why}", err=True)
    typer.echo("Nothing was deleted, and a model can be wrong: listen before you delete.", err=True)
