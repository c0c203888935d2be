"""Intervals over seeds and items: a paired bootstrap in two levels.

A result varies with the seed (data, items asked, weights) and with the items that happen to be tested. So seeds are
drawn with replacement, then the test items within each drawn seed, and both arms are read at the same draws: what is
hard for both cancels out. The 2.5 and 97.5 percentiles of the mean over seeds are the 95 % interval (Efron's
percentile interval). Since only how often an item is right under a, under b, under both or under none matters, items
are drawn as multinomial counts, which gives the same distribution and takes no time.

Where hardly any item tells the arms apart, draws from the sample hardly differ either and the percentiles close up on
the mean. So no interval is narrower than the one over the items of all seeds together: Wilson's for a rate, Newcombe's
for a paired difference, neither of which closes up.

With few seeds such an interval is too narrow, as three values say little of a spread; with one seed it is an interval
over items only, and both are said where results are printed. McNemar's exact test over the items of all seeds stands
beside it; it ignores that seeds differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridge_edge.evaluate import paired, wilson

DRAWS = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """a against b: the difference of their rates, the gain relative to b, McNemar's p over all items."""

    difference: Interval
    gain: Interval | None  # None where b has no hit in some draw, and the ratio means nothing
    mcnemar_p: float
    seeds: int


def known_mean(values: Sequence[float | None]) -> float | None:
    """The mean of the values that there are; None where there is none."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def outcomes(a: Sequence[bool], b: Sequence[bool]) -> list[int]:
    """How many items are right under both, under a alone, under b alone, under none."""
    if len(a) != len(b) or not a:
        raise ValueError(f"paired comparison of {len(a)} and {len(b)} items")
    pairs = list(zip(map(bool, a), map(bool, b), strict=True))
    return [pairs.count(which) for which in ((True, True), (True, False), (False, True), (False, False))]


def drawn_rates(counts: np.ndarray, seed: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Rates of a and b (draws,), each the mean over drawn seeds of drawn items; `counts` is (seeds, 4)."""
    rng = np.random.default_rng(seed)
    sizes = counts.sum(1)
    which = rng.integers(len(counts), size=(draws, len(counts)))
    found = rng.multinomial(sizes[which], (counts / sizes[:, None])[which]) / sizes[which][..., None]  # (D, S, 4)
    return (found[..., 0] + found[..., 1]).mean(1), (found[..., 0] + found[..., 2]).mean(1)


def interval(mean: float, values: np.ndarray, least: Sequence[float] = ()) -> Interval:
    """The percentile interval of drawn values, as wide as the interval `least` where that is wider."""
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(mean, float(min([low, *least[:1]])), float(max([high, *least[1:]])))


def rate(results: Sequence[Sequence[bool]], seed: int = 0, draws: int = DRAWS) -> Interval:
    """The mean over seeds of the share of hits; `results` holds one list of items a seed."""
    counts = np.array([outcomes(hits, hits) for hits in results])
    mean = float(np.mean([np.mean(hits) for hits in results]))
    together = [hit for hits in results for hit in hits]
    return interval(mean, drawn_rates(counts, seed, draws)[0], wilson(sum(map(bool, together)), len(together)))


def compare(a: Sequence[Sequence[bool]], b: Sequence[Sequence[bool]], seed: int = 0, draws: int = DRAWS) -> Comparison:
    """a against b, one list of the same items a seed."""
    counts = np.array([outcomes(x, y) for x, y in zip(a, b, strict=True)])
    mine, theirs = (float(np.mean([np.mean(hits) for hits in arm])) for arm in (a, b))
    drawn_a, drawn_b = drawn_rates(counts, seed, draws)
    gain = interval(mine / theirs - 1, drawn_a / drawn_b - 1) if drawn_b.min() > 0 else None
    items = paired([x for hits in a for x in hits], [x for hits in b for x in hits])
    difference = interval(mine - theirs, drawn_a - drawn_b, items["ci95"])
    return Comparison(difference, gain, items["mcnemar_p"], len(a))
