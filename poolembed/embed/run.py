"""A whole run: files found, embedded, written, and summed up."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from poolembed.audio.find import AUDIO_SUFFIXES, FoundFile, find_audio
from poolembed.catalog import check_weights, find_bundle, fingerprint, read_config
from poolembed.embed.estimate import Estimate
from poolembed.embed.manifest import NAME, FloatType, Format
from poolembed.embed.nested import check_dim
from poolembed.embed.outputs import Job, JsonLinesStream, OutputDirectory, open_output
from poolembed.embed.song import Embedded, Failed, Outcome, check_seconds
from poolembed.errors import NothingFoundError
from poolembed.identity import ModelIdentity
from poolembed.progress import Progress, silent
from poolembed.text import passed_over

if TYPE_CHECKING:
    from poolembed.embed.model import Model


@dataclass
class Found:
    """What was found.

    Attributes:
        files: the audio files to embed, in order.
        unreadable: what could not be searched: path -> reason.
        passed_over: files below directories that were left alone for their suffixes: suffix -> how many.
    """

    files: list[FoundFile]
    unreadable: dict[str, str]
    passed_over: Counter[str] = field(default_factory=Counter)


@dataclass
class Summary:
    """What became of a run.

    Attributes:
        found: audio files, including paths that could not be opened.
        embedded: newly embedded.
        unchanged: skipped, for an earlier run embedded them and they have not changed since.
        failures: path -> reason, in order.
        notes: path -> what was wrong with a file that was embedded all the same ("truncated: …").
        audio_seconds: decoded audio of the newly embedded songs.
        elapsed_seconds: wall time.
        interrupted: stopped before every song was looked at.
        passed_over: as of `Found`.
        device: where the network ran; None, as the two that follow, where there was nothing to embed and no model was
            loaded.
        precision: what it computed in.
        workers: threads.
    """

    found: int = 0
    embedded: int = 0
    unchanged: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    audio_seconds: float = 0.0
    elapsed_seconds: float = 0.0
    interrupted: bool = False
    passed_over: Counter[str] = field(default_factory=Counter)
    device: str | None = None
    precision: str | None = None
    workers: int | None = None

    def take(self, path: str, outcome: Outcome, failure: str | None) -> None:
        """Count what became of a song; `failure` is the reason why there is no embedding of it."""
        if failure is not None:
            self.failures[path] = failure
        elif isinstance(outcome, Embedded):
            self.embedded += 1
            self.audio_seconds += outcome.duration
            if outcome.note is not None:
                self.notes[path] = outcome.note

    @property
    def times_real_time(self) -> float:
        """Seconds of audio embedded per second."""
        return self.audio_seconds / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0


def find_songs(arguments: Iterable[str | os.PathLike[str]]) -> Found:
    """The audio files that the arguments name or contain.

    Raises:
        NothingFoundError: none; the message says where was looked and what for.
    """
    unreadable: dict[str, str] = {}
    arguments = list(arguments)
    others: Counter[str] = Counter()
    files = find_audio(arguments, on_error=unreadable.__setitem__, passed_over=others)
    if not files:
        where = ", ".join(map(os.fsdecode, arguments[:3])) + (", …" if len(arguments) > 3 else "")
        reasons = "".join(f"; {path}: {reason}" for path, reason in list(unreadable.items())[:3])
        passed = f"; passed over {passed_over(others)}" if others else ""
        common = "wav, flac, mp3, ogg, opus, m4a, aiff, wma"
        raise NothingFoundError(
            f"no audio file in {where or 'an empty list'}{reasons}{passed}",
            hint=f"looked for {common} and {len(AUDIO_SUFFIXES) - 8} more suffixes, not in hidden folders; "
            "a file named by itself is taken whatever its suffix",
        )
    return Found(files, unreadable, others)


def embed(
    paths: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str] | BinaryIO,
    *,
    model: str | os.PathLike[str] = "base",
    dim: int | None = None,
    format: Format = "npy",
    dtype: FloatType = "float32",
    timestamps: float | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    begin: Callable[[], threading.Event] = threading.Event,
    **options: Any,
) -> tuple[Summary, ModelIdentity]:
    """Embed the songs that are new or have changed; where there are none, neither torch nor the model is loaded.

    Args:
        paths: audio files, and directories to search for them.
        output: a directory, or a binary stream that takes JSON Lines.
        model: as `poolembed.load` takes it.
        dim: likewise.
        format: of a directory.
        dtype: of the stored numbers.
        timestamps: also embed every stretch of so many seconds.
        overwrite: remove first what an earlier run put into the directory.
        progress: told how far it is.
        begin: called when songs are about to be embedded. Once what it returns is set, those in hand are finished and
            no other is started.
        options: device, precision, batch_size, workers, song_timeout and on_halved of `poolembed.load`.

    Returns:
        What became of the songs, and the model.

    Raises:
        NothingFoundError: there is no audio file.
        BundleError: there is no such model, or it is damaged.
        UsageError: options that are impossible here or with this model.
        OutputError: the directory is another's or cannot be written; what was written is safe.
    """
    songs = find_songs(paths)
    bundle = find_bundle(model)
    config = read_config(bundle)
    identity = ModelIdentity(config.name, fingerprint(config), check_dim(config, dim))
    check_seconds(config.model, timestamps)

    @cache
    def load() -> Model:
        from poolembed.embed import model as loading  # which takes a second or two

        return loading.load(model, dim=dim, **options)

    there = isinstance(output, str | os.PathLike) and not overwrite and (Path(output) / NAME).exists()
    if there:
        check_weights(bundle, config)
    else:
        load()  # there is something to do; and what cannot be is said before a directory is made
    stop = begin()
    sink: JsonLinesStream | OutputDirectory
    if isinstance(output, str | os.PathLike):
        sink = open_output(
            output, format=format, dtype=dtype, timestamps=timestamps, model=identity, overwrite=overwrite
        )
    else:
        sink = JsonLinesStream(output, dtype=dtype, timestamps=timestamps is not None)
    with sink:
        return embed_songs(load, songs, sink, progress, timestamps=timestamps, stop=stop), identity


def embed_songs(
    load: Callable[[], Model],
    songs: Found,
    output: OutputDirectory | JsonLinesStream,
    progress: Progress = silent,
    *,
    timestamps: float | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Embed songs into an output; those that an earlier run left there, and that have not changed, are not touched.

    Args:
        load: gives the model, and is called if there is anything to embed.
        songs: from `find_songs`.
        output: an open directory or stream.
        progress: told how far it is.
        timestamps: also embed every stretch of so many seconds; as the output was opened for.
        stop: once set, songs in hand are finished and no other is started.

    Raises:
        OutputError: the output cannot be written; what was written is safe.
        UsageError: `timestamps` is below the model's time resolution.
    """
    lost = [FoundFile(path, os.path.basename(path) or path, "") for path in songs.unreadable]  # noqa: PTH119
    plan = output.plan([*songs.files, *lost])
    jobs = [job for job in plan.todo if job.path not in songs.unreadable]
    if not output.ordered:
        # The longest first, as far as sizes tell, so that no core is left alone with a long song at the end.
        jobs.sort(key=lambda job: -(job.size or 0))
    summary = Summary(len(songs.files) + len(lost), unchanged=plan.unchanged, passed_over=songs.passed_over)
    estimate = Estimate(jobs, plan.unchanged, progress)
    began = time.perf_counter()
    done = 0
    if jobs:
        model = load()
        summary.device, summary.precision, summary.workers = model.device, model.precision, model.workers
        sources = (job.path for job in jobs)
        with closing(
            model.outcomes(sources, seconds=timestamps, ordered=output.ordered, stop=stop, on_audio=estimate.audio)
        ) as outcomes:
            for outcome in outcomes:
                job = jobs[outcome.index]
                summary.take(job.path, outcome, _keep(output, job, outcome))
                estimate.song(job, outcome)
                done += 1
    for job in plan.todo:
        if job.path in songs.unreadable:
            outcome = Failed(-1, songs.unreadable[job.path])
            summary.take(job.path, outcome, _keep(output, job, outcome))
    place = {job.path: number for number, job in enumerate(plan.todo)}
    for reasons in (summary.failures, summary.notes):
        in_order = sorted(reasons.items(), key=lambda item: place[item[0]])
        reasons.clear()
        reasons.update(in_order)
    summary.elapsed_seconds = time.perf_counter() - began
    summary.interrupted = done < len(jobs)
    return summary


def _keep(output: OutputDirectory | JsonLinesStream, job: Job, outcome: Outcome) -> str | None:
    """Write an outcome; the reason why there is no embedding of the song, or None."""
    if isinstance(outcome, Embedded):
        return output.write(job, outcome)
    output.fail(job, outcome.reason)
    return outcome.reason
