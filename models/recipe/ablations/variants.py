"""What is left out or changed, one thing at a time, and the clips that the runs are given."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import structs

from poolembed.nn.config import ModelConfig
from poolembed.train.config import AugmentConfig, ObjectiveConfig, TrainConfig
from poolembed.train.configfile import as_config, as_settings
from poolembed.train.dataset import LABELLED
from poolembed.train.start import SCRATCH, pooling_asked

Row = Mapping[str, str]
"""A clip as a row of the corpus' table."""


@dataclass(frozen=True)
class Variant:
    """One thing left out or changed.

    Attributes:
        objectives: left out; kinds of them, or names as `objective_name` has them.
        kinds: of clips, left out.
        settings: what keys of the configuration are instead, with dots for those of its tables.
    """

    objectives: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


FULL = "full"
SECTIONS = {
    "loss": "Without the loss",
    "clips": "Without the clips",
    "augment": "Without the augmentation",
    "pooling": "With the pooling",
    "model": "Without, in the model",
}
"""First words of the variants' names, and what they say."""

_LOSSES = {
    **{name: (name,) for name in ("mn04-penultimate", "mn04-blocks", "mn04-logits")},
    "musicnn-jamendo": ("musicnn-jamendo-penultimate", "musicnn-jamendo-logits"),
    "distillation": ("distill",),
    "supcon": ("supcon",),
    "pitch+program+chord": ("pitch", "program", "chord"),
    **{name: (name,) for name in ("drum", "instruments", "artist")},
    "all-but-distillation": ("classification", "supcon", "contrastive"),
}
_CLIPS = {
    **{name: (name,) for name in ("music", "modules", "copies", "effects", "speech", "mixes")},
    "notes+chords": ("notes", "chords"),
    "drums+oneshots": ("drums", "drum notes", "oneshots"),
    "phrases+pieces": ("phrases", "pieces"),
}
_AUGMENT: dict[str, dict[str, Any]] = {
    "all": {"augment": dict.fromkeys(AugmentConfig.__struct_fields__, 0.0)},
    "gain": {"augment.gain_db": 0.0},
    "equalizer": {"augment.equalizer_db": 0.0},
    "low-pass": {"augment.low_pass": 0.0},
}
_POOLINGS: dict[str, dict[str, str]] = {
    **{kind: {"kind": kind} for kind in ("mean", "max", "mean+max", "softmax", "attention", "attentive-statistics")},
    **{
        f"{kind}-{scope}": {"kind": kind, "scope": scope}
        for kind in ("autopool", "gem")
        for scope in ("scalar", "channel")
    },
}

VARIANTS = {
    FULL: Variant(),
    **{f"loss-{name}": Variant(objectives=names) for name, names in _LOSSES.items()},
    "loss-nested": Variant(settings={"nested": []}),
    **{f"clips-{name}": Variant(kinds=kinds) for name, kinds in _CLIPS.items()},
    **{f"augment-{name}": Variant(settings=settings) for name, settings in _AUGMENT.items()},
    **{f"pooling-{name}": Variant(settings={"model.pooling": pooling}) for name, pooling in _POOLINGS.items()},
    "model-mid-levels": Variant(settings={"model.mid_levels": False}),
    "model-mel-statistics": Variant(settings={"model.mel_statistics": False}),
}


def objective_name(objective: ObjectiveConfig) -> str:
    """``mn04-blocks`` of a teacher's file, the column of a classification, otherwise the kind."""
    if objective.targets is not None:
        return Path(objective.targets).stem
    return objective.column if objective.kind == "classification" else objective.kind


def spelt_out(config: TrainConfig) -> TrainConfig:
    """The same run with its pooling in ``model``, where defaults stand out, rather than in options beside it.

    Raises:
        ValueError: it starts from a bundle, which brings its own architecture, or pools predictions.
    """
    if config.init != SCRATCH or config.pool != "features":
        raise ValueError('the configuration must have init = "scratch" and pool features')
    model = config.model or ModelConfig()
    model = structs.replace(model, pooling=pooling_asked(config, model.pooling))
    options = dict.fromkeys(("pooling", "pooling_scope", "alpha", "alpha_max", "alpha_l2", "p"))
    return structs.replace(config, model=model, **options)


def apply(variant: Variant, full: TrainConfig) -> TrainConfig:
    """The configuration of a variant, given that of the full run, spelt out; which clips it has is up to `usable`."""
    settings = as_settings(full)
    left_out = set(variant.objectives)
    settings["objectives"] = [
        plain
        for plain, objective in zip(settings["objectives"], full.objectives, strict=True)
        if not left_out & {objective.kind, objective_name(objective)}
    ]
    for key, value in variant.settings.items():
        *tables, last = key.split(".")
        place = settings
        for table in tables:
            place = place[table]
        place[last] = value
    return as_config(settings, str)


def changes(variant: Variant, full: TrainConfig, kinds: set[str]) -> bool:
    """Whether a variant is another run than the full one, and one that learns anything.

    Args:
        variant: any.
        full: configuration of the full run, spelt out.
        kinds: of clips that there are.
    """
    config = apply(variant, full)
    return bool(config.objectives) and (config != full or not kinds.isdisjoint(variant.kinds))


def usable(rows: Sequence[Row], variant: Variant, objectives: Sequence[ObjectiveConfig]) -> list[Row]:
    """Rows without the training clips that a variant leaves out, or that its objectives make nothing of.

    A run drops clips without any label if all its objectives read labels; others have to come in their place.
    """
    columns = {objective.column for objective in objectives}
    need_labels = all(objective.kind in LABELLED for objective in objectives)
    return [
        row
        for row in rows
        if not _trains(row)
        or (row["kind"] not in variant.kinds and (not need_labels or any(row[column] for column in columns)))
    ]


def teachable(objectives: Sequence[ObjectiveConfig], rows: Sequence[Row]) -> tuple[ObjectiveConfig, ...]:
    """Those objectives whose column has two labels at least in the training clips, and those that need none."""
    labels = {
        column: {label for row in rows if _trains(row) for label in row[column].split(";") if label}
        for column in {objective.column for objective in objectives if objective.kind in LABELLED}
    }
    return tuple(each for each in objectives if each.kind not in LABELLED or len(labels[each.column]) > 1)


def draw(rows: Sequence[Row], train: int, valid: int, *, seed: int) -> list[Row]:
    """Rows of a smaller table, in their order: a share of the clips of each kind, the same share of all.

    Each clip has a lot that the seed alone decides, so that what is drawn without some kind, or for more steps, holds
    what is drawn otherwise and more, but for a clip that rounding takes. Validation clips are the same for all seeds.

    Args:
        rows: of the whole table, or those that are `usable`.
        train: how many training clips.
        valid: how many of the others, if there are so many.
        seed: of the training clips.

    Raises:
        ValueError: there are not so many training clips.
    """
    drawn: list[int] = []
    for trains, wanted in ((True, train), (False, valid)):
        by_kind: dict[str, list[int]] = defaultdict(list)
        for number, row in enumerate(rows):
            if _trains(row) == trains:
                by_kind[row["kind"]].append(number)
        there = {kind: len(numbers) for kind, numbers in by_kind.items()}
        total = sum(there.values())
        if trains and total < wanted:
            raise ValueError(f"{wanted} training clips are needed, and there are {total}")
        for kind, count in _shares(there, min(wanted, total)).items():
            lots = sorted(by_kind[kind], key=lambda number: _lot(rows[number], seed if trains else 0))
            drawn += lots[:count]
    return [rows[number] for number in sorted(drawn)]


def _trains(row: Row) -> bool:
    return row["split"] == "train"


def _lot(row: Row, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {row['path']} {row['start']}".encode(), digest_size=8).digest()


def _shares(there: Mapping[str, int], wanted: int) -> dict[str, int]:
    """How many to take of each, in proportion: rounded down, and one more where most was cut off."""
    total = max(sum(there.values()), 1)
    shares = {kind: count * wanted // total for kind, count in there.items()}
    cut_off = sorted(there, key=lambda kind: (-(there[kind] * wanted % total), kind))
    for kind in cut_off[: wanted - sum(shares.values())]:
        shares[kind] += 1
    return shares
