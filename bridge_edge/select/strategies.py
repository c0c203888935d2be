"""Which items are worth a teacher's answer: difficulty x diversity, and the controls to compare it with.

`greedy` is x* = argmax alpha * rank(difficulty) + (1 - alpha) * distance to the chosen set, where the distance is the
cosine distance to the nearest chosen item, divided by the largest one (greedy.py). BRIDGE (arXiv 2512.20403) names the
two ingredients; this combination of them is ours. Over a whole pool it seeks the far corners and starves what is
dense: of eight kinds of medical items one got 79 of 300 answers and another 4. So `bridge` makes the same picks within
strata, a cluster of the embeddings and a gold answer each, every stratum in proportion to its size. `diversity` is
k-center alone, `difficulty` the hardest, `kmeans` the hardest of every cluster, `typiclust` typical ones (clusters.py),
`facility-location` those that all others are most like (facility.py), `random` is the control.

Every strategy orders the pool so that a larger budget begins with the items of a smaller one, and paid answers serve
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bridge_edge.errors import UserError, unknown
from bridge_edge.select.clusters import clusters, members, stratified, typical
from bridge_edge.select.facility import facility
from bridge_edge.select.greedy import greedy

SMALLEST_GROUP = 10


@dataclass(frozen=True)
class Candidates:
    """The pool as selection sees it: difficulty (n,), embeddings (n, d) L2-normalised; `groups` are the gold answers,
    within which difficulty is ranked; `doubtful` are items whose easiness is not to be believed."""

    difficulty: np.ndarray
    embeddings: np.ndarray
    groups: Sequence[str | None] | None = None
    doubtful: Sequence[int] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        """Refuse what would silently order the pool by accident."""
        if self.embeddings.ndim != 2 or len(self.difficulty) != len(self.embeddings):
            raise UserError(
                f"{len(self.difficulty)} difficulties for embeddings of shape {self.embeddings.shape}",
                "both need one row an item; run the score stage again",
            )
        bad = np.where(~np.isfinite(self.difficulty))[0]
        if not len(bad):
            # finite rows have finite sums; a mask over all numbers would take a quarter of the pool's memory
            bad = np.where(~np.isfinite(self.embeddings.sum(1, dtype=np.float32)))[0]
        if len(bad):
            raise UserError(
                f"{len(bad)} of {len(self.difficulty)} items have a score or an embedding that is no number, "
                f"the first is item {bad[0]}",
                "the model that scored them has diverged or overflowed: lower warmup.lr, or set ta.precision=fp32",
            )


@dataclass(frozen=True)
class View:
    """What a strategy is handed: ranks (n,) in [0, 1], which items may be picked, float32 vectors, alpha and seed, and
    the items that were chosen before (none of which is allowed)."""

    ranks: np.ndarray
    allowed: np.ndarray
    vectors: np.ndarray
    alpha: float
    seed: int
    already: Sequence[int] = ()
    groups: Sequence[str | None] | None = None


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
    names, of, sizes = np.unique(np.array([g or "" for g in groups]), return_inverse=True, return_counts=True)
    home = np.where(sizes >= SMALLEST_GROUP, np.arange(len(names)), len(names))[of]
    order = np.argsort(home, kind="stable")
    ranks = np.zeros(len(values))
    for part in np.split(order, np.where(np.diff(home[order]))[0] + 1):
        ranks[part] = percentile_ranks(values[part])
    return ranks


def _random(view: View, budget: int) -> list[int]:
    order = np.random.default_rng(view.seed).permutation(len(view.ranks))
    return order[~np.isin(order, view.already)][:budget].tolist()


def _difficulty(view: View, budget: int) -> list[int]:
    candidates = np.where(view.allowed)[0]
    return candidates[np.argsort(-view.ranks[candidates], kind="stable")][:budget].tolist()


def _greedy(view: View, budget: int) -> list[int]:
    if not view.alpha:
        return _diversity(view, budget)
    first = int(np.argmax(np.where(view.allowed, view.ranks, -1)))
    return greedy(view.ranks, view.vectors, budget, view.alpha, view.allowed, first, view.already)


def _diversity(view: View, budget: int) -> list[int]:
    first = int(np.random.default_rng(view.seed).choice(np.where(view.allowed)[0]))
    return greedy(view.ranks, view.vectors, budget, 0.0, view.allowed, first, view.already)


def _stratified_greedy(view: View, budget: int) -> list[int]:
    """The greedy picks of every stratum, merged by their place (j + 1/2) / size in it, so that every prefix of the
    order holds each stratum in proportion to its size."""
    count = len(view.ranks)
    homes = clusters(view.vectors, round((count / 2) ** 0.5), view.seed)
    if view.groups:
        _, answers = np.unique(np.array([g or "" for g in view.groups]), return_inverse=True)
        homes = homes * (int(answers.max()) + 1) + answers
    taken = np.zeros(count, dtype=bool)
    taken[list(view.already)] = True
    picks, places = [], []
    for group in members(homes):
        had, free = int(taken[group].sum()), int(view.allowed[group].sum())
        most = min(free, int(np.ceil(len(group) * (budget + len(view.already)) / count)) + 1)
        if not most:
            continue
        own = np.flatnonzero(taken[group]).tolist()
        ranks = percentile_ranks(view.ranks[group])
        part = View(ranks, view.allowed[group], view.vectors[group], view.alpha, view.seed, own)
        found = group[_greedy(part, most)]
        picks.append(found)
        places.append((had + np.arange(len(found)) + 0.5) / len(group))
    order = np.concatenate(picks)[np.argsort(np.concatenate(places), kind="stable")]
    if len(order) < budget:  # strata whose items are barred leave places to the others
        rest = np.setdiff1d(np.flatnonzero(view.allowed), order)
        order = np.concatenate([order, rest[np.argsort(-view.ranks[rest], kind="stable")]])
    return order[:budget].tolist()


STRATEGIES: dict[str, Callable[[View, int], list[int]]] = {
    "bridge": _stratified_greedy,
    "greedy": _greedy,
    "random": _random,
    "difficulty": _difficulty,
    "diversity": _diversity,
    "facility-location": lambda view, budget: facility(view.vectors, budget, view.seed, already=view.already),
    "kmeans": lambda view, budget: stratified(view.ranks, view.allowed, view.vectors, budget, view.seed),
    "typiclust": lambda view, budget: typical(view.vectors, budget, view.seed, view.already),
}
BY_DIFFICULTY = ("bridge", "greedy", "difficulty", "kmeans")


def choose(
    pool: Candidates,
    budget: int,
    strategy: str,
    alpha: float = 0.5,
    trim: float = 0.0,
    seed: int = 0,
    already: Sequence[int] = (),
) -> list[int]:
    """Indices of `budget` items of the pool, in the order in which they are worth asking, those chosen `already` first.

    The hardest `trim` share is left out by the strategies that look at difficulty, as probable label noise, unless
    the budget needs it. Doubtful items count as the hardest and are not left out. Deterministic for a seed.
    """
    if strategy not in STRATEGIES:
        raise unknown("strategy", strategy, STRATEGIES)
    count = len(pool.difficulty)
    budget = min(budget, count)
    ranks = ranks_within(pool.difficulty, pool.groups) if pool.groups else percentile_ranks(pool.difficulty)
    allowed = np.ones(count, dtype=bool)
    if strategy in BY_DIFFICULTY:
        doubtful = np.asarray(pool.doubtful, dtype=np.int64)
        allowed = ranks <= 1 - trim
        allowed[doubtful] = True
        ranks[doubtful] = 1.0
    before = list(already)[:budget]
    wanted = budget - len(before)
    allowed[before] = False
    if allowed.sum() < wanted:
        allowed[:] = True
        allowed[before] = False
    if not wanted:
        return before
    vectors = pool.embeddings.astype(np.float32, copy=False)
    return before + STRATEGIES[strategy](View(ranks, allowed, vectors, alpha, seed, before, pool.groups), wanted)
