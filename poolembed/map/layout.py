"""A place in the plane for every vector, so that near vectors lie near each other, and groups of vectors.

Few vectors are projected onto the two directions of their largest variance (PCA). Of more, t-SNE keeps neighbourhoods
(van der Maaten, "Accelerating t-SNE using tree-based algorithms", JMLR 2014), from the exact nearest vectors, and
begins where PCA puts them, which gives distant groups their order (Kobak and Berens, Nature Communications 2019). All
of it is scikit-learn's, with nothing left to chance: the same vectors always get the same places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from poolembed.errors import VectorsError
from poolembed.progress import Progress, silent
from poolembed.search.collection import Collection
from poolembed.search.exact import ExactSearch, Hits

FEWEST = 3
"""Vectors that a layout needs."""

FEW = 50
"""With fewer vectors than that, the neighbourhoods that t-SNE keeps would be most of the collection."""

PERPLEXITY = 30.0
"""How many neighbours, roughly, t-SNE holds every vector close to."""

GROUPS = 10
"""Groups at most."""

_ITERATIONS = 750  # all that t-SNE needs with its automatic learning rate (Belkina et al., Nature Communications 2019)
_NEIGHBOURS = int(3 * PERPLEXITY) + 1  # that it looks at
_ANGLE = 0.8  # the coarsest that its authors advise; the layout is as good, and the time two thirds of the default's
_START = 1e-4  # spread to begin with
_MANY = 5000  # vectors from which on a second thread is worth its coming and going


@dataclass(frozen=True)
class Layout:
    """Where N vectors lie, and what is near what.

    Attributes:
        places: ``(N, 2)`` float32; equal units on both axes, around the origin.
        method: how they were found.
        near: the nearest other vectors of each, nearest first.
        groups: ``(N,)`` the group of each vector; group 0 is the largest.
        middles: for each group the row nearest to its middle.
    """

    places: NDArray[np.float32]
    method: Literal["PCA", "t-SNE"]
    near: Hits
    groups: NDArray[np.int64]
    middles: list[int]


def lay_out(collection: Collection, progress: Progress = silent) -> Layout:
    """Lay out a collection. Time grows with the square of its size: nearest vectors are found exactly.

    Args:
        collection: at least `FEWEST` vectors.
        progress: told what is being done.

    Raises:
        VectorsError: there are fewer, or a row is zero or not finite.
    """
    if len(collection) < FEWEST:
        raise VectorsError(
            f"a map needs at least {FEWEST} songs, and {collection.source} has {len(collection)}",
            hint="embed more songs into it",
        )
    units = np.concatenate([block for _, block in collection.blocks()])
    progress("finding the nearest songs of each", 0, 0)
    near = _nearest_others(collection, units, min(_NEIGHBOURS, len(units) - 1))
    progress("grouping", 0, 0)
    groups, middles = _group(units)
    places = _project(units)
    if len(units) < FEW:
        return Layout(places, "PCA", near, groups, middles)
    progress("laying out", 0, 0)
    return Layout(_spread(near, places), "t-SNE", near, groups, middles)


def _nearest_others(collection: Collection, units: NDArray[np.float32], k: int) -> Hits:
    found = ExactSearch(collection).nearest(units, k + 1)
    others = found.rows != np.arange(len(units))[:, None]
    others[others.all(1), -1] = False  # of more than k copies of a vector, it need not be among the first itself
    return Hits(found.rows[others].reshape(-1, k), found.cosines[others].reshape(-1, k))


def _project(units: NDArray[np.float32]) -> NDArray[np.float32]:
    """Places along the two directions of largest variance; all at the origin where there is none."""
    from sklearn.decomposition import PCA

    if not np.ptp(units, axis=0).any():
        return np.zeros((len(units), 2), np.float32)
    places = PCA(2, svd_solver="covariance_eigh").fit_transform(units.astype(np.float64))
    return np.asarray(places, np.float32)


def _spread(near: Hits, start: NDArray[np.float32]) -> NDArray[np.float32]:
    """Places by t-SNE, from where PCA puts them."""
    from scipy.sparse import csr_matrix
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    rows, k = near.rows.shape
    # scikit-learn wants each row itself as its first neighbour.
    indices = np.concatenate([np.arange(rows)[:, None], near.rows], axis=1)
    distances = np.sqrt(np.maximum(0, 2 - 2 * np.concatenate([np.ones((rows, 1)), near.cosines], axis=1)))
    graph = csr_matrix((distances.ravel(), indices.ravel(), np.arange(rows + 1) * (k + 1)), shape=(rows, rows))
    scale = start[:, 0].std() or 1.0
    tsne: Any = TSNE(
        perplexity=min(PERPLEXITY, (k - 1) / 3),
        metric="precomputed",
        init=start * np.float32(_START / scale),
        max_iter=_ITERATIONS,
        angle=_ANGLE,
    )
    with threadpool_limits(_threads(rows), "openmp"):
        places: NDArray[np.float32] = tsne.fit_transform(graph)
    places -= places.mean(0)
    return places


def _threads(rows: int) -> int:
    """Threads of OpenMP: of two the partial sums make the same total in either order, of three they may not."""
    return 2 if rows >= _MANY else 1


def _group(units: NDArray[np.float32]) -> tuple[NDArray[np.int64], list[int]]:
    """Groups by k-means, numbered by size, and the row nearest to the middle of each."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    wanted = max(2, min(GROUPS, round(np.sqrt(len(units) / 2))))
    distinct = len(np.unique(units, axis=0))
    with threadpool_limits(_threads(len(units)), "openmp"):
        means: Any = KMeans(min(wanted, distinct), n_init=3, random_state=0).fit(units)
    by_size = np.argsort(-np.bincount(means.labels_), kind="stable")
    rank = np.argsort(by_size, kind="stable")
    away = means.transform(units)
    return rank[means.labels_], [int(np.argmin(away[:, group])) for group in by_size]
