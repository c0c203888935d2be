"""Batches: nothing lost, nothing twice, within the bound, little padding."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from bridge_edge.train.batches import LENGTH_STEP, Encoded, bucket, collate, epoch


def examples(n: int, seed: int = 0, longest: int = 200) -> list[Encoded]:
    rng = random.Random(seed)
    sizes = [rng.randint(3, longest) for _ in range(n)]
    return [Encoded(np.arange(1, s + 1, dtype=np.int32), np.full(s, s % 3, dtype=np.int8)) for s in sizes]


@pytest.mark.parametrize(("count", "bound", "window"), [(500, 2048, 4096), (500, 2048, 64), (37, 50, 10), (1, 8, 4)])
def test_an_epoch_holds_every_index_once_within_the_bound(count: int, bound: int, window: int) -> None:
    rows = examples(count)
    batches = epoch(rows, bound, 3, window)
    assert Counter(i for b in batches for i in b) == Counter(range(count))
    for batch in batches:
        padded = max(len(rows[i]) for i in batch) * len(batch)
        assert padded <= bound or len(batch) == 1  # one row that is itself too long goes alone


def test_padding_is_small_and_lengths_are_few() -> None:
    rows = examples(2000, 1)
    batches = epoch(rows, 4096, 0)
    real = sum(len(r) for r in rows)
    padded = sum(collate([rows[i] for i in b], 0).ids.numel() for b in batches)
    assert 1 - real / padded < 0.15
    assert all(collate([rows[i] for i in b], 0).ids.shape[1] % LENGTH_STEP == 0 for b in batches)


def test_epochs_are_repeatable_and_differ() -> None:
    rows = examples(300, 2)
    assert epoch(rows, 1024, 5) == epoch(rows, 1024, 5)
    assert epoch(rows, 1024, 5) != epoch(rows, 1024, 6)


def test_bucket_takes_the_given_order_alone() -> None:
    assert bucket([5, 1, 3, 9], 6, [0, 1, 2]) == [[1, 2], [0]]
    assert bucket([], 6, []) == []


def test_collate_pads_on_the_right_without_loss() -> None:
    rows = examples(4, 3, 9)
    batch = collate(rows, 7)
    for i, row in enumerate(rows):
        assert batch.ids[i, : len(row)].tolist() == row.ids.tolist()
        assert batch.segments[i, : len(row)].tolist() == row.segments.tolist()
        assert set(batch.ids[i, len(row) :].tolist()) <= {7}
        assert not batch.segments[i, len(row) :].any()
    assert batch.tokens == sum(map(len, rows))
