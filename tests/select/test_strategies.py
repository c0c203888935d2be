"""Selection: the fast greedy pick against a slow one, and the controls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bridge_edge.errors import UserError
from bridge_edge.select import greedy
from bridge_edge.select.strategies import STRATEGIES, Candidates, percentile_ranks, ranks_within
from bridge_edge.select.strategies import choose as choose_from


def toy(n: int, seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    hard = rng.integers(0, 4, n).astype(np.float32) if ties else rng.random(n).astype(np.float32)
    vectors = rng.normal(size=(n, 6)).astype(np.float32)
    return hard, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def choose(
    hard: np.ndarray,
    vectors: np.ndarray,
    budget: int,
    strategy: str,
    alpha: float = 0.5,
    trim: float = 0.0,
    **more: Any,
) -> list[int]:
    """`choose` of the package from plain arrays; `more` is the seed and what else is known of the pool."""
    seed = more.pop("seed", 0)
    return choose_from(Candidates(hard, vectors, **more), budget, strategy, alpha, trim, seed)


def slow_ranks(values: np.ndarray) -> list[float]:
    """The mean place of each value among all, counted one by one."""
    below = [sum(other < value for other in values) for value in values]
    equal = [sum(other == value for other in values) for value in values]
    return [(b + (e - 1) / 2) / max(1, len(values) - 1) for b, e in zip(below, equal, strict=True)]


def slow_bridge(hard: np.ndarray, vectors: np.ndarray, budget: int, alpha: float, trim: float) -> list[int]:
    """argmax over all items of the documented gain, with every distance computed anew at each step."""
    ranks = slow_ranks(hard)
    allowed = [i for i in range(len(hard)) if ranks[i] <= 1 - trim]
    if len(allowed) < budget:
        allowed = list(range(len(hard)))
    chosen = [max(allowed, key=lambda i: (ranks[i], -i))]
    while len(chosen) < budget:
        rest = [i for i in allowed if i not in chosen]
        far = {i: min(1 - float(vectors[i] @ vectors[c]) for c in chosen) for i in rest}
        largest = max(far.values())
        gain = {i: alpha * ranks[i] + (1 - alpha) * (far[i] / largest if largest > 0 else 0) for i in rest}
        chosen.append(max(rest, key=lambda i: (round(gain[i], 6), -i)))
    return chosen


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("trim", [0.0, 0.1])
def test_greedy_is_the_slow_greedy_pick(alpha: float, trim: float) -> None:
    for seed in range(6):
        hard, vectors = toy(40, seed)
        assert choose(hard, vectors, 15, "greedy", alpha, trim) == slow_bridge(hard, vectors, 15, alpha, trim)


def test_bridge_asks_every_stratum_in_proportion_and_greedily_within() -> None:
    """Two tight groups of unlike size and spread: the far-flung one does not take the other's places."""
    rng = np.random.default_rng(5)
    dense = np.array([1.0, 0, 0, 0]) + 0.01 * rng.normal(size=(300, 4))
    wide = np.array([0, 1.0, 0, 0]) + 0.8 * rng.normal(size=(100, 4))
    vectors = np.concatenate([dense, wide]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    hard = rng.random(400).astype(np.float32)
    answers = ["Yes" if i % 2 else "No" for i in range(400)]
    pool = Candidates(hard, vectors, answers)
    chosen = choose_from(pool, 40, "bridge")
    assert 26 <= sum(i < 300 for i in chosen) <= 34  # 30 by their share
    assert sum(i < 300 for i in choose_from(pool, 40, "greedy", 0.1)) < 15
    assert 15 <= sum(i % 2 for i in chosen) <= 25
    assert hard[chosen].mean() > hard.mean() + 0.1
    again = choose_from(pool, 40, "bridge", already=chosen[:12])
    assert again[:12] == chosen[:12]
    assert len(set(again)) == 40
    assert 26 <= sum(i < 300 for i in again) <= 34


def test_ranks_are_percentiles_with_shared_ties() -> None:
    for seed in range(5):
        hard, _ = toy(23, seed, ties=True)
        assert percentile_ranks(hard) == pytest.approx(slow_ranks(hard))
    assert percentile_ranks(np.array([5.0])).tolist() == [0.0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_picks_are_distinct_repeatable_and_grow_at_the_end(strategy: str) -> None:
    hard, vectors = toy(60, 3)
    small = choose(hard, vectors, 10, strategy, trim=0.05, seed=4)
    large = choose(hard, vectors, 25, strategy, trim=0.05, seed=4)
    assert choose(hard, vectors, 25, strategy, trim=0.05, seed=4) == large
    assert len(set(large)) == 25
    assert large[:10] == small  # a larger budget asks the same items first, so that paid answers serve again


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_budget_of_the_whole_pool_takes_everything(strategy: str) -> None:
    hard, vectors = toy(12, 1)
    assert sorted(choose(hard, vectors, 12, strategy, 1.0, 0.2)) == list(range(12))
    assert sorted(choose(hard, vectors, 99, strategy)) == list(range(12))
    assert choose(hard[:1], vectors[:1], 1, strategy) == [0]


def test_seeds_matter_to_random_only_where_they_should() -> None:
    hard, vectors = toy(60, 3)
    assert choose(hard, vectors, 10, "random", seed=1) != choose(hard, vectors, 10, "random", seed=2)
    assert choose(hard, vectors, 10, "greedy", seed=1) == choose(hard, vectors, 10, "greedy", seed=2)


def test_the_hardest_share_is_trimmed_where_difficulty_counts() -> None:
    hard, vectors = toy(100, 7)
    hardest = set(np.argsort(-hard)[:5].tolist())
    for strategy in ("bridge", "greedy", "difficulty", "kmeans"):
        assert not hardest & set(choose(hard, vectors, 50, strategy, trim=0.05))
        assert hardest & set(choose(hard, vectors, 50, strategy, trim=0.0))
    order = [i for i in np.argsort(-hard).tolist() if i not in hardest]
    assert choose(hard, vectors, 20, "difficulty", trim=0.05) == order[:20]


def test_diversity_visits_every_cluster_first() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(5, dtype=np.float32)
    vectors = np.repeat(centres, 20, axis=0) + rng.normal(scale=0.01, size=(100, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chosen = choose(np.zeros(100), vectors, 5, "diversity", seed=3)
    assert {i // 20 for i in chosen} == set(range(5))


def test_equal_items_do_not_break_it() -> None:
    vectors = np.tile(np.array([1.0, 0.0], dtype=np.float32), (8, 1))
    for strategy in STRATEGIES:
        assert len(set(choose(np.ones(8, dtype=np.float32), vectors, 5, strategy, trim=0.1))) == 5


def test_an_unknown_strategy_is_named() -> None:
    hard, vectors = toy(5, 0)
    with pytest.raises(UserError, match="did you mean 'bridge'"):
        choose(hard, vectors, 2, "brigde")


def test_an_answer_prior_does_not_pass_for_difficulty() -> None:
    """A model that always leans to No finds every Yes hard; ranked within answers both kinds are chosen."""
    rng = np.random.default_rng(3)
    answers = ["Yes"] * 100 + ["No"] * 100
    difficulty = np.concatenate([rng.uniform(2, 3, 100), rng.uniform(0, 1, 100)]).astype(np.float32)
    vectors = rng.normal(size=(200, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    without = choose(difficulty, vectors, 40, "difficulty")
    within = choose(difficulty, vectors, 40, "difficulty", groups=answers)
    assert {answers[i] for i in without} == {"Yes"}
    assert sum(answers[i] == "Yes" for i in within) == 20
    hardest = sorted(range(100), key=lambda i: -difficulty[i])[:20]
    assert set(hardest) <= set(within)


def test_ranks_within_groups_are_those_of_each_group_alone() -> None:
    hard, _ = toy(60, 2, ties=True)
    groups = ["Yes"] * 20 + ["No"] * 30 + ["a", None, "b", "c", "d"] * 2  # the last ten are each too few to rank
    ranks = ranks_within(hard, groups)
    for part in (slice(0, 20), slice(20, 50), slice(50, 60)):
        assert ranks[part] == pytest.approx(slow_ranks(hard[part]))


def test_doubtful_items_are_hard_and_are_not_trimmed() -> None:
    hard, vectors = toy(100, 7)
    doubtful = [*np.argsort(hard)[:3].tolist(), int(np.argmax(hard))]  # three that look easy, one that is trimmed
    for strategy in ("difficulty", "greedy"):
        assert set(doubtful) <= set(choose(hard, vectors, 8, strategy, 1.0, 0.05, doubtful=doubtful))
    assert not set(doubtful[:3]) & set(choose(hard, vectors, 8, "difficulty", 1.0, 0.05))


@pytest.mark.parametrize("strategy", ["bridge", "greedy", "diversity", "facility-location"])
def test_repeated_items_come_after_everything_that_is_new(strategy: str) -> None:
    _, vectors = toy(12, 4)
    pool = np.concatenate([vectors] * 5)
    chosen = choose(np.full(60, 0.5, dtype=np.float32), pool, 20, strategy)
    assert {i % 12 for i in chosen[:12]} == set(range(12))
    assert len(set(chosen)) == 20


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    for where in range(2):
        hard, vectors = toy(20, 1)
        (hard if where == 0 else vectors[:, 3])[7] = bad
        with pytest.raises(UserError, match=r"1 of 20 items.*item 7"):
            choose(hard, vectors, 5, "bridge")
    with pytest.raises(UserError, match="shape"):
        choose(hard[:5], vectors, 5, "random")


def test_long_shortlists_and_short_ones_pick_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks change nothing: not their length, nor the size of the shortlist or of the chunks."""
    hard, vectors = toy(400, 11)
    for strategy in ("bridge", "greedy", "diversity"):
        expected = choose(hard, vectors, 150, strategy)
        for shortest, block, chunk in ((4, 3, 7), (30, 200, 64), (2000, 1, 1000)):
            monkeypatch.setattr(greedy, "SHORTEST", shortest)
            monkeypatch.setattr(greedy, "BLOCK", block)
            monkeypatch.setattr(greedy, "CHUNK", chunk)
            assert choose(hard, vectors, 150, strategy) == expected
        monkeypatch.undo()
