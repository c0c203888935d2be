"""Clusters of the pool, and the two strategies that are built on them.

`clusters` is mini-batch k-means (scikit-learn) fitted on a sample, with all items then assigned in chunks. `stratified`
gives each cluster its share of the budget and takes the hardest items of each. `typical` follows TypiClust (Hacohen,
Dekel and Weinshall, arXiv 2202.02794): with as many clusters as items wanted, take from the clusters that have none yet
the most typical item, the one with the smallest mean distance to its nearest neighbours. The paper's number of
clusters depends on the budget; here it grows by steps (32, 128, ...), so that a larger budget begins with the items
of a smaller one.

Not covered: choosing the number of clusters from the data.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np

CHUNK = 16_384
PER_CENTRE, MOST_FITTED = 64, 131_072  # items that k-means is fitted on
NEIGHBOURS = 20
FIRST_CLUSTERS, GROWTH, MOST_CLUSTERS = 32, 4, 4_096
RIVALS = 1_024  # members of a cluster that are compared with one another


def clusters(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """A cluster number (n,) for each item; at most `count` different ones, fewer where items repeat."""
    if count <= 1 or len(vectors) <= 1:
        return np.zeros(len(vectors), dtype=np.int64)
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    rng = np.random.default_rng(seed)
    fitted = min(len(vectors), MOST_FITTED, max(PER_CENTRE * count, CHUNK))
    rows = np.sort(rng.choice(len(vectors), fitted, replace=False))
    model = MiniBatchKMeans(min(count, fitted), batch_size=4_096, max_iter=20, n_init=1, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct items than clusters is no fault here
        model.fit(vectors[rows])
    return nearest(vectors, model.cluster_centers_.astype(np.float32))


def nearest(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest centre (n,) of each item by squared Euclidean distance."""
    near, half = centres.T.copy(), (centres**2).sum(1) / 2
    found = np.empty(len(vectors), dtype=np.int64)
    step = max(256, CHUNK * 1_024 // max(1_024, len(centres)))
    for start in range(0, len(vectors), step):
        found[start : start + step] = (vectors[start : start + step] @ near - half).argmax(1)
    return found


def members(labels: np.ndarray) -> list[np.ndarray]:
    """The items of each cluster that has any, in the order of the pool; largest cluster first."""
    order = np.argsort(labels, kind="stable")
    _, starts = np.unique(labels[order], return_index=True)
    return sorted(np.split(order, starts[1:]), key=lambda group: (-len(group), group[0]))


def stratified(ranks: np.ndarray, allowed: np.ndarray, vectors: np.ndarray, budget: int, seed: int) -> list[int]:
    """The hardest allowed items of each cluster, each cluster in proportion to how many it has.

    The number of clusters, the root of half the pool, does not depend on the budget. An item's place is where it falls
    in its own cluster, (j + 1/2) / size, so that every prefix of the order is proportional.
    """
    groups = members(clusters(vectors, round((len(vectors) / 2) ** 0.5), seed))
    open_ = [group[allowed[group]] for group in groups]
    hardest = [group[np.argsort(-ranks[group], kind="stable")] for group in open_]
    places = np.concatenate([(np.arange(len(group)) + 0.5) / max(1, len(group)) for group in open_])
    return np.concatenate(hardest)[np.argsort(places, kind="stable")][:budget].tolist()


def typical(vectors: np.ndarray, budget: int, seed: int, already: Sequence[int] = ()) -> list[int]:
    """TypiClust's items: typical of the clusters that nothing has been chosen from yet, `already` included."""
    chosen, budget = list(already), budget + len(already)
    rng = np.random.default_rng(seed)
    for count in _schedule(len(vectors)):
        groups = members(clusters(vectors, count, seed))
        last = count == min(MOST_CLUSTERS, max(1, len(vectors) // NEIGHBOURS))
        chosen += _cover(vectors, groups, chosen, min(budget, budget if last else count) - len(chosen), rng)
        if len(chosen) >= budget:
            break
    return chosen[len(already) : budget]


def _schedule(items: int) -> Iterator[int]:
    """Numbers of clusters, rising; the last one leaves about twenty items a cluster."""
    last = min(MOST_CLUSTERS, max(1, items // NEIGHBOURS))
    count = FIRST_CLUSTERS
    while count < last:
        yield count
        count *= GROWTH
    yield last


def _cover(
    vectors: np.ndarray, groups: list[np.ndarray], chosen: list[int], wanted: int, rng: np.random.Generator
) -> list[int]:
    """`wanted` more items, always from the cluster with the fewest chosen ones, of those from the largest."""
    taken = np.zeros(len(vectors), dtype=bool)
    taken[chosen] = True
    queues = []
    for group in groups:
        ordered = group[np.argsort(-typicality(vectors, group, rng), kind="stable")]
        queues.append((int(taken[group].sum()), ordered[~taken[ordered]]))
    size = [(had + j, g) for g, (had, left) in enumerate(queues) for j in range(len(left))]
    picks = []
    for had, g in sorted(size)[: max(0, wanted)]:
        picks.append(int(queues[g][1][had - queues[g][0]]))
    return picks


def typicality(vectors: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The inverse of the mean Euclidean distance to the nearest neighbours within the cluster (m,).

    In a cluster of more than a thousand items a random thousand of them compete; the others come last.
    """
    found = np.full(len(group), -np.inf)
    rivals = np.arange(len(group))
    if len(group) > RIVALS:
        rivals = np.sort(rng.choice(len(group), RIVALS, replace=False))
    near = vectors[group[rivals]]
    squared = np.maximum(2 - 2 * (near @ near.T), 0)  # (m, m)
    np.fill_diagonal(squared, np.inf)
    count = min(NEIGHBOURS, len(near) - 1)
    if not count:
        found[rivals] = 0.0
        return found
    closest = np.partition(squared, count - 1, axis=1)[:, :count]
    found[rivals] = 1 / (np.sqrt(closest).mean(1) + 1e-6)
    return found
