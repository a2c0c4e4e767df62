"""What a model's heads tell of stored embeddings, without decoding and without torch: its tags.

A head on the embedding is a matrix and a bias, so numpy does. Heads on frames are left out: embeddings have no frames.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load

from poolembed.catalog import (
    CONFIG,
    HEADS,
    LONGEST_TEXT,
    find_bundle,
    fingerprint,
    not_described,
    read_config,
    read_file,
)
from poolembed.errors import BundleError, BundleNotFoundError, UsageError
from poolembed.identity import ModelIdentity
from poolembed.nn.config import HeadConfig
from poolembed.text import printable

Labels = list[tuple[str, float]]
"""Labels and their probabilities."""


class _HasConfig(Protocol):
    @property
    def config(self) -> HeadConfig: ...


AnyHead = TypeVar("AnyHead", bound=_HasConfig)

_MOST_BYTES = 8  # of a number
_NEAREST = 5  # tags that are named where there is none of the name asked for


@dataclass(frozen=True)
class LinearHead:
    """A head on the embedding.

    Attributes:
        config: its labels, K of them.
        weight: ``(K, D)`` float32.
        bias: ``(K,)`` float32.
    """

    config: HeadConfig
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def probabilities(self, units: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities ``(n, K)`` float32 of embeddings ``(n, D)``, which are of unit length."""
        logits = units @ self.weight.T + self.bias
        if self.config.multi_label:
            return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits), np.float32)  # the sigmoid, which cannot overflow
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)


@dataclass(frozen=True)
class Tagger:
    """All that a model tells from its embeddings.

    Attributes:
        name: of the model.
        heads: one a column of labels, in the order of the bundle; at least one.
    """

    name: str
    heads: tuple[LinearHead, ...]

    @property
    def tags(self) -> list[tuple[str, str]]:
        """Column and name of every tag, in the order of the heads."""
        return [(head.config.column, label) for head in self.heads for label in head.config.labels]

    def check_size(self, size: int, source: str) -> None:
        """Raise a UsageError unless embeddings have as many numbers as the heads look at."""
        wanted = self.heads[0].weight.shape[1]
        if size != wanted:
            raise UsageError(
                f"{source} has {size} numbers a song, and the model {self.name} tells tags from all {wanted}",
                hint="leave out --dim, here or where they were embedded",
            )

    def heard(self, units: NDArray[np.float32], tags: Sequence[str]) -> NDArray[np.float32]:
        """How much some tags are heard: probabilities ``(n, len(tags))`` of embeddings ``(n, D)`` of unit length.

        A tag is named as `tags` has it, whatever the case and the spaces, or as ``column:name``. That of a name which
        several heads have is the mean of theirs.

        Raises:
            UsageError: there is no such tag; the hint has the nearest.
        """
        places = [self._find(tag) for tag in tags]
        found = {number: self.heads[number].probabilities(units) for each in places for number, _ in each}
        columns = [np.mean([found[head][:, label] for head, label in each], axis=0) for each in places]
        return np.stack(columns, axis=1)

    def _find(self, tag: str) -> list[tuple[int, int]]:
        wanted = _plain(tag)
        if wanted in self._places:
            return self._places[wanted]
        names = {_plain(label): printable(label) for _, label in self.tags}
        close = [name for name in names if wanted and wanted in name]
        close += difflib.get_close_matches(wanted, names, _NEAREST)
        close += [name for word in wanted.split() for name in names if word in name.split()]
        nearest = ", ".join(names[name] for name in list(dict.fromkeys(close))[:_NEAREST])
        raise UsageError(
            f"the model {self.name} has no tag {tag!r}",
            hint=f"{f'the nearest are: {nearest}; ' if nearest else ''}poolembed tags --list shows all",
        )

    @cached_property
    def _places(self) -> dict[str, list[tuple[int, int]]]:
        """Head and label of each name, as `_plain` has it."""
        places: dict[str, list[tuple[int, int]]] = {}
        for number, head in enumerate(self.heads):
            for at, label in enumerate(head.config.labels):
                for name in (label, f"{head.config.column}:{label}"):
                    places.setdefault(_plain(name), []).append((number, at))
        return places


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()


def load_tagger(name_or_path: str | os.PathLike[str], of: ModelIdentity | None = None) -> Tagger:
    """Load what a model tells from its embeddings.

    Args:
        name_or_path: of its bundle.
        of: the model whose embeddings they are, as far as that is known; they have to be of the same weights.

    Raises:
        BundleError: there is no such bundle, it is damaged, another model than `of`, or has no head on the embedding.
    """
    path = find_bundle(name_or_path)
    config = read_config(path)
    if of is not None and fingerprint(config) != of.fingerprint:
        raise BundleError(
            f"the embeddings are of the model {of.name} ({of.fingerprint[:8]}), and {os.fspath(name_or_path)} is "
            f"another of that name or none of it ({fingerprint(config)[:8]}): what it hears in them means nothing",
            hint="--model gives the path of theirs; or embed anew",
        )
    heads = _read_heads(path / HEADS, config.heads, config.heads_sha256, config.model.embedding_size)
    if not heads:
        raise no_head(name_or_path, "no head that tells labels from embeddings" if config.heads else "no head")
    return Tagger(config.name, heads)


def load_tagger_of(model: ModelIdentity | None, source: str, name_or_path: str | os.PathLike[str] | None) -> Tagger:
    """Load what a collection's model tells, by its own name or by that of a bundle.

    Raises:
        BundleError: as for `load_tagger`.
        UsageError: neither the collection nor `name_or_path` says which model it is.
    """
    if name_or_path is not None:
        return load_tagger(name_or_path, model)
    if model is None:
        raise UsageError(
            f"{source} does not say which model its vectors are of, so there is nobody to tell their tags",
            hint="--model names it; in Python, model= of poolembed.open",
        )
    try:
        return load_tagger(model.name, model)
    except BundleNotFoundError as error:
        raise BundleError(
            f"{source} is of the model {model.name} ({model.fingerprint[:8]}), which is not at hand",
            hint="--model gives its path; in Python, model= of poolembed.open",
        ) from error


def no_head(name_or_path: str | os.PathLike[str], what: str) -> BundleError:
    """The error for a model that knows no labels."""
    return BundleError(
        f"the model {os.fspath(name_or_path)!r} knows no labels: it has {what}",
        hint="train one on labelled clips: poolembed train clips/ -o mymodel; then --model mymodel",
    )


def choose(heads: Sequence[AnyHead], columns: Sequence[str] | None, name: str) -> tuple[AnyHead, ...]:
    """The heads of some columns, each once, in the order asked for; all of them for None.

    Raises:
        UsageError: there is no such column.
    """
    known = {head.config.column: head for head in heads}
    for column in columns or ():
        if column not in known:
            raise UsageError(f"the model {name!r} has no head {column!r}", hint=f"its heads are: {', '.join(known)}")
    return tuple(known.values() if columns is None else (known[column] for column in dict.fromkeys(columns)))


def top(head: HeadConfig, probabilities: NDArray[np.float32], count: int) -> Labels:
    """The most probable labels of ``(K,)`` probabilities, highest first; of equal ones the head's first."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [(head.labels[each], float(probabilities[each])) for each in order]


def _read_heads(path: Path, configs: Sequence[HeadConfig], digest: str | None, size: int) -> tuple[LinearHead, ...]:
    on_embeddings = {number: config for number, config in enumerate(configs) if config.pool == "features"}
    if not on_embeddings:
        return ()
    # Heads on frames have a row a label too, of as many channels as a model can have.
    limit = LONGEST_TEXT + _MOST_BYTES * sum(len(config.labels) for config in configs) * max(size, 1 << 16)
    data = read_file(path, limit)
    if hashlib.sha256(data).hexdigest() != digest:
        raise not_described(path)
    try:
        tensors = load(data)
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError) as error:
        raise BundleError(f"{path} is not a safetensors file: {error}") from error
    return tuple(_linear(path, number, config, tensors, size) for number, config in on_embeddings.items())


def _linear(
    path: Path, number: int, config: HeadConfig, tensors: dict[str, NDArray[np.generic]], size: int
) -> LinearHead:
    """The matrix and bias of a `poolembed.nn.head.EmbeddingHead`, whose rows are directions with a scale."""
    count = len(config.labels)
    shapes = {"weight": (count, size), "bias": (count,), "log_scale": (count,) if config.scale == "class" else ()}
    parts = {}
    for name, shape in shapes.items():
        tensor = tensors.get(f"{number}.{name}")
        if tensor is None or tensor.shape != shape or tensor.dtype.kind != "f":
            raise BundleError(f"the weights in {path} do not fit {CONFIG}: {number}.{name}")
        with np.errstate(over="ignore"):  # what is beyond float32 is infinite
            parts[name] = tensor.astype(np.float32)
    lengths = np.maximum(np.linalg.norm(parts["weight"], axis=1, keepdims=True), np.float32(1e-12))
    with np.errstate(over="ignore", invalid="ignore"):
        weight = parts["weight"] / lengths * np.exp(parts["log_scale"]).reshape(-1, 1)
    if not (np.isfinite(weight).all() and np.isfinite(parts["bias"]).all()):
        raise BundleError(f"{path} has NaN or infinite numbers in the head {config.column}")
    return LinearHead(config, weight, parts["bias"])
