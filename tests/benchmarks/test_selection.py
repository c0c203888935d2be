"""The selection benchmark: its pool, its reference, and the command from end to end on a small pool."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from bridge_edge.benchmarks.selection import against_exact, in_child, main, make_pool
from bridge_edge.errors import UserError


def test_the_pool_is_normalised_and_repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge_edge.benchmarks.selection.CHUNK", 30)
    hard, vectors = make_pool(100, 16, 4, seed=1)
    assert vectors.shape == (100, 16)
    assert vectors.dtype == hard.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(100), abs=1e-5)
    assert (vectors == make_pool(100, 16, 4, seed=1)[1]).all()
    assert (vectors != make_pool(100, 16, 4, seed=2)[1]).any()


def test_picks_equal_the_plain_method_and_parts_beat_chance() -> None:
    report = against_exact(600, 40, 16, 4, seed=0)
    assert report["greedy_equal_picks"] == report["diversity_equal_picks"] == 40
    assert report["exact"] == {"value_of_exact": 1, "gain_over_random": 1}
    assert report["random"]["gain_over_random"] == 0
    split = report["parts of 150"]
    assert 0.3 < split["gain_over_random"] <= 1.02
    assert split["value_of_exact"] > report["random"]["value_of_exact"]


def test_the_command_measures_in_a_child_and_prints_json_last() -> None:
    words = "--pool 400 --budget 20 --width 16 --spread 4 --exact-pool 0 --strategy bridge".split()
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    [row] = result["strategies"]
    assert (row["strategy"], row["chosen"], result["pool"]) == ("bridge", 20, 400)
    assert row["peak_mib"] >= row["pool_mib"] > 0
    assert "| bridge |" in done.stdout


def test_a_failing_child_is_told() -> None:
    with pytest.raises(UserError, match="brigde"):
        in_child("brigde", 50, 5, 8, 2, 0)
