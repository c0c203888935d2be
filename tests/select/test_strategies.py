"""Selection: the fast greedy pick against a slow one, and the controls."""

from __future__ import annotations

import numpy as np
import pytest

from bridge_edge.errors import UserError
from bridge_edge.select.strategies import STRATEGIES, choose, percentile_ranks


def toy(n: int, seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    hard = rng.integers(0, 4, n).astype(np.float32) if ties else rng.random(n).astype(np.float32)
    vectors = rng.normal(size=(n, 6)).astype(np.float32)
    return hard, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


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
def test_bridge_is_the_slow_greedy_pick(alpha: float, trim: float) -> None:
    for seed in range(6):
        hard, vectors = toy(40, seed)
        assert choose(hard, vectors, 15, "bridge", alpha, trim) == slow_bridge(hard, vectors, 15, alpha, trim)


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
    assert sorted(choose(hard, vectors, 12, strategy, trim=0.2)) == list(range(12))
    assert sorted(choose(hard, vectors, 99, strategy)) == list(range(12))
    assert choose(hard[:1], vectors[:1], 1, strategy) == [0]


def test_seeds_matter_to_random_only_where_they_should() -> None:
    hard, vectors = toy(60, 3)
    assert choose(hard, vectors, 10, "random", seed=1) != choose(hard, vectors, 10, "random", seed=2)
    assert choose(hard, vectors, 10, "bridge", seed=1) == choose(hard, vectors, 10, "bridge", seed=2)


def test_the_hardest_share_is_trimmed_where_difficulty_counts() -> None:
    hard, vectors = toy(100, 7)
    hardest = set(np.argsort(-hard)[:5].tolist())
    for strategy in ("bridge", "difficulty"):
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
