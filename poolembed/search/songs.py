"""A collection of songs to search, as `poolembed.open` makes it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from poolembed.audio.tags import Tags, read_tags
from poolembed.errors import AudioError, BundleNotFoundError, PoolembedError, UsageError, VectorsError
from poolembed.heads import Tagger, choose, load_tagger_of
from poolembed.identity import ModelIdentity
from poolembed.progress import Progress, silent
from poolembed.search.answers import Answer, Answers, Hit
from poolembed.search.collection import Collection, open_collection, read_durations
from poolembed.search.exact import QUERIES, ExactSearch, Searcher
from poolembed.search.heard import nearest_heard
from poolembed.search.index import is_index, open_index
from poolembed.search.lance import TableSearch, is_lance, open_table, table_collection
from poolembed.search.queries import Query, check_model, every_row, mean_query, read_queries, unit_vector
from poolembed.search.tagging import TaggedSong, TagSearch, tag_songs
from poolembed.text import printable

if TYPE_CHECKING:
    from poolembed.embed.device import DeviceName, PrecisionName
    from poolembed.embed.model import Model
    from poolembed.search.duplicates import Duplicates

Wanted = str | os.PathLike[str] | npt.ArrayLike
"""A song, by its path, or a vector ``(D,)``."""

_ONE = (str, os.PathLike, np.ndarray)  # in a list, one of several queries; a list of numbers is a vector
_REMEMBERED = 1 << 16  # songs whose tags are read once though they are neighbours of several


class Songs:
    """The songs of a collection: search them, look at their vectors. `poolembed.open` makes it.

    ``len`` is the number of songs, and iterating gives their paths. Rows of `vectors` are in the order of `paths`.

    Attributes:
        collection: the vectors with all that is known of them.
    """

    def __init__(
        self,
        collection: Collection,
        searcher: Searcher,
        *,
        model: str | os.PathLike[str] | None = None,
        shorten: bool = False,
        run: Mapping[str, Any] | None = None,
    ) -> None:
        self.collection = collection
        self._searcher = searcher
        self._model_name = model
        self._loaded: Model | None = None
        self._run = run or {}  # how the model runs, as `poolembed.load` takes it
        self._shorten = shorten  # queries of more numbers than the collection's vectors have
        self._tags = lru_cache(_REMEMBERED)(read_tags)

    def __len__(self) -> int:
        return len(self.collection)

    def __iter__(self) -> Iterator[str]:
        return iter(self.collection.paths)

    def __repr__(self) -> str:
        of = f", of the model {self.model.name}" if self.model else ""
        return f"<{len(self)} songs of {self.collection.source}, {self.collection.size} numbers each{of}>"

    @property
    def vectors(self) -> NDArray[Any]:
        """``(N, D)`` as stored, read-only; mapped from the disk where they are one ``.npy`` file or an index.

        Of a table it is no array, but has ``shape`` and ``dtype``, and reads the rows that are asked for.
        """
        return self.collection.matrix

    @cached_property
    def paths(self) -> list[str]:
        """The path of each song, from the root where ``poolembed embed`` wrote them; else as given, or row numbers."""
        return list(self.collection.paths)

    @property
    def has_paths(self) -> bool:
        """Whether `paths` are more than row numbers."""
        return self.collection.named

    @property
    def model(self) -> ModelIdentity | None:
        """The name, fingerprint and embedding_size of the model whose vectors these are; None where nothing says so."""
        return self.collection.model

    @cached_property
    def durations(self) -> dict[str, float]:
        """Path -> decoded seconds, of the songs whose length the collection's manifest or table tells."""
        return read_durations(self.collection)

    def search(
        self,
        query: Wanted | Sequence[Any] | None = None,
        k: int = 10,
        *,
        tags: Sequence[str] = (),
        sample_rate: int | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        with_query: bool = False,
    ) -> list[Hit]:
        """The songs that are nearest to a song, a vector or a recording, by cosine, or that tags fit, the best first.

        Args:
            query: a song of the collection, by its path or key, which is not decoded again; another audio file; an
                ``.npy`` file of vectors; a vector ``(D,)``; or, with `sample_rate`, samples ``(n,)`` or
                ``(channels, n)``. Several of them in a list, but samples, get one answer, about their mean. None for
                tags alone.
            k: how many; there are fewer where the collection has fewer.
            tags: what is to be heard, by names that `tagger` has. Songs come in the order of the geometric mean of
                these tags' probabilities; with a query too, in that of its product with the cosine.
            sample_rate: of samples, in Hz.
            include: globs; find only songs whose key or path matches one. ``*`` matches ``/`` too.
            exclude: globs; find no song that matches one.
            with_query: let a song of the collection be found itself.

        Raises:
            VectorsError: there is no such song, the vector is zero, not finite or of another size, the collection is
                of another model than the query or of one that is not at hand, or no song is left by the globs.
            AudioError: the audio cannot be decoded.
            BundleError: there are tags, and the collection's model knows none, or is not at hand.
            UsageError: `k` is no whole number from 1 on, globs or tags are not in a list, there is no such tag, or it
                is not known which model made the collection and `open` was told none.
        """
        wanted: Any = query
        if sample_rate is not None:
            if isinstance(wanted, str | os.PathLike):
                raise UsageError("sample_rate is for samples, and a file has its own", hint="leave it out")
            wanted = self._load("samples").embed(wanted, sample_rate=sample_rate)[: self.collection.size]
        if not (isinstance(wanted, list | tuple) and any(isinstance(each, _ONE) for each in wanted)):
            wanted = [] if wanted is None else [wanted]
        answers = self.search_each(
            wanted, k, tags=tags, mean=True, include=include, exclude=exclude, with_query=with_query
        )
        for name, error in answers.failures.items():
            hint = error.hint
            if isinstance(query, np.ndarray) and query.shape[-1:] != (self.collection.size,):
                hint = hint or "with sample_rate they are taken for samples"
            raise type(error)(f"{name}: {error.message}", hint=hint)
        if not answers.asked:
            raise UsageError("nothing to search for")
        (answer,) = answers
        return answer.hits

    def search_each(
        self,
        queries: Iterable[Wanted] | None,
        k: int = 10,
        *,
        tags: Sequence[str] = (),
        mean: bool = False,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        with_query: bool = False,
        stdin: bytes | None = None,
        on_note: Callable[[str], None] = lambda _: None,
    ) -> Answers:
        """An answer for each of several queries; what cannot be searched for is told, and costs only itself.

        Args:
            queries: as those of `search`; None for every song of the collection. With tags there may be none, and one
                answer.
            k: how many songs for each.
            tags: as of `search`, for every query.
            mean: one answer instead, for the mean of all queries.
            include: as of `search`, as all that follow.
            exclude: see there.
            with_query: see there.
            stdin: what the query ``-`` stands for: JSON Lines as ``poolembed embed -o -`` writes them, or ``.npy``.
            on_note: told what is being embedded, and what is wrong with a file that was embedded all the same.

        Raises:
            VectorsError: no song is left by the globs, a vector is known to be of another model, or the collection's
                model is not at hand.
            BundleError: as of `search`.
            UsageError: `k` is below 1, the model is not known, or has no such tag.
        """
        if not isinstance(k, int | np.integer) or k < 1:
            raise UsageError(f"k must be at least 1 and a whole number, got {k!r}")
        if any(isinstance(each, str) for each in (include, exclude, tags)):  # every letter would be one
            raise UsageError("include, exclude and tags are lists, not one string")
        allowed = self.collection.matching(include, exclude)
        tagged = TagSearch(self.collection, self.tagger, tags) if tags else None
        answer = partial(self._answer, k=k, allowed=allowed, with_query=with_query, tagged=tagged)
        if queries is None:
            return Answers({}, len(self), answer(every_row(self.collection)))
        found, failures = self._read(queries, stdin, on_note)
        if tagged is not None and not found and not failures:
            best = enumerate(tagged.best(k, allowed).tolist(), start=1)
            return Answers({}, 1, [Answer(" + ".join(tags), [self._hit(*each, None, tagged) for each in best])])
        several = [mean_query(found)] if mean and len(found) > 1 else found
        return Answers(failures, len(several), answer(several))

    def neighbours(self, k: int = 5) -> Iterator[Answer]:
        """Every song's nearest others: pairs of its path and its hits, in the order of `paths`, as they are found."""
        return iter(self.search_each(None, k))

    @cached_property
    def tagger(self) -> Tagger:
        """What the collection's model tells from vectors; its `tags` are all that can be searched for.

        Raises:
            BundleError: the model is not at hand, or has no head on embeddings.
            UsageError: the model is not known, or the vectors are not all of its numbers.
        """
        tagger = load_tagger_of(self.model, self.collection.source, self._model_name)
        tagger.check_size(self.collection.size, self.collection.source)
        return tagger

    def tags(
        self, *, columns: Sequence[str] | None = None, count: int = 3, progress: Progress = silent
    ) -> Iterator[TaggedSong]:
        """What the collection's model hears in every song, in the order of `paths`; nothing is decoded.

        Args:
            columns: the label columns to tell; None for all that the model knows.
            count: how many labels of each, the likeliest.
            progress: told how far it is.

        Raises:
            VectorsError: a vector is zero, or not finite.
            BundleError: as of `tagger`.
            UsageError: likewise; or there is no such column.
        """
        heads = choose(self.tagger.heads, columns, self.tagger.name)
        return tag_songs(self.collection, Tagger(self.tagger.name, heads), count, progress)

    def duplicates(
        self,
        *,
        threshold: float | None = None,
        tolerance: float | None = None,
        progress: Progress = silent,
    ) -> Duplicates:
        """The same recordings under other names, bitrates and formats. See `find_duplicates`; nothing is deleted.

        Args:
            threshold: cosine from which on two are one recording; None for 0.8, which fits base, and more below 10 s.
            tolerance: seconds that their lengths may differ, where known; None for 2, and less of songs below 10 s.
            progress: told how far it is.
        """
        from poolembed.search.duplicates import find_duplicates  # which needs the decoders

        return find_duplicates(self.collection, threshold=threshold, tolerance=tolerance, progress=progress)

    def _answer(
        self,
        queries: Iterable[Query],
        k: int,
        allowed: NDArray[np.bool_] | None,
        with_query: bool,
        tagged: TagSearch | None,
    ) -> Iterator[Answer]:
        queries, searcher = iter(queries), self._searcher if tagged is None else tagged
        while batch := list(itertools.islice(queries, QUERIES)):
            own = [set() if with_query else set(query.rows) for query in batch]
            vectors = np.stack([query.vector for query in batch])
            found = nearest_heard(self.collection, searcher, vectors, k + max(map(len, own)), allowed)
            each = zip(batch, own, found.rows.tolist(), found.cosines.tolist(), strict=True)
            for query, without, rows, cosines in each:
                pairs = (pair for pair in zip(rows, cosines, strict=True) if pair[0] >= 0 and pair[0] not in without)
                first = enumerate(itertools.islice(pairs, k), start=1)
                yield Answer(query.name, [self._hit(rank, *pair, tagged) for rank, pair in first])

    def _hit(self, rank: int, row: int, cosine: float | None, tagged: TagSearch | None) -> Hit:
        path = self.collection.paths[row]
        tags = self._tags(path) if self.has_paths else Tags()
        names = tags.title, tags.artist, self.collection.keys[row]
        return Hit(path, None if cosine is None else round(cosine, 6), *names, rank, tagged.of(row) if tagged else ())

    def _read(
        self, asked: Iterable[Any], stdin: bytes | None, on_note: Callable[[str], None]
    ) -> tuple[list[Query], dict[str, PoolembedError]]:
        """The queries, those that are audio embedded, and what is wrong with others."""
        found, failures = read_queries(asked, self.collection, stdin, shorten=self._shorten)
        files = [each for each in found if isinstance(each, str)]
        embedded: dict[str, Query] = {}
        if files:
            from poolembed.embed.song import Failed

            model = self._load(files[0])
            if len(files) > 1:
                on_note(f"{len(files)} songs to embed")
            with closing(model.outcomes(files)) as outcomes:
                for outcome in outcomes:
                    path = files[outcome.index]
                    if isinstance(outcome, Failed):
                        failures[path] = AudioError(outcome.reason)
                        continue
                    try:
                        embedded[path] = Query(path, unit_vector(outcome.embedding, self.collection, shorten=True))
                    except VectorsError as error:
                        failures[path] = error
                        continue
                    if outcome.note is not None:
                        on_note(f"{printable(path)}: {outcome.note}")
        queries = (embedded.get(each) if isinstance(each, str) else each for each in found)
        return [query for query in queries if query is not None], failures

    def _load(self, query: str) -> Model:
        """The model that embeds queries, loaded once, which has to be the collection's; `query` needs it first."""
        if self._loaded is not None:
            return self._loaded
        from poolembed.embed.model import load

        own = self.model
        if self._model_name is not None:
            loaded = load(self._model_name, **self._run)
        elif own is None:
            raise UsageError(
                f"{self.collection.source} does not say which model its vectors are of, so {query} cannot be embedded",
                hint="--model names it; in Python, model= of poolembed.open",
            )
        else:
            try:
                loaded = load(own.name, **self._run)
            except BundleNotFoundError as error:
                raise VectorsError(
                    f"{self.collection.source} is of the model {own.name} ({own.fingerprint[:8]}), which is not at "
                    "hand",
                    hint="--model gives its path; in Python, model= of poolembed.open",
                ) from error
        identity = ModelIdentity(loaded.name, loaded.fingerprint, loaded.embedding_size)
        check_model(identity, self.collection, f"the query {query}")
        self._loaded = loaded
        return loaded


def open_songs(
    source: str | os.PathLike[str] = "embeddings",
    paths: str | os.PathLike[str] | None = None,
    *,
    dim: int | None = None,
    model: str | os.PathLike[str] | None = None,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    workers: int | None = None,
) -> Songs:
    """Open a collection to search it. Vectors are mapped from the disk, and no model is loaded before one is needed.

    Args:
        source: what ``poolembed embed`` wrote, in any format; an ``.npy`` matrix ``(N, D)`` of any system; or what
            ``poolembed index`` or ``poolembed push`` wrote.
        paths: for a bare matrix, the text file with the path of each row; without it, songs are called by their rows.
        dim: compare the first so many numbers of every vector alone, of nested embeddings.
        model: name or path of the model that embeds audio to search for, and tells tags; by default the collection's
            own, by its name.
        device: where that model runs; as the following, see `poolembed.load`.
        precision: what it computes in.
        workers: threads.

    Raises:
        VectorsError: there is nothing of the kind, or it cannot be read.
        OutputError: its manifest is damaged.
        UsageError: `paths` or `dim` does not go with `source`.
    """
    place = os.fspath(source)
    searcher: Searcher
    if is_lance(place):
        _refuse(place, "a table", paths, dim)
        table = open_table(place)
        collection, searcher = table_collection(table), TableSearch(table)
    elif is_index(place):
        _refuse(place, "an index", paths, dim)
        index = open_index(place)
        collection, searcher = index.collection, index
    elif not os.path.exists(place):  # noqa: PTH110
        raise VectorsError(
            f"no collection {place}: no such file or directory",
            hint="poolembed embed ~/Music makes ./embeddings",
        )
    else:
        collection = open_collection(place, paths)
        if dim is not None:
            collection = collection.cut(dim)
        searcher = ExactSearch(collection)
    run: dict[str, Any] = {"device": device, "precision": precision, "workers": workers}
    return Songs(collection, searcher, model=model, shorten=dim is not None, run=run)


def _refuse(source: str, what: str, paths: object, dim: object) -> None:
    for option, value, why in (("--paths", paths, "has its own"), ("--dim", dim, "is searched as it was made")):
        if value is not None:
            raise UsageError(f"{option} does not go with {source}: {what} {why}")
