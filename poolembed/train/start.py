"""The model that a run starts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import torch

from poolembed.bundle import load_bundle
from poolembed.errors import UsageError
from poolembed.nn.config import ModelConfig, PoolingConfig
from poolembed.nn.frontend import mel_filterbank
from poolembed.nn.model import SongModel
from poolembed.train.cache import MelCache, dequantise
from poolembed.train.config import TrainConfig

SCRATCH = "scratch"

_FRAMES = 200_000
"""Mel frames, about an hour of them, that the bands' mean and deviation are taken from."""


def start_model(config: TrainConfig) -> SongModel:
    """The model to train: of ``config.init``, with the pooling that is asked for.

    Weights that fit are taken over. A pooling that is not asked for keeps what the bundle learned; one that is starts
    where its options say. Where it gives another number of features, the projection starts afresh.

    Raises:
        BundleError: there is no such bundle.
        UsageError: options that do not go together.
    """
    torch.manual_seed(config.seed)
    if config.init == SCRATCH:
        model = config.model or ModelConfig()
        return SongModel(_with_pooling(model, config), mel_filterbank(model.frontend))
    if config.model is not None:
        raise UsageError("the architecture [model] is for --init scratch", hint="a bundle brings its own")
    network = load_bundle(config.init).network
    wanted = _with_pooling(network.config, config)
    if wanted == network.config:
        return network
    fresh = SongModel(wanted, network.frontend.filterbank)
    shapes = {name: tensor.shape for name, tensor in fresh.state_dict().items()}
    learned = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if shapes.get(name) == tensor.shape and not name.startswith("pools.0.")
    }
    fresh.load_state_dict(learned, strict=False)
    return fresh


def pooling_asked(config: TrainConfig, start: PoolingConfig) -> PoolingConfig:
    """A pooling with what the options say, and the rest as it was.

    Raises:
        UsageError: an option of another pooling.
    """
    kind = config.pooling or start.kind
    named = {
        "autopool": {"alpha": config.alpha, "alpha_max": config.alpha_max, "alpha_l2": config.alpha_l2},
        "gem": {"p": config.p},
    }
    for owner, options in named.items():
        for option, value in options.items():
            if value is not None and kind != owner:
                raise UsageError(
                    f"{option} is an option of {owner}, and the pooling is {kind}", hint=f"use --pooling {owner}"
                )
    if config.pooling_scope is not None and kind not in named:
        raise UsageError(f"pooling {kind} has no parameter that a scope could be of", hint="drop --pooling-scope")
    wanted: dict[str, Any] = {"scope": config.pooling_scope, **named.get(kind, {})}
    given = {name: value for name, value in wanted.items() if value is not None}
    base = start if kind == start.kind else PoolingConfig(kind=kind)
    if "alpha_max" in given:  # a bound below where alpha would start is where it starts
        given.setdefault("alpha", min(base.alpha, given["alpha_max"]))
    try:
        return msgspec.convert({**msgspec.to_builtins(base), **given}, PoolingConfig)
    except msgspec.ValidationError as error:
        raise UsageError(f"the pooling's options contradict each other: {error}") from error


def set_band_statistics(model: SongModel, cache: MelCache, rows: Sequence[int]) -> None:
    """Normalise mel bands by mean and variance of the real frames of clips: a share of each if there are many."""
    share = max(1, sum(cache.frames(row) for row in rows) // _FRAMES)
    total = torch.zeros(2, cache.n_mels, dtype=torch.float64)
    count = 0
    for row in rows:
        mel = dequantise(torch.from_numpy(cache.clip(row)[::share].copy()), cache.log_floor).double()
        total += torch.stack([mel.sum(0), mel.square().sum(0)])
        count += len(mel)
    mean = total[0] / count
    norm = model.mel_norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    # A band that is always silent varies by nothing, and would be blown up.
    norm.running_var.copy_((total[1] / count - mean.square()).clamp_min(0.1))


def _with_pooling(model: ModelConfig, config: TrainConfig) -> ModelConfig:
    if config.pool == "predictions":  # the options are for the pooling of the predictions
        return model
    return msgspec.structs.replace(model, pooling=pooling_asked(config, model.pooling))
