"""The performance suite: its intervals and verdicts, and that another commit's code is what is measured."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.benchmarks import suite
from bridge_edge.benchmarks.throughput import alternate
from bridge_edge.errors import UserError


def test_ratios_are_of_neighbours_after_a_warm_up() -> None:
    now = iter([0, 9, 20, 24, 24, 25, 30, 34, 40, 48])  # beginnings of the warm-up, then beginnings and ends
    found = alternate(lambda: 8, lambda: 4, 2, lambda: next(now))
    assert found["ratios"] == [(8 / 4) / (4 / 1), (8 / 4) / (4 / 8)]
    assert suite.bounds(found["ratios"]) == {"ratio": 2.25, "low": 0.5, "high": 4.0, "rounds": 2}


def test_only_intervals_that_do_not_meet_are_a_change() -> None:
    before = suite.bounds([1.0, 1.2, 1.1])
    assert suite.verdict(suite.bounds([0.8, 1.0]), before) == "as before"
    assert suite.verdict(suite.bounds([0.8, 0.9]), before) == "SLOWER"
    assert suite.verdict(suite.bounds([1.3, 1.4]), before) == "faster"
    assert suite.verdict(before, None) == "new"


def in_this_process(code: str, words: Sequence[str]) -> dict[str, Any]:
    """What `conversion.measure` does in a fresh process, without the seconds that one takes to import torch."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {"a": list(words), "Path": Path, "json": json})
    return {"last": (printed.getvalue().strip().splitlines() or [""])[-1]}


@pytest.mark.parametrize("name", list(suite.PARTS))
def test_every_part_measures_both_ways(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"ITEMS": 4, "ANNOTATED": 4, "POOL": 300, "WIDTH": 8, "BUDGET": 20, "DECODED": 4}
    for key, value in small.items():
        monkeypatch.setattr(suite, key, value)
    monkeypatch.setattr(suite, "SHAPE", {**suite.SHAPE, "vocab_size": 2_000, "hidden_size": 64, "num_hidden_layers": 1})
    monkeypatch.setattr("bridge_edge.benchmarks.conversion.measure", in_this_process)
    monkeypatch.setattr("bridge_edge.benchmarks.throughput.BOUND", 4)
    found = suite.PARTS[name](2)
    assert len(found["ratios"]) == 2
    assert min(found["ratios"]) > 0
    assert found["ours_per_s"] > 0


def test_the_committed_ratios_are_of_the_parts_that_there_are() -> None:
    committed = json.loads(suite.BASELINE.read_text(encoding="utf-8"))
    assert set() < set(committed) <= set(suite.PARTS)
    assert all(row["low"] <= row["ratio"] <= row["high"] for row in committed.values())


@pytest.mark.skipif(not shutil.which("git"), reason="no git on this machine")
def test_another_commits_code_is_what_is_measured() -> None:
    root = suite.BASELINE.resolve().parents[1]
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    say = (
        "import bridge_edge.errors as e, bridge_edge.benchmarks.suite as s, bridge_edge.embedded as m;"
        "from bridge_edge.train.models import locate; print(e.__file__, s.__file__, m.__file__, locate('embedded:ta'))"
    )
    with suite.tree_of("HEAD") as tree:
        env = {**os.environ, "PYTHONPATH": str(tree)}
        done = subprocess.run(
            [sys.executable, "-c", say], env=env, cwd=tree, capture_output=True, text=True, check=True
        )
        code, benchmarks, embedded, ta = (Path(line) for line in done.stdout.split())
        assert code == tree / "bridge_edge" / "errors.py"
        assert code.resolve() != root / "bridge_edge" / "errors.py"
        assert benchmarks.resolve() == Path(suite.__file__).resolve()
        assert embedded.resolve() != root / "bridge_edge" / "embedded" / "__init__.py"
        assert ta.resolve() == root / "bridge_edge" / "embedded" / "models" / "ta", "the same work on both sides"
    assert not tree.exists()
    listed = subprocess.run(["git", "-C", str(root), "worktree", "list"], capture_output=True, text=True, check=True)
    assert str(tree.parent) not in listed.stdout
    with pytest.raises(UserError, match="cannot check out 'no-such-commit'"), suite.tree_of("no-such-commit"):
        pass


def test_a_part_that_a_side_lacks_is_one_clear_line() -> None:
    with pytest.raises(UserError, match=r"the suite failed on this tree: .*'flying'"):
        suite.in_child(None, ["flying"])
