"""The table of results and the paired rates are computed as they say."""

from __future__ import annotations

import json
from pathlib import Path

from bridge_edge.benchmarks.claims import finished, markdown, spread
from bridge_edge.benchmarks.throughput import alternate


def record(arm: str, seed: int, test: float, files: float | None = None) -> dict[str, object]:
    scores = {"test": {"accuracy": test}} | ({"files": {"accuracy": files}} if files is not None else {})
    return {"recipe": "legal", "arm": arm, "seed": seed, "teacher": {"queries": 300}, "scores": scores}


def test_spread_is_mean_and_range_in_percent() -> None:
    assert spread([0.9, 0.95, 1.0]) == "95.0 (90.0 to 100.0)"


def test_markdown_pools_the_seeds_of_an_arm() -> None:
    lines = markdown(
        [record("bridge", 0, 0.9, 0.8), record("bridge", 1, 1.0, 0.9), record("direct", 0, 0.5)]
    ).splitlines()
    assert lines[2] == "| legal | bridge | 300 | 95.0 (90.0 to 100.0) | 85.0 (80.0 to 90.0) | 2 |"
    assert lines[3] == "| legal | direct | 300 | 50.0 (50.0 to 50.0) |  | 1 |"


def test_a_line_cut_by_a_kill_is_not_a_result(tmp_path: Path) -> None:
    whole = json.dumps(record("bridge", 0, 0.9))
    path = tmp_path / "results.jsonl"
    path.write_text(whole + "\n" + whole[:25])
    assert list(finished(path)) == [("legal", "bridge", 0)]


def test_alternate_takes_the_ratio_of_each_pair_after_a_warm_up() -> None:
    calls: list[str] = []

    def work(name: str, units: float) -> float:
        calls.append(name)
        return units

    found = alternate(lambda: work("a", 10), lambda: work("b", 10), 2)
    assert calls == ["a", "b"] * 3
    assert found["pairs"] == 2
    assert found["ratio_min"] <= found["ratio_median"] <= found["ratio_max"]
