"""From a training run to a bundle that ships: ``python -m models.recipe.ship RUN CORPUS/corpus.csv OUT --name base``.

The projection before the unit vector is linear, so a linear map can be folded into it for nothing. Here it is the
principal axes of the vectors of a few thousand training clips, largest first, about their mean: centred, because what
all songs share tells none of them apart; in that order, so that the first numbers of an embedding tell the most. With
``--level G`` the axes are divided by their deviation to the power G: 0 leaves them as they are, 1 whitens. Which G is
chosen by the sets that models are selected on; the cards say so.

Weight matrices and kernels are stored in float16, and computed with as stored. The classifiers of the run stay behind.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from poolembed.bundle import load_bundle, save_bundle
from poolembed.embed.model import build_engine
from poolembed.evaluate.clips import embed_clips
from poolembed.labels import Clip, read_labels
from poolembed.nn.model import SongModel

SEED = 0


def main(arguments: list[str] | None = None) -> int:
    """Write the bundle."""
    parser = argparse.ArgumentParser(prog="python -m models.recipe.ship", description=__doc__)
    parser.add_argument("run", type=Path, help="what poolembed train left")
    parser.add_argument("table", help="of the training clips")
    parser.add_argument("out", type=Path, help="the bundle's directory; it must not be there")
    parser.add_argument("--name", required=True)
    parser.add_argument("--level", type=float, default=0.0, metavar="G", help="0 keeps the axes' lengths, 1 whitens")
    parser.add_argument("--clips", type=int, default=4000, help="that the axes are of")
    parser.add_argument("--card", type=Path, help="text of the bundle's README.md")
    options = parser.parse_args(arguments)
    bundle = load_bundle(options.run)
    vectors = projections(bundle.network, draw(options.table, options.clips))
    turn(bundle.network, vectors, options.level)
    halve(bundle.network)
    card = options.card.read_text(encoding="utf-8") if options.card else bundle.card
    save_bundle(
        options.out, bundle.network, name=options.name, license="MIT", card=card, half=True, nested=bundle.config.nested
    )
    print(f"{options.out}: axes of {len(vectors)} clips")
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
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        found.append(output.detach().double().cpu())

    hook = network.project.register_forward_hook(keep)
    embedded = embed_clips(build_engine(network), clips)
    hook.remove()
    if embedded.failures:
        raise SystemExit(f"cannot be embedded: {embedded.failures}")
    vectors: NDArray[np.float64] = torch.cat(found).numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    # Songs are finished in no order; their embeddings tell which is which.
    return vectors[[int((unit @ embedding).argmax()) for embedding in embedded.matrix]]


def principal_axes(vectors: NDArray[np.float64], level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean ``(D,)`` of vectors, and as columns ``(D, D)`` their axes, largest first, over deviations to a power."""
    variances, axes = np.linalg.eigh(np.cov(vectors, rowvar=False))
    order = np.argsort(variances)[::-1]
    deviations = np.sqrt(np.maximum(variances[order], variances.max() * 1e-8))
    return vectors.mean(0), axes[:, order] / deviations**level


def turn(network: SongModel, vectors: NDArray[np.float64], level: float) -> None:
    """Fold centring and principal axes of the vectors into the projection, in place."""
    mean, axes = principal_axes(vectors, level)
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
