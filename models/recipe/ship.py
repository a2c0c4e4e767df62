"""From a training run to a bundle that ships: ``python -m models.recipe.ship RUN CORPUS/more.csv OUT --name base``.

The projection before the unit vector is linear, so a linear map can be folded into it for nothing. Here it centres the
vectors of a few thousand training clips, because what all songs share tells none of them apart, and levels their
spread, so that the few directions in which clips differ most do not decide alone what is near to what. What is levelled
is an average of three covariances: that of all clips, that of an instrument's notes about their mean, and that of what
`models.recipe.changes` moves. The first alone would whiten; but then the pitch of a note counts for more than what
plays it, and the second takes of that; and directions in which little but chance lies would count for as much as any,
and the third takes of those. Axes come in the order of that spread, largest first, so that the first numbers of an
embedding tell the most. How much of the second and the third (``--within``, ``--changed``) the sets choose that models
are selected on; the cards say so.

Weight matrices and kernels are stored in float16, and computed with as stored. The classifiers of the run stay behind.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.recipe.changes import CHANGES, Samples, changed
from poolembed.audio.source import open_source
from poolembed.bundle import load_bundle, save_bundle
from poolembed.embed.model import build_engine
from poolembed.embed.song import Embedded
from poolembed.evaluate.clips import clip_sources
from poolembed.labels import Clip, read_labels
from poolembed.nn.model import SongModel

SEED = 0
WITHIN, CHANGED = 0.5, 0.3


def main(arguments: list[str] | None = None) -> int:
    """Write the bundle."""
    parser = argparse.ArgumentParser(prog="python -m models.recipe.ship", description=__doc__)
    parser.add_argument("run", type=Path, help="what poolembed train left")
    parser.add_argument("table", help="of the training clips")
    parser.add_argument("out", type=Path, help="the bundle's directory; it must not be there")
    parser.add_argument("--name", required=True)
    parser.add_argument("--within", type=float, default=WITHIN, metavar="A", help="how much of the instruments' spread")
    parser.add_argument("--changed", type=float, default=CHANGED, metavar="A", help="and of what changes move")
    parser.add_argument("--clips", type=int, default=4000, help="that the axes are of, and as many notes")
    parser.add_argument("--card", type=Path, help="text of the bundle's README.md")
    options = parser.parse_args(arguments)
    bundle = load_bundle(options.run)
    spreads = measure(bundle.network, options.table, options.clips)
    turn(bundle.network, spreads.mean, spreads.axes(options.within, options.changed))
    halve(bundle.network)
    card = options.card.read_text(encoding="utf-8") if options.card else bundle.card
    save_bundle(
        options.out, bundle.network, name=options.name, license="MIT", card=card, half=True, nested=bundle.config.nested
    )
    print(f"{options.out}: axes of {spreads.clips} clips and {spreads.notes} notes")
    return 0


def draw(table: str, count: int) -> list[Clip]:
    """Training clips, as many of each kind."""
    clips = [clip for clip in read_labels(table, columns=("kind",), need_labels=False).clips if clip.split == "train"]
    kinds = np.array([";".join(clip.labels["kind"]) for clip in clips])
    random = np.random.default_rng(SEED)
    names = sorted(set(kinds))
    drawn = [random.permutation(np.flatnonzero(kinds == name))[: count // len(names)] for name in names]
    return [clips[number] for number in np.concatenate(drawn)]


def projections(network: SongModel, clips: Sequence[Clip]) -> NDArray[np.float64]:
    """What the projection makes of clips before it is brought to unit length, ``(N, D)``; all must be readable."""
    return project(network, decoded(network, clips))


def decoded(network: SongModel, clips: Sequence[Clip]) -> list[Samples]:
    """Mono samples of clips at a model's rate; all must be readable."""
    failures: dict[int, str] = {}
    rate = network.config.frontend.sample_rate
    found: dict[int, Samples] = {}
    for index, source in clip_sources(clips, rate, failures):
        if isinstance(source, tuple):
            found[index] = np.asarray(source[0], np.float32)
        else:
            with open_source(source, rate) as stream:
                found[index] = np.concatenate(list(stream.blocks()))
    if failures:
        raise SystemExit(f"cannot be embedded: { {clips[index].key: reason for index, reason in failures.items()} }")
    return [found[index] for index in range(len(clips))]


def project(network: SongModel, clips: Sequence[Samples]) -> NDArray[np.float64]:
    """What the projection makes of samples at the model's rate, ``(N, D)``."""
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        found.append(output.detach().double().cpu())

    hook = network.project.register_forward_hook(keep)
    rate = network.config.frontend.sample_rate
    outcomes = list(build_engine(network).run((clip, rate) for clip in clips))
    hook.remove()
    vectors: NDArray[np.float64] = torch.cat(found).numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    # Songs are finished in no order; their embeddings tell which is which.
    embeddings = [outcome.embedding for outcome in outcomes if isinstance(outcome, Embedded)]
    return vectors[[int((unit @ embedding).argmax()) for embedding in embeddings]]


@dataclass(frozen=True)
class Spreads:
    """How a model's vectors lie.

    Attributes:
        mean: ``(D,)`` of clips of all kinds.
        total: ``(D, D)`` their covariance.
        within: that of notes about the mean of their instrument.
        moved: that of what `CHANGES` do to a vector.
        clips: number of clips.
        notes: number of notes.
    """

    mean: NDArray[np.float64]
    total: NDArray[np.float64]
    within: NDArray[np.float64]
    moved: NDArray[np.float64]
    clips: int
    notes: int

    def axes(self, within: float, changed: float) -> NDArray[np.float64]:
        """A map as columns ``(D, D)`` that levels the spreads' average, its axes in order, largest first.

        Args:
            within: how much of it is `within`, 0 to 1; each counts by its trace.
            changed: how much of it is `moved`; what the two leave is `total`.
        """
        shares = (1 - within - changed, self.total), (within, self.within), (changed, self.moved)
        variances, axes = np.linalg.eigh(np.sum([share * part / np.trace(part) for share, part in shares], axis=0))
        return np.asarray(axes / np.sqrt(np.maximum(variances, variances.max() * 1e-8)))[:, ::-1]


def measure(network: SongModel, table: str, count: int) -> Spreads:
    """The spreads of a model's vectors of so many training clips, and of so many notes."""
    clips = decoded(network, draw(table, count))
    vectors = project(network, clips)
    rate = network.config.frontend.sample_rate
    moves = [project(network, changed(name, clips, rate)) - vectors for name in CHANGES]
    moved = np.mean([np.cov(move, rowvar=False) for move in moves], axis=0)
    notes = draw_notes(table, count)
    programs = np.unique([clip.labels["program"][0] for clip in notes], return_inverse=True)[1]
    within = covariance_within(projections(network, notes), programs)
    return Spreads(vectors.mean(0), np.cov(vectors, rowvar=False), within, moved, len(vectors), len(notes))


def draw_notes(table: str, count: int) -> list[Clip]:
    """Training clips of single notes whose program is known."""
    clips = read_labels(table, columns=("kind", "program"), need_labels=False).clips
    notes = [
        clip
        for clip in clips
        if clip.split == "train" and clip.labels["kind"] == ("notes",) and clip.labels.get("program")
    ]
    order = np.random.default_rng(SEED).permutation(len(notes))[:count]
    return [notes[number] for number in order]


def covariance_within(vectors: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Covariance ``(D, D)`` of vectors about the means of their groups."""
    counts = np.bincount(groups)
    sums = np.zeros((len(counts), vectors.shape[1]))
    np.add.at(sums, groups, vectors)
    rest = vectors - (sums / np.maximum(counts, 1)[:, None])[groups]
    return np.asarray(rest.T @ rest / max(len(vectors) - int(np.count_nonzero(counts)), 1))


def turn(network: SongModel, mean: NDArray[np.float64], axes: NDArray[np.float64]) -> None:
    """Fold centring and a linear map into the projection, in place.

    Args:
        network: whose projection it is.
        mean: ``(D,)`` taken away.
        axes: ``(D, D)``, as columns what each number is made of.
    """
    change = torch.from_numpy(axes.T.copy())
    weight, bias = network.project.weight, network.project.bias
    with torch.no_grad():
        weight.copy_(change @ weight.double())
        bias.copy_(change @ (bias.double() - torch.from_numpy(mean)))
        scale = weight.abs().max()  # a length that all vectors share is none of theirs, and float16 has few exponents
        weight.div_(scale)
        bias.div_(scale)


def halve(network: SongModel) -> None:
    """Round kernels and matrices to float16, in place."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half())


if __name__ == "__main__":
    raise SystemExit(main())
