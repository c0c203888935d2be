"""What is said of a claim follows its interval, and what was not measured is not made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.ablate.arms import Arm, Claim, Experiment
from bridge_edge.ablate.bootstrap import Comparison, Interval
from bridge_edge.ablate.cells import Results, Setting, cell_of
from bridge_edge.ablate.labels import label_figures, label_means, label_table
from bridge_edge.ablate.report import FAILS, HOLDS, NOTHING, OPEN, markdown, summarise, verdict

A, B = Arm("ours", ("student.lr=1e-3",)), Arm("theirs", ("student.lr=2e-3",), "baseline")
BETTER = Claim("ours is better", "ours", "theirs")
TRIAL = Experiment("trial", "Is it?", (A, B), (BETTER, Claim("ours can be read", "ours", "theirs", of="parsed")))
SETTING = Setting(("recipe=legal",), Path("runs"), 2)


@pytest.mark.parametrize(
    ("low", "high", "better", "equal"),
    [(0.01, 0.2, HOLDS, HOLDS), (0, 0.2, OPEN, HOLDS), (-0.1, 0.2, OPEN, OPEN), (-0.2, -0.1, FAILS, FAILS),
     (0, 0, OPEN, HOLDS), (-0.1, 0, OPEN, OPEN)],
)  # fmt: skip
def test_a_claim_is_decided_by_the_whole_interval(low: float, high: float, better: str, equal: str) -> None:
    found = Comparison(Interval((low + high) / 2, low, high), None, 0.5, 3)
    assert verdict(BETTER, found) == better
    assert verdict(Claim("at least equal", "a", "b", equal=True), found) == equal


def test_a_claimed_gain_is_held_against_the_relative_interval() -> None:
    claim = Claim("41 % more", "a", "b", gain=0.41)
    points = Interval(0.2, 0.15, 0.25)
    for low, high, expected in ((0.41, 0.6, HOLDS), (0.3, 0.5, OPEN), (0.2, 0.4, FAILS)):
        assert verdict(claim, Comparison(points, Interval(0.4, low, high), 0.0, 3)) == expected
    assert verdict(claim, Comparison(points, None, 0.0, 3)) == OPEN


def row(arm: Arm, seed: int, correct: str, items: str = "same", parsed: str = "") -> dict[str, Any]:
    cell = cell_of(arm, seed, SETTING)
    sets = {"test": {"items": items, "n": len(correct), "correct": correct, "parsed": parsed or "1" * len(correct)}}
    teacher = {"queries": 30, "usd": 0.5, "tokens": 100, "pool": 600}
    notes = {"right_answer_wrong_steps": 0.25, "kept": 500} if arm.who == "student" else {}
    return {"cell": cell.id, "key": cell.id, "sets": sets, "teacher": teacher, "annotate": notes, "seed": seed}


def results(tmp_path: Path, *rows: dict[str, Any]) -> Results:
    found = Results(tmp_path / "results.jsonl")
    for one in rows:
        found.add(one)
    return found


def test_arms_and_claims_come_from_the_items(tmp_path: Path) -> None:
    kept = results(
        tmp_path,
        *(row(A, seed, "1" * 36 + "0" * 4) for seed in (0, 1)),
        *(row(B, seed, "1" * 20 + "0" * 20, parsed="1" * 30 + "0" * 10) for seed in (0, 1)),
    )
    tables = summarise([TRIAL], [0, 1], SETTING, kept)
    found = tables["trial"]["sets"]["test"]
    ours, theirs = found["arms"]
    assert ours["accuracy"]["mean"] == pytest.approx(0.9)
    assert (theirs["accuracy"]["mean"], theirs["unreadable"]) == (pytest.approx(0.5), pytest.approx(0.25))
    assert (ours["wrong_steps"], theirs["wrong_steps"], ours["queries"]) == (0.25, None, 30)
    better, read = found["claims"]
    assert better["verdict"] == read["verdict"] == HOLDS
    assert better["difference"]["mean"] == pytest.approx(0.4)
    assert better["gain"]["mean"] == pytest.approx(0.8)
    assert read["difference"]["mean"] == pytest.approx(0.25)
    found["claims"].append({**better, "claim": "ours is much better"})
    text = markdown("Trial", tables, ["student of x: it broke"])
    assert text.count("| ours | theirs | right | ") == 1
    assert "- holds: ours is much better (40.0 (" in text
    assert "| ours | 30 | 0.5 | 90.0 (" in text
    assert "| ours | theirs | readable | 25.0 (" in text
    assert "- holds: ours is better (40.0 (" in text
    assert "it broke" in text
    assert "paired bootstrap" in text
    assert json.loads(json.dumps(tables)) == tables


def test_only_seeds_that_both_arms_have_are_compared(tmp_path: Path) -> None:
    kept = results(tmp_path, row(A, 0, "1100"), row(A, 1, "1111"), row(B, 1, "0000"))
    found = summarise([TRIAL], [0, 1], SETTING, kept)["trial"]["sets"]["test"]
    assert (found["arms"][0]["seeds"], found["arms"][1]["seeds"]) == (2, 1)
    assert (found["claims"][0]["seeds"], found["claims"][0]["difference"]["mean"]) == (1, 1.0)


def test_what_was_not_measured_or_on_other_items_is_not_compared(tmp_path: Path) -> None:
    kept = results(tmp_path, row(A, 0, "11"))
    found = summarise([TRIAL], [0, 1], SETTING, kept)["trial"]["sets"]["test"]
    assert {c["verdict"] for c in found["claims"]} == {NOTHING}
    assert found["arms"][1]["seeds"] == 0
    kept.add(row(B, 0, "10", items="other"))
    tables = summarise([TRIAL], [0, 1], SETTING, kept)
    assert tables["trial"]["sets"]["test"]["claims"][0]["note"] == "the arms were tested on other items"
    assert "- not measured: ours is better (the arms were tested on other items)" in markdown("T", tables, [])


def test_a_line_that_a_kill_cut_off_is_dropped_and_the_last_one_of_a_cell_counts(tmp_path: Path) -> None:
    kept = results(tmp_path, row(A, 0, "11"), row(B, 0, "10"), row(A, 0, "01"))
    with kept.path.open("a") as file:
        file.write('{"cell": "half')
    again = Results.read(kept.path)
    assert {r["sets"]["test"]["correct"] for r in again.rows.values()} == {"01", "10"}
    again.add(row(A, 1, "00"))
    assert len(Results.read(kept.path).rows) == 3


def test_what_was_measured_of_a_model_serves_every_cell_that_comes_to_it(tmp_path: Path) -> None:
    kept = results(tmp_path, row(A, 0, "11") | {"key": "model"}, row(B, 0, "10"))
    assert kept.measured("model") == row(A, 0, "11")["sets"]
    assert kept.measured("another") is None


def test_arms_that_mix_labels_have_a_table_of_their_own(tmp_path: Path) -> None:
    kd = {"mix": "static", "exposure_bias": 0.125}
    metrics: dict[str, Any] = {"tokens": 900, "seconds": 3.0, "loss": 0.1, "kd": kd}
    assert label_figures({"tokens": 900, "seconds": 3.0}) == {}
    mixed = label_figures(metrics)
    assert mixed == {"tokens": 900, "seconds": 3.0, "exposure_bias": 0.125}
    counts = {"kd": metrics["kd"] | {"lambda_histogram": [6, 2, 0]}}
    more = label_figures(metrics | {"tokens": 1100, "seconds": 6.0} | counts)
    kept = results(
        tmp_path,
        row(A, 0, "11") | {"labels": mixed},
        row(A, 1, "10") | {"labels": more},
        *(row(B, seed, "10") for seed in (0, 1)),
    )
    text = markdown("A title", summarise([TRIAL], range(2), SETTING, kept), [])
    assert "| ours | - | - | - | +0.1250 | 1,000 | 4 | 1.0 | 75 25 0 |" in text
    assert "| theirs | - | - |" not in text
    slower = [
        {"arm": name, "labels": label_means([{"labels": mixed | {"seconds": s}}])} for name, s in (("a", 2), ("b", 9))
    ]
    assert label_table(slower)[-2] == "| b | - | - | - | +0.1250 | 900 | 9 | 4.5 | - |"
    (tmp_path / "other").mkdir()
    plain = results(tmp_path / "other", *(row(arm, 0, "11") for arm in (A, B)))
    assert "exposure bias" not in markdown("A title", summarise([TRIAL], [0], SETTING, plain), [])
