"""The library's front door: `load` a model, `Model.embed` a song or `Model.embed_files` many."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from poolembed.audio.decode import UNSCALED
from poolembed.audio.mixing import is_silent
from poolembed.audio.source import Source
from poolembed.bundle import Bundle, load_bundle
from poolembed.catalog import BundleConfig
from poolembed.embed.crew import SONG_TIMEOUT
from poolembed.embed.device import (
    DTYPES,
    DeviceName,
    PrecisionName,
    choose_device,
    choose_precision,
    default_batch_size,
    ignore,
    usable_cores,
)
from poolembed.embed.engine import Engine
from poolembed.embed.nested import check_dim, shortened
from poolembed.embed.silence import silence
from poolembed.embed.song import Embedded, Failed, Outcome
from poolembed.errors import AudioError, FilesFailedError
from poolembed.nn.model import SongModel

AudioPath = str | os.PathLike[str]


def load(
    name_or_path: AudioPath = "base",
    *,
    dim: int | None = None,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    song_timeout: float = SONG_TIMEOUT,
    on_halved: Callable[[int], None] = ignore,
) -> Model:
    """Load a model by the name of a bundle at hand or by the path of one.

    Args:
        name_or_path: see ``poolembed models`` for the names.
        dim: give the first so many numbers of each embedding, at unit length: one of the sizes that the model was
            trained for (``config.nested``); None for all.
        device: where the network runs: auto, cpu, cuda or mps.
        precision: what the encoder computes in: auto, fp32, bf16 or fp16.
        batch_size: windows per batch; None for what suits the device and the model.
        workers: threads; None for one per core.
        song_timeout: give up a song whose decoding makes no progress for so many seconds; 0 for never.
        on_halved: told the new batch size if the device runs out of memory.

    Raises:
        BundleError: there is no such bundle, or it is damaged.
        UsageError: there is no such device here, or the model was not trained for `dim`.
    """
    bundle = load_bundle(name_or_path)
    check_dim(bundle.config, dim)
    engine = build_engine(
        bundle.network,
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        song_timeout=song_timeout,
        on_halved=on_halved,
    )
    return Model(bundle, engine, dim)


def build_engine(
    model: SongModel,
    *,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    song_timeout: float = SONG_TIMEOUT,
    on_halved: Callable[[int], None] = ignore,
) -> Engine:
    """An engine that runs a model in eval mode; the options are those of `load`.

    Raises:
        UsageError: there is no such device here.
    """
    where = choose_device(device)
    return Engine(
        model.requires_grad_(False),
        model.for_inference(where, choose_precision(precision, where)),
        batch_size=default_batch_size(where, model.config) if batch_size is None else batch_size,
        workers=usable_cores() if workers is None else workers,
        song_timeout=song_timeout,
        on_halved=on_halved,
    )


class Model:
    """A model that is ready to embed. Made by `load`.

    The same song gets the same embedding, whatever else is embedded beside it, in whatever order, batch size or number
    of threads.
    """

    def __init__(self, bundle: Bundle, engine: Engine, dim: int | None = None) -> None:
        self._bundle = bundle
        self._engine = engine
        self._size = check_dim(bundle.config, dim)

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self._bundle.config.name

    @property
    def config(self) -> BundleConfig:
        """The bundle's ``config.json``."""
        return self._bundle.config

    @property
    def card(self) -> str:
        """The bundle's card, Markdown: data, licence, scores, intended use."""
        return self._bundle.card

    @property
    def fingerprint(self) -> str:
        """Identifies what the model computes; vectors of one fingerprint and one size may be compared."""
        return self._bundle.fingerprint

    @property
    def embedding_size(self) -> int:
        """Length D of an embedding, as it is given out."""
        return self._size

    @property
    def sample_rate(self) -> int:
        """The rate, in Hz, that all audio is resampled to."""
        return self._bundle.config.model.frontend.sample_rate

    @property
    def time_resolution(self) -> float:
        """The shortest stretch, in seconds, that can have a vector of its own."""
        return self._bundle.config.model.time_resolution

    @property
    def device(self) -> str:
        """Where the network runs: cpu, cuda or mps."""
        return self._engine.network.device.type

    @property
    def precision(self) -> str:
        """What the encoder computes in: fp32, bf16 or fp16."""
        return next(name for name, dtype in DTYPES.items() if dtype == self._engine.network.dtype)

    @property
    def workers(self) -> int:
        """Number of worker threads."""
        return self._engine.workers

    def embed(self, song: AudioPath | npt.ArrayLike, *, sample_rate: int | None = None) -> NDArray[np.float32]:
        """Embed one song.

        Args:
            song: a path, or samples ``(n,)`` or ``(channels, n)``, whatever numpy takes for an array: floating point
                with full scale 1, or integers.
            sample_rate: of the samples, in Hz; required for an array and refused for a path.

        Returns:
            ``(D,)`` float32, unit length; of a song without a sound above -80 dB the vector of silence, whose numbers
            are all the same and negative.

        Raises:
            AudioError: the song cannot be decoded or holds no audio.
            UsageError: the samples' shape or type makes no sense.

        Warns:
            UserWarning: samples far beyond full scale, as integers are that were made floats and not scaled.
        """
        (outcome,) = self.outcomes([_source(song, sample_rate)])
        where = os.fspath(song) if isinstance(song, str | os.PathLike) else "samples"
        if isinstance(outcome, Failed):
            raise AudioError(f"{where}: {outcome.reason}")
        if outcome.note is not None and UNSCALED in outcome.note:
            warnings.warn(f"{where}: {outcome.note}", stacklevel=2)
        embedding: NDArray[np.float32] = outcome.embedding
        return embedding

    def embed_files(
        self,
        paths: Iterable[AudioPath],
        *,
        on_error: Callable[[str, str], None] | None = None,
    ) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Embed many files, batched across them; yields (path, ``(D,)`` float32) in their order, as they are ready.

        Args:
            paths: audio files. They are taken ahead of what is yielded, from other threads.
            on_error: told path and reason of a file that cannot be embedded. Without it, an error that names all such
                files is raised at the end, after the others were yielded.

        Raises:
            FilesFailedError: at the end, if files failed and there is no `on_error`.
        """
        if isinstance(paths, str | os.PathLike):
            raise TypeError(f"embed_files takes many paths, and got one: use embed({os.fspath(paths)!r})")
        taken: dict[int, str] = {}
        failures: dict[str, str] = {}
        for outcome in self.outcomes(_noting(paths, taken)):
            path = taken.pop(outcome.index)
            if isinstance(outcome, Embedded):
                yield path, outcome.embedding
            elif on_error is not None:
                on_error(path, outcome.reason)
            else:
                failures[path] = outcome.reason
        if failures:
            raise FilesFailedError(failures)

    def outcomes(
        self,
        sources: Iterable[Source],
        *,
        seconds: float | None = None,
        ordered: bool = True,
        stop: threading.Event | None = None,
        on_audio: Callable[[float], None] = lambda _: None,
    ) -> Generator[Outcome]:
        """What became of each source; see `Engine.run`. Silent songs have the vector `silence`."""
        with closing(
            self._engine.run(sources, seconds=seconds, ordered=ordered, stop=stop, on_audio=on_audio)
        ) as outcomes:
            for outcome in outcomes:
                if isinstance(outcome, Embedded) and is_silent(outcome.note):
                    outcome = replace(outcome, embedding=silence(self._size))  # noqa: PLW2901
                yield shortened(outcome, self._size)


def _noting(paths: Iterable[AudioPath], taken: dict[int, str]) -> Iterator[str]:
    for index, path in enumerate(paths):
        taken[index] = os.fspath(path)
        yield taken[index]


def _source(song: AudioPath | npt.ArrayLike, sample_rate: int | None) -> Source:
    if isinstance(song, str | os.PathLike):
        if sample_rate is not None:
            raise TypeError("sample_rate is for samples; a file has its own")
        return os.fspath(song)
    if sample_rate is None:
        raise TypeError("sample_rate is required for samples: embed(samples, sample_rate=44100)")
    return np.asarray(song), sample_rate
