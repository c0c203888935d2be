"""Accuracy by how frequent a kind of items is: figures by hand, and intervals against drawing items one by one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bridge_edge.benchmarks.kinds import Measured, difference, main
from bridge_edge.data.samples import Sample, write_jsonl


def items(name: str, sizes: dict[str, int]) -> list[Sample]:
    return [Sample(f"{name} {kind} {i}", "yes", kind=kind) for kind, n in sizes.items() for i in range(n)]


def grid_of(folder: Path, right: dict[str, list[str]]) -> Path:
    """A finished grid over a pool of 30 a and 10 b, tested on 2 of each; `right`: outcomes of each arm by seed."""
    pool, test = items("pool", {"b": 10, "a": 30}), items("test", {"a": 2, "b": 2})
    (folder / "ablate-x").mkdir(parents=True)
    rows = []
    for arm, seeds in right.items():
        for seed, hits in enumerate(seeds):
            run = folder / f"{arm}-{seed}"
            for name, content in (("pool", pool), ("test", test)):
                (run / "data").mkdir(parents=True, exist_ok=True)
                write_jsonl(run / "data" / f"{name}.jsonl", content)
            (run / "select").mkdir()
            (run / "select" / "selected.json").write_text(json.dumps([{"id": s.id} for s in pool[8:11]]))
            words = ["recipe=x", f"seed={seed}", f"select.strategy={arm}"]
            sets = {"test": {"correct": hits}}
            rows.append({"who": "ta", "seed": seed, "words": words, "run": run.name, "sets": sets})
    (folder / "ablate-x" / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_kinds_are_ranked_and_weighed_as_the_pool_has_them(tmp_path: Path) -> None:
    runs = grid_of(tmp_path, {"random": ["1110", "1000"], "bridge": ["1111", "1011"]})
    done = CliRunner().invoke(main, [str(runs)])
    assert done.exit_code == 0, done.output
    chance, ours = json.loads(done.output.splitlines()[-1])
    assert (chance["arm"], ours["arm"]) == ("ta: select.strategy=random", "ta: select.strategy=bridge")
    assert chance["seeds"] == ours["seeds"] == [0, 1]
    assert ours["asked"] == [1, 2], "of a, which is the most frequent, one was asked"
    assert (chance["right"], ours["right"]) == ([0.75, 0.25], [0.75, 1.0])
    assert (chance["all"], ours["all"]) == (0.5, 0.875)
    assert (chance["as the pool"], ours["as the pool"]) == (0.625, 0.8125)
    assert ours["points"][0] == 18.8
    assert chance["points"] is None


def test_intervals_are_those_of_items_drawn_one_by_one() -> None:
    rng = np.random.default_rng(1)
    shares, sizes = [0.8, 0.2], [60, 40]
    pairs: list[tuple[Measured, Measured]] = []
    for seed in range(3):
        a, b = ([(rng.random(n) < p).astype(int) for n in sizes] for p in (0.8, 0.6))
        pairs.append((Measured("a", seed, shares, [1, 1], a), Measured("b", seed, shares, [1, 1], b)))
    found = difference(pairs)
    drawn = []
    for _ in range(4000):
        values = []
        for one, two in (pairs[i] for i in rng.integers(3, size=3)):
            picks = [rng.integers(n, size=n) for n in sizes]
            kinds = zip(shares, one.right, two.right, picks, strict=True)
            values.append(sum(w * (x[p] - y[p]).mean() for w, x, y, p in kinds))
        drawn.append(np.mean(values))
    assert found.mean == pytest.approx(np.mean([a.as_pool - b.as_pool for a, b in pairs]))
    assert [found.low, found.high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.012)
    assert found.high - found.low > 0.1


def test_a_folder_without_a_grid_or_its_runs_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [str(tmp_path)])
    assert done.exit_code == 2
    assert "has no results of a grid" in done.output
    runs = grid_of(tmp_path / "runs", {"random": ["1110"]})
    (runs / "random-0" / "select" / "selected.json").unlink()
    done = CliRunner().invoke(main, [str(runs)])
    assert done.exit_code == 2
    assert "lacks selected.json" in done.output
