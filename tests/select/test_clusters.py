"""Clusters, the stratified and the typical pick, and facility location, each against a slow and obvious way."""

from __future__ import annotations

import numpy as np
import pytest

from bridge_edge.select import clusters as clustering
from bridge_edge.select.clusters import clusters, members, nearest, stratified, typical, typicality
from bridge_edge.select.facility import facility, parts, value


def pool(n: int, seed: int, width: int = 8) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def bunches(per: int, count: int, seed: int = 0) -> np.ndarray:
    """`count` tight bunches of `per` items each, far from one another, bunch after bunch."""
    rng = np.random.default_rng(seed)
    vectors = np.repeat(np.eye(count, dtype=np.float32), per, axis=0)
    vectors += rng.normal(scale=0.01, size=vectors.shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow_value(vectors: np.ndarray, chosen: list[int]) -> float:
    return sum(max(1 + float(v @ vectors[c]) for c in chosen) for v in vectors)


def slow_facility(vectors: np.ndarray, budget: int) -> list[int]:
    """At each step the item whose addition gives the largest value, computed anew for every item."""
    chosen: list[int] = []
    while len(chosen) < budget:
        rest = [i for i in range(len(vectors)) if i not in chosen]
        chosen.append(max(rest, key=lambda i: (slow_value(vectors, [*chosen, i]), -i)))
    return chosen


def test_facility_location_is_the_slow_greedy_pick() -> None:
    for seed in range(3):
        vectors = pool(30, seed)
        chosen, slow = facility(vectors, 8, seed=0), slow_facility(vectors, 8)
        # Two items that only have each other are worth the same, so values are compared, not items.
        values = [[slow_value(vectors, picks[:k]) for k in range(1, 9)] for picks in (chosen, slow)]
        assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_the_value_is_the_documented_sum() -> None:
    vectors = pool(40, 1)
    assert value(vectors, [3, 8, 21]) == pytest.approx(slow_value(vectors, [3, 8, 21]), rel=1e-5)


def test_facility_location_in_parts_is_exact_where_parts_have_nothing_in_common() -> None:
    vectors = bunches(40, 6)
    whole = facility(vectors, 30, seed=0)
    split = facility(vectors, 30, seed=0, part=40)
    assert {i // 40 for i in split[:6]} == set(range(6))
    assert value(vectors, split) == pytest.approx(value(vectors, whole), rel=1e-4)


def test_parts_hold_every_item_once_and_stay_small() -> None:
    for vectors in (pool(2_000, 3), np.tile(pool(1, 0), (1_000, 1)), np.repeat(pool(5, 0), [900, 5, 5, 5, 85], axis=0)):
        found = parts(vectors, 100, seed=0)
        assert sorted(np.concatenate(found).tolist()) == list(range(len(vectors)))
        assert max(map(len, found)) <= 200
        assert len(found) > 1


def test_clusters_find_bunches_and_assign_each_item_to_its_nearest_centre() -> None:
    vectors = bunches(30, 5)
    labels = clusters(vectors, 5, seed=0)
    assert all(len(set(labels[i * 30 : (i + 1) * 30])) == 1 for i in range(5))
    assert [len(group) for group in members(labels)] == [30] * 5
    centres = pool(7, 5, width=5)
    slow = [min(range(7), key=lambda c: float(((v - centres[c]) ** 2).sum())) for v in vectors]
    assert nearest(vectors, centres).tolist() == slow
    assert clusters(vectors, 1, seed=0).tolist() == [0] * 150


def test_the_stratified_order_gives_every_cluster_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    monkeypatch.setattr(clustering, "clusters", lambda vectors, count, seed: labels)
    ranks = np.random.default_rng(1).random(100)
    order = stratified(ranks, np.ones(100, dtype=bool), pool(100, 0), 100, seed=0)
    for taken in (10, 20, 50, 100):
        counts = np.bincount(labels[order[:taken]], minlength=3)
        assert counts == pytest.approx(np.array([0.6, 0.3, 0.1]) * taken, abs=1)
    for cluster in range(3):
        mine = [i for i in order if labels[i] == cluster]
        assert mine == sorted(mine, key=lambda i: -ranks[i])
    some = labels != 2
    some[:20] = False  # not allowed: one whole cluster, and a third of another
    assert sorted(stratified(ranks, some, pool(100, 0), 70, seed=0)) == list(range(20, 90))


def test_typicality_is_the_inverse_mean_distance_to_the_nearest_twenty() -> None:
    vectors = pool(60, 4)
    group = np.arange(5, 45)
    slow = []
    for i in group:
        far = sorted(float(np.linalg.norm(vectors[i] - vectors[j])) for j in group if j != i)
        slow.append(1 / np.mean(far[:20]))
    assert typicality(vectors, group, np.random.default_rng(0)) == pytest.approx(np.array(slow), rel=1e-3)
    assert typicality(vectors, group[:1], np.random.default_rng(0)).tolist() == [0.0]


def test_in_a_large_cluster_a_sample_competes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "RIVALS", 10)
    found = typicality(pool(60, 4), np.arange(40), np.random.default_rng(0))
    assert np.isfinite(found).sum() == 10


def test_typical_items_come_from_the_middle_of_every_bunch_first() -> None:
    vectors = bunches(40, 32)
    chosen = typical(vectors, 64, seed=0)
    assert {i // 40 for i in chosen[:32]} == set(range(32))
    middles = np.repeat(np.eye(32, dtype=np.float32), 40, axis=0)
    off = np.linalg.norm(vectors - middles, axis=1)
    assert off[chosen[:32]].mean() < off.mean()
