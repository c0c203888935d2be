"""What a budget buys again: a raised one, a shared one, one of a damaged neighbour, one in dollars."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.apprenticeship import LEDGER
from bridge_edge.budget import Ledger
from bridge_edge.distill import distill
from bridge_edge.errors import UserError
from bridge_edge.prices import Price, Usage
from bridge_edge.recipe_io import load_recipe
from bridge_edge.run import Run
from tests.legal import LEGAL

SMALL = (*LEGAL, "data.pool=40", "data.dev=4", "data.test=4")


def teach(folder: Path, *words: str) -> tuple[dict[str, Any], Run]:
    """A real run up to the teacher's answers."""
    summary = distill([*SMALL, *words], folder, target="teach")
    run = Run(Path(summary["run"]))
    record = run.stage("teach")
    assert record is not None
    return record["metrics"], run


def attempts(run: Run) -> list[dict[str, Any]]:
    with closing(Ledger(run.path / LEDGER)) as ledger:
        return list(ledger.attempts())


def test_a_raised_budget_asks_only_what_is_new(tmp_path: Path) -> None:
    first, one = teach(tmp_path, "budget.queries=5")
    assert (first["queries"], first["usable"], first["reused"]) == (5, 5, 0)
    second, two = teach(tmp_path, "budget.queries=9")
    assert (second["queries"], second["usable"], second["reused"]) == (9, 9, 5)
    rows = attempts(two)
    taken = [r for r in rows if one.path.name in r["origin"]]
    assert {r["item_id"] for r in taken} == {r["item_id"] for r in attempts(one)}
    assert (len(rows), len(taken)) == (9, 5)
    for name in ("data", "warmup", "score"):
        assert two.manifest["stages"][name]["taken_from"] == one.path.name

    # A run that shares all of this takes the answers and the whole ledger, also what still lies in its log.
    with closing(sqlite3.connect(two.path / LEDGER)) as held:
        held.execute("PRAGMA wal_autocheckpoint=0")
        assert held.execute("SELECT count(*) FROM attempts").fetchone() == (9,)
        third, three = teach(tmp_path, "budget.queries=9", "student.lr=0.5")
    assert three.manifest["stages"]["teach"]["taken_from"] == two.path.name
    assert third == second
    assert attempts(three) == rows

    # A damaged neighbour, and one of its own answers paid already: nothing of it is lost or bought again.
    (one.path / LEDGER).write_bytes(b"no database")
    own = Run.create(tmp_path, load_recipe([*SMALL, "budget.queries=9", "student.lr=0.25"]))
    with closing(Ledger(own.path / LEDGER, price=Price(2.5, 10.0))) as ledger:
        for row in rows[:2]:
            paid = ledger.reserve(row["request_hash"], row["item_id"], row["used_prompt"], row["used_completion"])
            ledger.settle(paid, Usage(row["used_prompt"], row["used_completion"]), row["response"])
    fourth, four = teach(tmp_path, "budget.queries=9", "student.lr=0.25")
    assert "taken_from" not in four.manifest["stages"]["teach"]
    assert (fourth["queries"], fourth["usable"], fourth["reused"]) == (9, 9, 7)
    assert four.manifest["stages"]["teach"]["output"] == two.manifest["stages"]["teach"]["output"]


def test_a_cap_in_dollars_stops_in_time(tmp_path: Path) -> None:
    metrics, run = teach(tmp_path, "budget.queries=9", "budget.usd=0.006")
    assert metrics["stopped_by"] == "usd"
    assert 0 < metrics["usable"] < 9
    assert metrics["usd"] <= 0.006
    with pytest.raises(UserError, match="no usable answer"):
        teach(tmp_path, "budget.queries=9", "budget.usd=0.0001")
    assert run.stage("apprentice") is None
