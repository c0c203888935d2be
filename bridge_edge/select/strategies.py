"""Which items are worth a teacher's answer: difficulty x diversity, and the controls to compare it with.

`bridge` is greedy: x* = argmax alpha * rank(difficulty) + (1 - alpha) * distance to the chosen set, where the distance
is the cosine distance to the nearest chosen item, divided by the largest one (k-center, Sener and Savarese,
arXiv 1708.00489). BRIDGE (arXiv 2512.20403) names the two ingredients; this combination of them is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bridge_edge.errors import unknown

SMALLEST_GROUP = 10
STRATEGIES = ("bridge", "random", "difficulty", "diversity")


def percentile_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of `values` (n,) scaled to [0, 1]; equal values share their mean rank."""
    order = np.argsort(values, kind="stable")
    ranks = np.empty(len(values), dtype=np.float64)
    ranks[order] = np.arange(len(values))
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    sums = np.bincount(inverse, weights=ranks)
    return (sums / counts)[inverse] / max(1, len(values) - 1)


def ranks_within(values: np.ndarray, groups: Sequence[str | None]) -> np.ndarray:
    """Percentile ranks of `values` (n,) among the items of the same group.

    Grouped by gold answer this keeps the prior of an answer from passing for difficulty: a model that has only seen
    labels finds every item of the rarer answer hard, and the hardest items would then all have that answer.
    Groups too small to rank (under ten items) share one ranking.
    """
    labels = np.array([g or "" for g in groups])
    names, sizes = np.unique(labels, return_counts=True)
    small = np.isin(labels, names[sizes < SMALLEST_GROUP])
    ranks = np.zeros(len(values))
    for members in [labels == n for n in names[sizes >= SMALLEST_GROUP]] + ([small] if small.any() else []):
        ranks[members] = percentile_ranks(values[members])
    return ranks


def choose(
    difficulty: np.ndarray,
    embeddings: np.ndarray,
    budget: int,
    strategy: str,
    alpha: float = 0.5,
    trim: float = 0.0,
    seed: int = 0,
    groups: Sequence[str | None] | None = None,
) -> list[int]:
    """Indices of `budget` items of the pool, in the order in which they are worth asking.

    difficulty (n,), embeddings (n, d) L2-normalised. The hardest `trim` share is left out by the strategies
    that look at difficulty, as probable label noise. With `groups` (gold answers) difficulty is ranked
    within each group. Deterministic for a seed; costs O(n * d * budget) time and O(n)
    memory.
    """
    if strategy not in STRATEGIES:
        raise unknown("strategy", strategy, STRATEGIES)
    rng = np.random.default_rng(seed)
    count = len(difficulty)
    budget = min(budget, count)
    if strategy == "random":
        return rng.permutation(count)[:budget].tolist()
    ranks = ranks_within(difficulty, groups) if groups else percentile_ranks(difficulty)
    allowed = np.ones(count, dtype=bool)
    if strategy in ("bridge", "difficulty") and trim:
        allowed = ranks <= 1 - trim
        if allowed.sum() < budget:
            allowed = np.ones(count, dtype=bool)
    if strategy == "difficulty":
        candidates = np.where(allowed)[0]
        return candidates[np.argsort(-ranks[candidates], kind="stable")][:budget].tolist()
    weight = alpha if strategy == "bridge" else 0.0
    return _greedy(ranks, embeddings.astype(np.float32), budget, weight, allowed, rng)


def _greedy(
    ranks: np.ndarray, vectors: np.ndarray, budget: int, alpha: float, allowed: np.ndarray, rng: np.random.Generator
) -> list[int]:
    """The greedy pick; the first item is the hardest one (or a random one where difficulty has no weight)."""
    start = np.where(allowed, ranks, -1)
    first = int(np.argmax(start)) if alpha else int(rng.choice(np.where(allowed)[0]))
    chosen = [first]
    distance = 1 - vectors @ vectors[first]  # (n,) cosine distance to the nearest chosen item
    open_ = allowed.copy()
    open_[first] = False
    for _ in range(budget - 1):
        largest = float(distance[open_].max())
        gain = alpha * ranks + (1 - alpha) * (distance / largest if largest > 0 else 0.0)
        gain[~open_] = -np.inf
        best = int(np.argmax(gain))
        chosen.append(best)
        open_[best] = False
        np.minimum(distance, 1 - vectors @ vectors[best], out=distance)
    return chosen
