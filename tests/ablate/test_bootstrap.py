"""The two-level paired bootstrap against a slow one that draws items one by one, and against theory."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from bridge_edge.ablate.bootstrap import compare, drawn_rates, outcomes, rate

RNG = random.Random(5)
HARD = [[RNG.random() for _ in range(60)] for _ in range(3)]
A = [[h < 0.8 + 0.05 * s for h in items] for s, items in enumerate(HARD)]
B = [[h < 0.55 + RNG.uniform(-0.3, 0.3) for h in items] for items in HARD]


def slow(a: list[list[bool]], b: list[list[bool]], draws: int) -> tuple[list[float], list[float]]:
    """Differences and gains, each of seeds drawn with replacement and of items drawn within them."""
    rng, differences, gains = random.Random(1), [], []
    for _ in range(draws):
        rates = []
        for s in rng.choices(range(len(a)), k=len(a)):
            items = rng.choices(range(len(a[s])), k=len(a[s]))
            rates.append([sum(arm[s][i] for i in items) / len(items) for arm in (a, b)])
        x, y = (sum(column) / len(a) for column in zip(*rates, strict=True))
        differences.append(x - y)
        gains.append(x / y - 1)
    return differences, gains


def test_it_is_the_bootstrap_that_draws_item_by_item() -> None:
    found = compare(A, B)
    differences, gains = slow(A, B, 4_000)
    assert found.gain is not None
    drawn_a, drawn_b = drawn_rates(np.array([outcomes(x, y) for x, y in zip(A, B, strict=True)]), 0, 10_000)
    for fast, values in ((drawn_a - drawn_b, differences), (drawn_a / drawn_b - 1, gains)):
        low, high = np.percentile(values, [2.5, 97.5])
        assert np.percentile(fast, [2.5, 97.5]) == pytest.approx([low, high], abs=0.06 * (high - low))
    low, high = np.percentile(drawn_a / drawn_b - 1, [2.5, 97.5])
    assert (found.gain.low, found.gain.high) == (low, high)
    assert found.difference.low <= np.percentile(drawn_a - drawn_b, 2.5) < found.difference.mean
    assert found.seeds == 3
    assert compare(A, B) == found


def test_one_seed_gives_the_interval_of_a_paired_difference() -> None:
    found = compare(A[:1], B[:1]).difference
    d = np.array(A[0], dtype=float) - np.array(B[0], dtype=float)
    expected = 1.96 * d.std() / len(d) ** 0.5
    assert found.mean == pytest.approx(d.mean())
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.1)


def test_pairing_narrows_the_interval_of_arms_that_fail_alike() -> None:
    hard = [h < 0.7 for h in HARD[0]]
    nearly = [not hard[0], *hard[1:]]
    mixed = sorted(nearly)
    paired, broken = (compare([hard], [other]).difference for other in (nearly, mixed))
    assert paired.high - paired.low < (broken.high - broken.low) / 2


def test_seeds_that_differ_widen_the_interval() -> None:
    alike = [[i % 10 < 7 for i in range(100)]] * 3
    apart = [[i % 10 < k for i in range(100)] for k in (5, 7, 9)]
    widths = [rate(arm).high - rate(arm).low for arm in (alike, apart)]
    assert widths[1] > 1.5 * widths[0]
    assert [round(rate(arm).mean, 6) for arm in (alike, apart)] == [0.7, 0.7]


def test_no_interval_closes_up_where_nothing_differs() -> None:
    same = compare([[True] * 10] * 2, [[True] * 10] * 2).difference
    assert same.low < -0.1 < same.mean == 0 < 0.1 < same.high
    none = rate([[False] * 10] * 2)
    assert (none.mean, none.low) == (0, 0)
    assert none.high == pytest.approx(0.161, abs=0.001)  # Wilson's, 0 of 20


def test_a_gain_over_nothing_is_not_a_number() -> None:
    found = compare([[True] * 20], [[False] * 20])
    assert found.gain is None
    assert found.difference.mean == found.difference.high == 1
    assert found.mcnemar_p < 1e-4
    with pytest.raises(ValueError, match="20 and 19"):
        compare([[True] * 20], [[False] * 19])


def test_outcomes_count_every_item_once() -> None:
    assert outcomes([True, True, False, False, False], [True, False, True, False, False]) == [1, 1, 1, 2]
    sizes = [sum(outcomes(a, b)) for a, b in zip(A, B, strict=True)]
    assert all(x == y for x, y in pairwise(sizes))
