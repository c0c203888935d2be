"""Near-duplicates among many texts, in time that grows with their number and not with its square.

What: the texts are taken in the order of the caller's ranks; one whose shingles (runs of three words) overlap with
those of a kept one by at least the threshold (Jaccard similarity) is a near-duplicate of it. Pairs to compare come from
MinHash signatures cut into bands (Broder 1997; Indyk and Motwani 1998), and each is then compared exactly, so that
nothing is dropped that is below the threshold. Hashes are made of the words alone: the same texts give the same result
everywhere.
Not covered: paraphrases. At the threshold a pair is missed with a chance below 1 in 1,000 (less above it), and where
more than `MOST` different texts share a band only the first ones are compared.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from bridge_edge.data.pool import shingles

HASHES, MOST, MISSED = 64, 64, 1e-3
PRIME = np.uint64((1 << 31) - 1)


def bands_for(threshold: float) -> tuple[int, int]:
    """(bands, rows): the longest rows, so the fewest needless comparisons, that still find a pair at the threshold."""
    for rows in (16, 8, 4, 2):
        if (1 - threshold**rows) ** (HASHES // rows) < MISSED:
            return HASHES // rows, rows
    return HASHES, 1


def signature(found: frozenset[str], factors: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The smallest value (HASHES,) of each hash function over a set of shingles."""
    values = np.array([zlib.crc32(s.encode()) for s in found], dtype=np.uint64) % PRIME
    return ((factors[:, None] * values[None] + offsets[:, None]) % PRIME).min(1)  # below 2^62: no overflow


def near_duplicates_of(texts: Sequence[str], order: Sequence[int], threshold: float) -> dict[int, int]:
    """For each near-duplicate the kept text that it repeats, both by their places; earlier in `order` is kept."""
    rng = np.random.default_rng(0)
    factors = rng.integers(1, int(PRIME), HASHES, dtype=np.uint64)
    offsets = rng.integers(0, int(PRIME), HASHES, dtype=np.uint64)
    bands, rows = bands_for(threshold)
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    kept: dict[int, frozenset[str]] = {}
    repeated: dict[int, int] = {}
    for place in order:
        mine = shingles(texts[place])
        marks = signature(mine, factors, offsets)
        keys = [(band, marks[band * rows : (band + 1) * rows].tobytes()) for band in range(bands)]
        seen = dict.fromkeys(other for key in keys for other in buckets.get(key, ()))
        like = next((other for other in seen if jaccard(mine, kept[other]) >= threshold), None)
        if like is not None:
            repeated[place] = like
            continue
        kept[place] = mine
        for key in keys:
            if len(buckets[key]) < MOST:
                buckets[key].append(place)
    return repeated


def jaccard(one: frozenset[str], two: frozenset[str]) -> float:
    """The share of what either set has that both have; one of them must have something."""
    common = len(one & two)
    return common / (len(one) + len(two) - common)
