"""Which models are at hand, and what their ``config.json`` says; nothing here imports torch.

`poolembed.bundle` loads and saves them. At hand are those that ship with the package, then those in the directories of
``$POOLEMBED_MODELS`` (separated as ``$PATH`` is).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from poolembed.errors import BundleError, BundleNotFoundError
from poolembed.files.reading import open_regular, read_regular
from poolembed.nn.config import HeadConfig, ModelConfig, Positive

FORMAT = 2
"""The newest version of the format. A bundle is of version 1 unless it needs a key that came later, so that it can be
read, and is known by the same fingerprint, as before there was such a key."""

LATER = {"context": False, "low_pass_taps": 1}
"""Keys of the encoder that came with version 2, and what a bundle means that has none."""

CONFIG, WEIGHTS, HEADS, CARD = "config.json", "model.safetensors", "heads.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, HEADS, CARD)

LONGEST_TEXT = 1 << 24  # bytes of a config, a card or the head of a file of weights

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class BundleConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """All of ``config.json``.

    Attributes:
        poolembed_bundle: version of the format.
        name: what the model calls itself; no part of the fingerprint.
        license: SPDX identifier of the weights.
        model: what the networks are built from.
        weights_sha256: of ``model.safetensors``, in hexadecimal.
        heads: the classifiers, one a label column; no part of the fingerprint, for embeddings do not depend on them.
        heads_sha256: of ``heads.safetensors``, which is there exactly if there are heads.
        nested: how many of an embedding's first numbers are embeddings too, ascending: brought back to unit length they
            were trained as such. No part of the fingerprint, for embeddings do not depend on them.
    """

    poolembed_bundle: int
    name: str
    license: str
    model: ModelConfig
    weights_sha256: Digest
    heads: tuple[HeadConfig, ...] = ()
    heads_sha256: Digest | None = None
    nested: tuple[Positive, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.heads) != (self.heads_sha256 is not None):
            raise ValueError("heads and heads_sha256 belong together")
        if list(self.nested) != sorted({size for size in self.nested if size < self.model.embedding_size}):
            raise ValueError(f"nested {list(self.nested)} must ascend and stay below {self.model.embedding_size}")
        columns = [head.column for head in self.heads]
        if len(set(columns)) < len(columns):
            raise ValueError(f"two heads of one column: {', '.join(columns)}")


class BundleVersion(Struct):
    """The one key that every version of the format has."""

    poolembed_bundle: int


def fingerprint(config: BundleConfig) -> str:
    """SHA-256 over the model's config and the hash of its weights, in hexadecimal."""
    identity = msgspec.json.encode([1, described(config.model), config.weights_sha256], order="sorted")
    return hashlib.sha256(identity).hexdigest()


def described(model: ModelConfig) -> dict[str, Any]:
    """A model's config as plain data, without the later keys that it does not need: what it was before they came."""
    plain: dict[str, Any] = msgspec.to_builtins(model)
    encoder = plain["encoder"]
    plain["encoder"] = {key: value for key, value in encoder.items() if key not in LATER or value != LATER[key]}
    return plain


def read_config(path: Path) -> BundleConfig:
    """Read and check a bundle's ``config.json`` alone.

    Raises:
        BundleError: unknown format version, unknown or missing keys, or values that cannot be.
    """
    data = read_file(path / CONFIG, LONGEST_TEXT)
    try:
        version = msgspec.json.decode(data, type=BundleVersion).poolembed_bundle
        if not 1 <= version <= FORMAT:
            raise BundleError(
                f"{path / CONFIG} has bundle format {version}; this poolembed reads formats 1 to {FORMAT}",
                hint="upgrade poolembed" if version > FORMAT else "convert it with the version that wrote it",
            )
        json.loads(data, object_pairs_hook=_each_key_once)
        return msgspec.json.decode(data, type=BundleConfig)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path / CONFIG} is not a valid bundle config: {error}") from error


def find_bundle(name_or_path: str | os.PathLike[str]) -> Path:
    """The directory of a bundle, by name or path.

    Raises:
        BundleNotFoundError: no such bundle; the message lists the names there are.
    """
    text = os.fspath(name_or_path)
    if os.sep not in text:
        for path in list_bundles():
            if path.name == text:
                return path
    expanded = os.path.expanduser(text)  # noqa: PTH111 - Path.expanduser raises where there is no such user
    if os.path.isfile(os.path.join(expanded, CONFIG)):  # noqa: PTH113, PTH118 - nor is any name too odd for these
        return Path(expanded)
    names = ", ".join(path.name for path in list_bundles()) or "none"
    there = os.path.isdir(expanded)  # noqa: PTH112
    what = "is a directory without a config.json" if there else "is neither a model's name nor a directory"
    raise BundleNotFoundError(f"{text!r} {what}", hint=f"the models at hand are: {names}; or give a bundle's path")


def list_bundles() -> list[Path]:
    """Directories of the bundles at hand, by name; of two of one name the first found counts."""
    found: dict[str, Path] = {}
    for root in _roots():
        if root.is_dir():
            for path in sorted(root.iterdir()):
                if (path / CONFIG).is_file():
                    found.setdefault(path.name, path)
    return [found[name] for name in sorted(found)]


def check_weights(path: Path, config: BundleConfig) -> None:
    """Raise a BundleError unless a bundle has the weights that its config describes."""
    try:
        with open_regular(path / WEIGHTS) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"cannot read {path / WEIGHTS}: {error.strerror or error}") from error
    if digest != config.weights_sha256:
        raise not_described(path / WEIGHTS)


def not_described(path: Path) -> BundleError:
    """The error for weights that are not those of the config."""
    return BundleError(
        f"{path} is not the file that {CONFIG} describes: its SHA-256 differs",
        hint="the download or copy is damaged; fetch the bundle again",
    )


def _roots() -> Iterator[Path]:
    package = Path(__file__).parent
    yield package / "_models"  # in an installed wheel
    yield package.parent / "models"  # in a source checkout
    for entry in os.environ.get("POOLEMBED_MODELS", "").split(os.pathsep):
        if entry:
            yield Path(os.path.expanduser(entry))  # noqa: PTH111


def read_file(path: Path, limit: int) -> bytes:
    """All of a bundle's file; BundleError if it cannot be read, or has more bytes than `limit`."""
    try:
        return read_regular(path, limit)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error


def _each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    there = dict(pairs)
    if len(there) < len(pairs):
        twice = next(key for key in there if [name for name, _ in pairs].count(key) > 1)
        raise ValueError(f"it has {twice!r} twice")
    return there
