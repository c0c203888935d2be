"""The greedy pick of far and hard items, without reading the whole pool at every step.

Each pick is argmax alpha * rank + (1 - alpha) * d / L, where d is an item's cosine distance to the nearest chosen one
and L the largest such distance (k-center where alpha is 0; Sener and Savarese, arXiv 1708.00489). Done plainly that
reads all n x d numbers for each pick, hours for a million items. Distances only ever fall, so an old distance is
an upper bound of the present one: between two readings of the pool, picks come from a shortlist whose distances are
kept exact, for as long as no item outside can beat it. The picks are those of the plain method, about a hundred a
reading (measured; where distances fall unusually fast it is fewer, which costs time and no quality).

Memory: the pool, O(n), and one chunk. Not covered: vectors that do not fit into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CHUNK = 16_384
SAME = 2e-6  # distances below this are rounding: the vectors are equal
SHORTEST, LONGEST = 1_024, 65_536  # size of the shortlist
BLOCK = 128  # picks between two readings, at most
FEW = 8  # picks from one shortlist below which the next one is made longer


@dataclass
class State:
    """What is known of the pool: ranks and distances (n,) float32, and which items may still be picked."""

    vectors: np.ndarray  # (n, d) float32, L2-normalised
    ranks: np.ndarray
    distance: np.ndarray
    open: np.ndarray  # (n,) bool


def greedy(
    ranks: np.ndarray,
    vectors: np.ndarray,
    budget: int,
    alpha: float,
    allowed: np.ndarray,
    first: int,
    already: Sequence[int] = (),
) -> list[int]:
    """`budget` items of those `allowed`, in the order of the pick; what was chosen `already` counts for distances.

    The pick begins with `first`, or with the best item beside those chosen already where there are any.
    """
    state = State(vectors, ranks.astype(np.float32), np.full(len(vectors), np.inf, dtype=np.float32), allowed.copy())
    chosen = [] if already else [first]
    centres = list(already) or chosen
    state.open[centres] = False
    for start in range(0, len(centres), BLOCK):
        approach(state, centres[start : start + BLOCK])
    length = SHORTEST
    while len(chosen) < budget:
        largest = float(state.distance[state.open].max())
        if largest <= SAME:  # what is left repeats chosen items
            return chosen + _by_rank(state, alpha)[: budget - len(chosen)]
        block = _block(state, alpha, largest, length, min(BLOCK, budget - len(chosen)))
        chosen += block
        approach(state, block)
        length = min(2 * length, LONGEST) if len(block) < FEW else max(SHORTEST, length // 2)
    return chosen


def approach(state: State, centres: list[int]) -> None:
    """Lower all distances to what the new centres make of them: one reading of the pool."""
    near = state.vectors[centres].T.copy()  # (d, k)
    for start in range(0, len(state.vectors), CHUNK):
        part = slice(start, start + CHUNK)
        found = 1 - (state.vectors[part] @ near).max(1)
        np.minimum(state.distance[part], found, out=state.distance[part])


def _by_rank(state: State, alpha: float) -> list[int]:
    left = np.where(state.open)[0]
    return left[np.argsort(-alpha * state.ranks[left], kind="stable")].tolist()


def _top(values: np.ndarray, count: int) -> np.ndarray:
    return np.argpartition(-values, count)[:count] if count < len(values) else np.arange(len(values))


def _block(state: State, alpha: float, largest: float, length: int, most: int) -> list[int]:
    """Picks between two readings of the pool: at least one, at most `most`.

    The gain is multiplied by L here: alpha * L * rank + (1 - alpha) * d. Both L and d only fall, so what is computed
    now for the items outside the shortlist bounds what they can reach later in the block.
    """
    far = np.where(state.open, state.distance, -np.inf)
    gain = np.where(state.open, alpha * largest * state.ranks + (1 - alpha) * state.distance, -np.inf)
    best = int(np.argmax(gain))
    listed = np.unique(
        np.concatenate([[best], _top(gain, length), _top(far, length)])
    )  # rising, so ties go to the first
    outside_gain, outside_far = _largest_but(gain, listed), _largest_but(far, listed)
    vectors, ranks, distance = state.vectors[listed], state.ranks[listed], state.distance[listed]
    open_ = state.open[listed]
    picks: list[int] = []
    at = int(np.searchsorted(listed, best))
    while True:
        picks.append(int(listed[at]))
        open_[at] = state.open[listed[at]] = False
        np.minimum(distance, 1 - vectors @ vectors[at], out=distance)
        if len(picks) == most or not open_.any():
            return picks
        largest = float(distance[open_].max())
        if largest <= SAME or largest < outside_far:
            return picks
        score = np.where(open_, alpha * largest * ranks + (1 - alpha) * distance, -np.inf)
        at = int(np.argmax(score))
        if score[at] <= outside_gain:
            return picks


def _largest_but(values: np.ndarray, listed: np.ndarray) -> float:
    """The largest of `values` outside the list."""
    kept = values[listed]
    values[listed] = -np.inf
    largest = float(values.max())
    values[listed] = kept
    return largest
