"""``poolembed embed``: songs in, embeddings out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from poolembed.cli.faults import keep_faults_in
from poolembed.cli.options import Device, Json, Overwrite, Precision, Quiet, Workers
from poolembed.cli.progress import showing
from poolembed.cli.reading import read_paths
from poolembed.cli.report import facts, reasons
from poolembed.cli.stopping import Stop, stop_on_signal
from poolembed.errors import PoolembedError, UsageError
from poolembed.text import duration, passed_over, printable

if TYPE_CHECKING:
    from poolembed.embed.run import Summary
    from poolembed.identity import ModelIdentity

HELP = """\
\b
Examples:
  poolembed embed ~/Music                          -> embeddings/<path below ~/Music>.npy
  poolembed embed ~/Music extra/a.mp3 -o out --format parquet
  poolembed embed --files-from list.txt -o out --timestamps 5
  find . -name '*.flac' -print0 | poolembed embed - -0 -o - | jq .path

The same command again embeds only what is new or changed.
"""

SOME_FAILED = 3


def embed(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH...",
            help="Audio files, and directories to search for them; - reads paths from standard input.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", "--out", metavar="DIR", help="Where to; - writes JSON Lines to stdout.")
    ] = "embeddings",
    format: Annotated[
        Literal["npy", "matrix", "parquet", "jsonl"] | None,
        typer.Option(
            help="npy: a file per song. matrix: one (N, D) embeddings.npy. parquet, jsonl: one table.",
            show_default="npy",
        ),
    ] = None,
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Type of the stored numbers.")] = "float32",
    timestamps: Annotated[
        float | None, typer.Option(metavar="S", help="Also store one vector per S seconds.", show_default=False)
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="A name that `poolembed models` lists, or a path.")
    ] = "base",
    dim: Annotated[
        int | None,
        typer.Option(
            metavar="D", help="Keep the first D numbers, of a model trained for that.", show_default="all of them"
        ),
    ] = None,
    files_from: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Read more paths from FILE, one a line; - is stdin.", show_default=False),
    ] = None,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="Paths that are read end in NUL, as of find -print0.")
    ] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Windows per batch.", show_default="by device and model")
    ] = None,
    workers: Workers = None,
    song_timeout: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Give up a song whose decoding makes no progress for so long; 0: never."
        ),
    ] = 300.0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Embed songs: audio files of any length to unit vectors of one length."""
    to_stdout = output == "-"
    if to_stdout and format not in (None, "jsonl"):
        raise UsageError(
            f"standard output takes JSON Lines, not {format}", hint="drop --format, or give -o a directory"
        )
    if to_stdout and as_json:
        raise UsageError("-o - and --json both write to standard output", hint="give -o a directory")
    if to_stdout and sys.stdout is None:
        raise PoolembedError("cannot write to standard output: it is closed", hint="give -o a directory")
    if not output:
        raise UsageError("-o needs a directory, or - for standard output")
    arguments = _arguments(paths or [], files_from or [], null)

    from poolembed.embed.manifest import FAULTS, WORK
    from poolembed.embed.run import embed as embed_paths

    if not to_stdout:
        keep_faults_in(Path(output) / WORK / FAULTS)
    stop = Stop()
    with ExitStack() as end:

        def begin() -> Stop:
            nonlocal stop
            stop = end.enter_context(stop_on_signal(None if quiet else "finishing the songs in hand"))
            return stop

        summary, identity = embed_paths(
            arguments,
            sys.stdout.buffer if to_stdout else output,
            model=model,
            dim=dim,
            format=format or "npy",
            dtype=dtype,
            timestamps=timestamps,
            overwrite=overwrite,
            progress=end.enter_context(showing(quiet)),
            begin=begin,
            device=device,
            precision=precision,
            batch_size=batch_size,
            workers=workers,
            song_timeout=song_timeout,
            on_halved=lambda size: typer.echo(
                f"out of device memory: going on with {size} windows at a time", err=True
            ),
        )
    where = "standard output" if to_stdout else output
    if as_json:
        typer.echo(json.dumps(_as_json(summary, identity, where)))
    with suppress(OSError):  # nobody may read it any more
        if not quiet:
            facts(_facts(summary, identity, where))
            if summary.notes:
                reasons("embedded, but", summary.notes, "in the manifest")
        if summary.failures:
            reasons("failed", summary.failures, "in the manifest")
    if stop.signal:
        raise typer.Exit(128 + stop.signal)
    if summary.failures:
        raise typer.Exit(SOME_FAILED)


def _arguments(paths: list[str], files_from: list[str], null: bool) -> list[str]:
    """The paths of the command line, and in the place of each list those that it holds."""
    arguments: list[str] = []
    for path in paths:
        arguments += read_paths("-", null) if path == "-" else [path]
    for path in files_from:
        arguments += read_paths(path, null)
    if not paths and not files_from:
        raise UsageError("nothing to embed", hint="give a directory, for example: poolembed embed ~/Music")
    return arguments


def _facts(summary: Summary, model: ModelIdentity, output: str) -> Iterator[tuple[str, str]]:
    """What became of the songs, how fast, and where the embeddings are."""
    amount = f"{summary.embedded:,} songs, {duration(summary.audio_seconds)} of audio"
    if summary.embedded:
        amount += f" in {duration(summary.elapsed_seconds)}, {summary.times_real_time:,.0f} x real time"
    yield "embedded", amount
    if summary.unchanged:
        yield "unchanged", f"{summary.unchanged:,} songs, embedded by an earlier run"
    if count := len(summary.failures):
        yield "failed", typer.style(f"{count:,} file{'' if count == 1 else 's'}", fg="red")
    if summary.passed_over:
        yield "passed over", passed_over(summary.passed_over)
    if summary.interrupted:
        left = summary.found - summary.embedded - summary.unchanged - count
        yield "not reached", f"{left:,} songs; run the same command again to go on"
    ran = "" if summary.device is None else f" on {summary.device} in {summary.precision}"
    yield "model", printable(f"{model.name}{ran}, {model.embedding_size} numbers")
    yield "output", printable(output)


def _as_json(summary: Summary, model: ModelIdentity, output: str) -> dict[str, object]:
    return {
        "found": summary.found,
        "embedded": summary.embedded,
        "unchanged": summary.unchanged,
        "failed": len(summary.failures),
        "failures": [{"path": path, "reason": reason} for path, reason in summary.failures.items()],
        "notes": [{"path": path, "note": note} for path, note in summary.notes.items()],
        "passed_over": dict(summary.passed_over),
        "interrupted": summary.interrupted,
        "audio_seconds": summary.audio_seconds,
        "elapsed_seconds": summary.elapsed_seconds,
        "times_real_time": summary.times_real_time,
        "output": output,
        "model": model.name,
        "fingerprint": model.fingerprint,
        "embedding_size": model.embedding_size,
        "device": summary.device,
        "precision": summary.precision,
        "workers": summary.workers,
    }
