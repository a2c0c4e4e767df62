"""A model on disk: ``config.json`` + ``model.safetensors`` + ``README.md`` (the card). Nothing is ever unpickled.

A trained model may bring classifiers of what it was trained on: ``heads`` in the config and ``heads.safetensors``.

`save_bundle` writes one, `load_bundle` reads one by name or path; `poolembed.catalog` knows which there are.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec
import safetensors
from safetensors.torch import load, save
from torch import Tensor, nn

from poolembed.catalog import (
    CARD,
    CONFIG,
    FILES,
    FORMAT,
    HEADS,
    LATER,
    LONGEST_TEXT,
    WEIGHTS,
    BundleConfig,
    described,
    find_bundle,
    fingerprint,
    list_bundles,
    not_described,
    read_config,
    read_file,
)
from poolembed.errors import BundleError
from poolembed.files.reading import open_regular
from poolembed.nn.head import Head, build_head
from poolembed.nn.model import SongModel

_LEAST_BYTES, _MOST_BYTES = 2, 8  # of a number


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory.

    Attributes:
        path: its directory.
        config: its ``config.json``.
        network: the model in eval mode, float32, on the CPU.
        card: text of its ``README.md``.
        heads: its classifiers in eval mode, in the order of the config.
    """

    path: Path
    config: BundleConfig
    network: SongModel
    card: str
    heads: tuple[Head, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Identifies what the model computes: two bundles of one fingerprint give the same embeddings."""
        return fingerprint(self.config)


def save_bundle(
    directory: str | os.PathLike[str],
    network: SongModel,
    *,
    name: str,
    license: str,
    card: str,
    heads: Sequence[Head] = (),
    nested: Sequence[int] = (),
    half: bool = False,
) -> None:
    """Write a bundle; it appears whole or not at all, for without ``config.json``, the last file, it is none.

    Args:
        directory: a new one, or one without a ``config.json``, whose other files are left alone.
        network: the model.
        name: what it calls itself.
        license: SPDX identifier of the weights.
        card: text of ``README.md``.
        heads: classifiers to keep beside it.
        nested: how many of an embedding's first numbers are embeddings too.
        half: store weight matrices and kernels in float16, which halves the files; they are float32 again once loaded.

    Raises:
        BundleError: there is a bundle, or something other than a directory, already, or it cannot be written.
        ValueError: two heads of one column, or a nested size that is none.
    """
    target = Path(directory)
    if (target / CONFIG).exists() or (target.exists() and not target.is_dir()):
        raise BundleError(f"{target} exists already", hint="remove it or choose another name")
    weights = _weights_of(network, half=half)
    head_weights = _weights_of(nn.ModuleList(heads), half=half) if heads else None
    model = described(network.config)
    later = LATER.keys() & model["encoder"].keys() or any(head.config.scale == "class" for head in heads)
    config = BundleConfig(
        poolembed_bundle=FORMAT if later else 1,
        name=name,
        license=license,
        model=network.config,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        heads=tuple(head.config for head in heads),
        heads_sha256=hashlib.sha256(head_weights).hexdigest() if head_weights else None,
        nested=tuple(sorted(set(nested))),
    )
    files = {WEIGHTS: weights, CARD: card.encode("utf-8")}
    if head_weights:
        files[HEADS] = head_weights
    keys = msgspec.to_builtins(config) | {"model": model}
    files[CONFIG] = msgspec.json.format(msgspec.json.encode(keys), indent=2) + b"\n"
    partial = (target if target.exists() else target.parent) / f".{target.name}.{os.getpid()}.part"
    try:
        partial.mkdir(parents=True)
        for file, data in files.items():
            (partial / file).write_bytes(data)
        if target.exists():
            for file in files:
                (partial / file).replace(target / file)
        else:
            partial.rename(target)
    except OSError as error:
        raise BundleError(f"cannot write the bundle {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_unfinished(directory: Path) -> None:
    """Remove what a `save_bundle` that was killed left in a directory; nobody may be saving there meanwhile."""
    for partial in directory.glob(f".{glob.escape(directory.name)}.*.part"):
        shutil.rmtree(partial, ignore_errors=True)


def load_bundle(name_or_path: str | os.PathLike[str]) -> Bundle:
    """Load a bundle by the name of one at hand, or by the path of its directory.

    Raises:
        BundleNotFoundError: no such bundle; the message lists the names there are.
        BundleError: the bundle is damaged, of an unknown format, or does not fit its config.
    """
    path = find_bundle(name_or_path)
    config = read_config(path)
    network = _network(path, config)
    _load_weights(path / WEIGHTS, network, config.weights_sha256)
    sizes = {"features": config.model.embedding_size, "predictions": config.model.encoder.frame_features}
    if config.heads:
        _check_size(path / HEADS, sum(len(head.labels) * sizes[head.pool] for head in config.heads))
    heads = nn.ModuleList(build_head(head, config.model) for head in config.heads)
    if config.heads_sha256 is not None:
        _load_weights(path / HEADS, heads, config.heads_sha256)
    card = read_file(path / CARD, LONGEST_TEXT).decode("utf-8", errors="replace")
    return Bundle(path, config, network.eval(), card, tuple(cast(Head, head) for head in heads.eval()))


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of a tensor that weights cannot have, or None: with NaN in it or infinity, or a variance below 0.

    The parameters of poolings, alpha and p, may be infinite: that is the maximum.
    """
    for name, tensor in tensors.items():
        last = name.rpartition(".")[2]
        numbers = tensor.float()
        wrong = numbers.isnan() if last in ("alpha", "p") else ~numbers.isfinite()
        if bool(wrong.any()) or (last == "running_var" and bool((numbers < 0).any())):
            return name
    return None


def _check_size(path: Path, numbers: int) -> int:
    """Look at a file of weights before it is read or room is made: the bytes that it has, enough for so many numbers.

    Raises:
        BundleError: it is not there, is no regular file, or is too small.
    """
    try:
        with open_regular(path) as file:
            there = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error
    if there < _LEAST_BYTES * numbers:
        raise BundleError(
            f"{path} has {there:,} bytes, and the model that {CONFIG} describes has more than {numbers:,} numbers",
            hint="the download or copy is damaged; fetch the bundle again",
        )
    return there


def _network(path: Path, config: BundleConfig) -> SongModel:
    _check_size(path / WEIGHTS, config.model.kernels)
    try:
        return SongModel(config.model)
    except RuntimeError as error:  # torch's word for sizes that fit no memory
        raise BundleError(f"{path / CONFIG} describes a model that cannot be built: {error}") from error


def _weights_of(module: nn.Module, *, half: bool = False) -> bytes:
    halved = {key for key, value in module.named_parameters() if half and value.ndim > 1}
    tensors = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    return save({key: value.half() if key in halved else value for key, value in tensors.items()})


def _load_weights(path: Path, module: nn.Module, digest: str) -> None:
    """Fill a module from a safetensors file that must have this hash, these tensors and no others."""
    expected = module.state_dict()
    weights = read_file(path, LONGEST_TEXT + _MOST_BYTES * sum(tensor.numel() for tensor in expected.values()))
    if hashlib.sha256(weights).hexdigest() != digest:
        raise not_described(path)
    try:
        tensors = load(weights)
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise BundleError(f"{path} is not a safetensors file: {error}") from error
    wrong = sorted(expected.keys() ^ tensors.keys())
    wrong += [key for key in expected.keys() & tensors.keys() if expected[key].shape != tensors[key].shape]
    if wrong:
        raise BundleError(f"the weights in {path} do not fit {CONFIG}: {', '.join(wrong[:5])}")
    if any(expected[key].is_floating_point() != tensors[key].is_floating_point() for key in expected):
        raise BundleError(f"the weights in {path} are not of the types that they are written in")
    if (name := not_finite(tensors)) is not None:
        raise BundleError(
            f"{path} has NaN or infinite numbers in {name}",
            hint="the model was spoilt when it was trained; train it again, with a lower --lr",
        )
    module.load_state_dict(tensors, strict=True)


def describe(path: Path) -> dict[str, str | int]:
    """What there is to say about a bundle without loading its weights.

    Returns:
        name, embedding_size, sample_rate, parameters, bytes, pooling, license, about (first line of the card), path.

    Raises:
        BundleError: its config cannot be used.
    """
    config = read_config(path)
    pooling = config.model.pooling
    about = read_file(path / CARD, LONGEST_TEXT).decode("utf-8", errors="replace").strip().partition("\n")[0]
    return {
        "name": path.name,
        "embedding_size": config.model.embedding_size,
        "sample_rate": config.model.frontend.sample_rate,
        "parameters": sum(parameter.numel() for parameter in _network(path, config).parameters()),
        "bytes": sum(file.stat().st_size for file in path.iterdir() if file.name in FILES),
        "pooling": f"{pooling.kind} per {pooling.scope}" if pooling.kind in ("autopool", "gem") else pooling.kind,
        "license": config.license,
        "about": about.replace("*", "").lstrip("# "),
        "path": str(path),
    }


def describe_all() -> tuple[list[dict[str, str | int]], list[BundleError]]:
    """What there is to say about each of the bundles at hand, and what is wrong with those that cannot be used."""
    found, broken = [], []
    for path in list_bundles():
        try:
            found.append(describe(path))
        except BundleError as error:
            broken.append(error)
    return found, broken
