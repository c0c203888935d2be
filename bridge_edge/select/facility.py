"""Facility location: the items that all others are most like.

f(S) = sum over the pool of the largest similarity, 1 + cosine, to a chosen item. It is submodular, so the lazy
greedy method (Minoux 1978) reaches at least 1 - 1/e of the best value: an item's gain only falls, so old gains are
upper bounds and few need to be computed anew at a pick.

Exact for pools up to `EXACT` items. The gains of a larger pool would take n x n similarities, so it is split into parts
and an item is only compared with its own part. That turns f into a sum over the parts, whose greedy pick is the merge
of the parts' own pick orders by gain: no shares need to be set. What that loses is measured by
`python -m bridge_edge.benchmarks.selection`: on made-up pools of 4,000 to 16,000 items, in parts of 250 to 4,000, at
most 0.07 % of the exact method's value and 3.6 % of its gain over a random choice. Nothing of size n x n is ever held.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from bridge_edge.select.clusters import clusters, members

EXACT = 16_384
PART = 4_096
FINEST, PER_FINE = 4_096, 64  # clusters that parts are made of: at most, and items in each
FEWEST, MOST = 8, 256  # gains computed at a time
ROWS = 2_048
NOTHING = 1e-5  # gain an item of the part below which nothing new is said


def facility(
    vectors: np.ndarray, budget: int, seed: int, part: int | None = None, already: Sequence[int] = ()
) -> list[int]:
    """The greedy pick of `budget` items beside those chosen `already`.

    `part` asks for parts of about that size (default: by the pool's size).
    """
    size = part or (len(vectors) if len(vectors) <= EXACT else PART)
    groups = parts(vectors, size, seed) if len(vectors) > size else [np.arange(len(vectors))]
    orders = [_picks(vectors, group, np.isin(group, already)) for group in groups]
    return [item for _, item in islice(heapq.merge(*orders), budget)]


def parts(vectors: np.ndarray, size: int, seed: int) -> list[np.ndarray]:
    """The pool in parts of about `size` items, none above twice that.

    Small clusters are found first and then put together, so that a border between parts runs between clusters: an item
    at a border needs a second item to say what its neighbour across the border says already. One cluster that is
    too large, as of repeated items, is split at random.
    """
    fine = members(clusters(vectors, min(FINEST, len(vectors) // PER_FINE), seed))
    centres = np.stack([vectors[group].mean(0) for group in fine])
    joined = [np.concatenate([fine[i] for i in some]) for some in _join(centres, fine, size, seed)]
    rng = np.random.default_rng(seed)
    pieces = [np.array_split(rng.permutation(group), -(-len(group) // (2 * size))) for group in joined]
    return [np.sort(piece) for several in pieces for piece in several]


def _join(centres: np.ndarray, fine: list[np.ndarray], size: int, seed: int) -> list[np.ndarray]:
    """Groups of near clusters that hold about `size` items together: k-means over their centres, again where needed."""
    from sklearn.cluster import KMeans

    sizes = np.array([len(group) for group in fine])
    done, todo = [], [np.arange(len(fine))]
    while todo:
        some = todo.pop()
        count = min(len(some), -(-int(sizes[some].sum()) // size))
        if sizes[some].sum() <= 2 * size or count < 2:
            done.append(some)
            continue
        model = KMeans(count, n_init=1, random_state=seed).fit(centres[some], sample_weight=sizes[some])
        split = members(model.labels_)
        todo += [some[inner] for inner in (split if len(split) > 1 else np.array_split(np.arange(len(some)), 2))]
    return done


def _picks(vectors: np.ndarray, group: np.ndarray, chosen: np.ndarray) -> Iterator[tuple[float, int]]:
    """(minus the gain, item) of one part, in the order of the greedy pick; its vectors are not kept in between.

    `chosen` (m,) bool are the items that were picked before; they cover their neighbours and are not picked again.
    """
    near = vectors[group]
    covered = np.full(len(group), -1.0, dtype=np.float32)  # similarity to the nearest chosen item, as cosine
    for item in np.where(chosen)[0]:
        np.maximum(covered, near @ near[item], out=covered)
    bound = np.concatenate(
        [_gains(near, np.arange(s, min(s + MOST, len(group))), covered) for s in range(0, len(group), MOST)]
    )
    open_ = ~chosen
    bound[chosen] = -np.inf
    for _ in range(int(open_.sum())):
        near = vectors[group]
        best = _best(near, covered, bound, open_)
        if bound[best] <= NOTHING * len(group):
            break
        open_[best] = False
        yield -float(bound[best]), int(group[best])
        np.maximum(covered, near @ near[best], out=covered)
        bound[best] = -np.inf
    yield from ((0.0, int(i)) for i in group[open_])


def _best(near: np.ndarray, covered: np.ndarray, bound: np.ndarray, open_: np.ndarray) -> int:
    """The open item with the largest gain; `bound` is brought up to date where it had to be looked at."""
    fresh = np.zeros(len(near), dtype=bool)
    count = FEWEST
    while True:
        top = int(np.argmax(bound))
        if fresh[top]:
            return top
        stale = np.where(fresh | ~open_, -np.inf, bound)
        look = np.argpartition(-stale, count)[:count] if count < len(stale) else np.arange(len(stale))
        look = look[stale[look] > -np.inf]
        bound[look] = _gains(near, look, covered)
        fresh[look] = True
        count = min(2 * count, MOST)


def _gains(near: np.ndarray, items: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """What each of `items` would add to f (k,), summed over the part in float64."""
    total = np.zeros(len(items))
    centres = near[items].T.copy()  # (d, k)
    for start in range(0, len(near), ROWS):
        more = near[start : start + ROWS] @ centres
        more -= covered[start : start + ROWS, None]
        np.maximum(more, 0, out=more)
        total += more.sum(0, dtype=np.float64)
    return total


def value(vectors: np.ndarray, chosen: list[int]) -> float:
    """f(S) over the whole pool."""
    centres, total = vectors[chosen].T.copy(), 0.0
    for start in range(0, len(vectors), ROWS):
        total += float((1 + (vectors[start : start + ROWS] @ centres).max(1)).sum(dtype=np.float64))
    return total
