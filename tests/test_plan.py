"""The plan: it does and writes nothing, counts what will be asked, and is set beside what happened."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bridge_edge import plan as planning
from bridge_edge.apprenticeship import requests_for
from bridge_edge.budget import Ledger
from bridge_edge.data.pool import build_splits, load_task
from bridge_edge.distill import distill
from bridge_edge.errors import UserError
from bridge_edge.estimate import Tokens, money, stopping_cap, tokens_of
from bridge_edge.footprint import disk_needed, memory_needed, size_of
from bridge_edge.plan import make_plan, read_plan
from bridge_edge.plan_report import comparison, plan_text
from bridge_edge.recipe_io import load_recipe
from bridge_edge.run import Run, run_path
from bridge_edge.teacher.ask import ask_all
from bridge_edge.teacher.base import Reply, Request
from bridge_edge.teacher.expert import ExpertTeacher
from tests.legal import LEGAL

SMALL = (*LEGAL, "data.pool=40", "data.dev=4", "data.test=4")
PRICED = ("teacher.price.prompt=2.5", "teacher.price.completion=10")
FLAT = Tokens([100] * 10, [200] * 10, [50] * 10, "hand", "hand")


class Wordy(ExpertTeacher):
    """Says that each of its answers has 77 tokens, and goes by another name."""

    def ask(self, request: Request) -> Reply:
        return replace(super().ask(request), completion_tokens=77, model="big-2026")


def test_a_plan_writes_nothing_and_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    words = [*SMALL, "teacher=openai-batch", "teacher.model=big", *PRICED, "budget.queries=10", "teacher.samples=2"]
    found = make_plan(load_recipe(words), tmp_path / "runs", 8)
    assert not list(tmp_path.iterdir())
    assert json.loads(json.dumps(found)) == found
    assert (found["calls"], found["teacher"]["samples"]) == (10, 2)  # five items, two answers each
    assert {s["action"] for s in found["stages"]} == {"work"}
    assert found["usd"]["low"] < found["usd"]["expected"] < found["usd"]["high"]
    assert found["seconds"]["teacher"] == planning.BATCH_S
    full = make_plan(load_recipe([*words, "teacher.batch_discount=0"]), tmp_path / "runs", 8)
    assert found["usd"]["expected"] == pytest.approx(full["usd"]["expected"] / 2)
    text = plan_text(found)
    assert "openai-batch: big, 2 answers an item" in text
    assert "Teacher queries" in text


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["teacher=openai", "teacher.model=big", *PRICED, "teacher.api_key_env=NO_SUCH_KEY"],
            "'NO_SUCH_KEY' is not set",
        ),
        (["teacher=openai", "teacher.model=big", *PRICED, "teacher.api_key_env="], None),
        (["teacher=local", "teacher.model=./nowhere"], "no model at nowhere"),
        (["teacher=local", "teacher.model=owner/name"], None),  # nothing is downloaded to see
    ],
)
def test_a_plan_says_that_the_run_would_not_begin(tmp_path: Path, words: list[str], problem: str | None) -> None:
    found = make_plan(load_recipe([*SMALL, *words]), tmp_path, 8)
    assert (found["refused"] is None) == (problem is None)
    if problem is not None:
        assert problem in found["refused"]
        assert f"distill would stop: {found['refused']}" in plan_text(found)


def test_a_recording_of_other_items_is_refused_and_one_of_some_is_said(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    words = [*SMALL, "teacher=replay", f"teacher.path={path}"]
    path.write_text('{"id": "elsewhere", "answer": "Yes"}\n')
    with pytest.raises(UserError, match=r"answers\.jsonl answers none of the 40 items"):
        make_plan(load_recipe(words), tmp_path, 8)
    known = build_splits(load_recipe(SMALL))[0]["pool"][:3]
    path.write_text("".join(json.dumps({"id": s.id, "answer": "Yes", "completion_tokens": 9}) + "\n" for s in known))
    tokens = make_plan(load_recipe(words), tmp_path, 8)["tokens"]
    assert tokens["answers_from"] == "the recording, of 3 of 40 items"
    assert tokens["answer"] == {"p50": 9, "p95": 9}


def test_what_recorded_answers_cost_is_planned_with(tmp_path: Path) -> None:
    """Of four answers three cost four dollars each and one nothing: after five the next may not fit."""
    path = tmp_path / "answers.jsonl"
    pool = build_splits(load_recipe(SMALL))[0]["pool"]
    rows = [{"id": s.id, "answer": "Yes", **({"usd": 4} if n % 4 else {})} for n, s in enumerate(pool)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [*SMALL, "teacher=replay", f"teacher.path={path}", "budget.queries=20", "budget.usd=18"]
    words += ["teacher.price.prompt=0", "teacher.price.completion=0"]
    found = make_plan(load_recipe(words), tmp_path, 8)
    assert found["usd"] == {"low": 0.0, "expected": 60.0, "high": 80.0, "cap": 18.0}
    assert found["stops"] == {"cap": "budget.usd", "after_calls": 5}


def test_the_expected_money_is_what_the_metered_expert_then_costs(tmp_path: Path) -> None:
    words = [*SMALL, "budget.queries=38", "select.trim=0"]
    before = make_plan(load_recipe(words), tmp_path, 2)
    summary = distill(words, tmp_path, target="teach")
    spent = summary["teacher"]["usd"]
    assert before["usd"]["expected"] == pytest.approx(spent, rel=0.05)
    assert before["usd"]["high"] >= spent
    assert not before["selected_known"]
    run = Run(run_path(tmp_path, load_recipe(words)))
    after = make_plan(load_recipe(words), tmp_path, 2)
    actions = {s["name"]: s["action"] for s in after["stages"]}
    assert [actions[n] for n in ("data", "warmup", "score", "select", "teach")] == ["finished"] * 5
    assert actions["apprentice"] == "work"
    assert after["selected_known"]
    assert after["already_paid"] == {"queries": 38, "usd": spent}
    neighbour = make_plan(load_recipe([*words, "select.alpha=0.9"]), tmp_path, 2)
    stages = {s["name"]: (s["action"], s["source"]) for s in neighbour["stages"]}
    assert stages["score"] == ("copy", run.path.name)
    assert stages["select"][0] == "work"
    assert neighbour["seconds"]["stages"]["select"] is not None  # as long as it took before
    kept = read_plan(run.path)
    assert kept is not None
    assert kept["calls"] == 38
    assert "actual" not in kept  # the run has not ended


def test_a_cap_that_ends_the_asking_is_named_with_its_reach(tmp_path: Path) -> None:
    # 100 x 2.5 + 50 x 10 = 750 millionths of a dollar a call; the worst case of one is 200 x 2.5 + 400 x 10 = 4500
    def stops(*words: str, queries: int = 100) -> dict | None:
        return stopping_cap(load_recipe([*LEGAL, *words]), FLAT, 100, queries)

    assert stops("budget.usd=1") is None
    assert stops("budget.usd=0.012") == {"cap": "budget.usd", "after_calls": 11}
    assert stops("budget.tokens=1200") == {"cap": "budget.tokens", "after_calls": 5}
    assert stops("budget.usd=0.004") == {"cap": "budget.usd", "after_calls": 0}
    assert stops(queries=60) == {"cap": "budget.queries", "after_calls": 60}
    assert money(load_recipe(LEGAL), FLAT, 100)["expected"] == pytest.approx(0.075)


def test_the_reach_of_a_cap_is_the_ledgers(tmp_path: Path) -> None:
    words = [*SMALL, "budget.queries=30", "budget.usd=0.015"]
    expected = make_plan(load_recipe(words), tmp_path, 1)["stops"]
    assert expected["cap"] == "budget.usd"
    summary = distill(words, tmp_path, concurrency=1, target="teach")
    assert abs(expected["after_calls"] - summary["teacher"]["queries"]) <= 2


def test_answers_of_earlier_runs_are_the_better_source(tmp_path: Path) -> None:
    recipe = load_recipe([*SMALL, "teacher=openai", "teacher.model=big", *PRICED])
    folder = tmp_path / "legal-0"
    folder.mkdir()
    pool = load_task("legal").generate(30, 0)
    teacher = Wordy(load_task("legal"), {s.id: s for s in pool})
    with Ledger(folder / "ledger.sqlite", price=teacher.price) as ledger:
        ask_all(teacher, ledger, requests_for(recipe, pool))
    found = tokens_of(recipe, pool, requests_for(recipe, pool), [folder / "ledger.sqlite"])
    assert set(found.answers) == {77}
    assert found.answers_from.startswith("30 answers")
    other = load_recipe([*SMALL, "teacher=openai", "teacher.model=small", *PRICED])
    assert "expert" in tokens_of(other, pool, requests_for(other, pool), [folder / "ledger.sqlite"]).answers_from


def test_rationales_at_budgets_are_counted_in(tmp_path: Path) -> None:
    within = ["reasoning.budgets=[32,64]", "reasoning.compress=teacher"]
    pool = load_task("legal").generate(30, 0)
    found = {}
    for name, words in (("plain", []), ("cut", within[:1]), ("told", within)):
        recipe = load_recipe([*SMALL, "teacher=openai", "teacher.model=big", *PRICED, *words])
        found[name] = tokens_of(recipe, pool, requests_for(recipe, pool), []), money(recipe, FLAT, 100)
    assert found["plain"] == found["cut"]
    (plain, usual), (told, more) = found["plain"], found["told"]
    assert sum(told.answers) > 1.3 * sum(plain.answers)
    assert min(told.prompts) > max(plain.prompts), "the prompt asks for them"
    assert more["high"] > usual["high"]
    recipe = load_recipe([*SMALL, "teacher=openai", "teacher.model=big", *PRICED, *within])
    folder = tmp_path / "legal-0"
    folder.mkdir()
    teacher = Wordy(load_task("legal"), {s.id: s for s in pool})
    with Ledger(folder / "ledger.sqlite", price=teacher.price) as ledger:
        ask_all(teacher, ledger, requests_for(load_recipe([*SMALL]), pool))
    found_here = tokens_of(recipe, pool, requests_for(recipe, pool), [folder / "ledger.sqlite"])
    assert "expert" in found_here.answers_from, "answers to shorter questions say nothing"


def test_sizes_come_from_files_or_names() -> None:
    assert size_of("Qwen/Qwen2.5-0.5B-Instruct") == 500_000_000
    assert size_of("HuggingFaceTB/SmolLM2-360M") == 360_000_000
    assert size_of("someone/model") is None
    embedded = size_of("embedded:student")
    assert embedded is not None
    assert 10**5 < embedded < 10**7
    edge, small = load_recipe([*LEGAL, "scale=edge"]), load_recipe(LEGAL)
    assert memory_needed(edge)["needed"] > 10e9 > memory_needed(small)["needed"]
    assert memory_needed(small, [3e9]) == {"needed": 3_000_000_000, "source": "measured in an earlier run"}


def test_every_draft_of_an_item_takes_its_place_on_the_disk() -> None:
    def needed(*words: str) -> int:
        found = disk_needed(load_recipe([*LEGAL, *words]), 5000, {"draft"})
        assert found is not None
        return found

    assert needed("annotate.samples=4") == needed("annotate.tellings=4") == needed() + 3 * 5000 * 1000


def test_a_ta_that_mixes_its_labels_in_lies_beside_the_student() -> None:
    models = [*LEGAL, "student.model=someone/s-500M", "student.micro_tokens=2048", "ta.model=someone/t-100M"]

    def needed(*words: str) -> int:
        return int(memory_needed(load_recipe([*models, *words]))["needed"])

    assert needed("kd.mix=entropy") - needed() == 4 * 100_000_000  # in float32, without gradients
    assert needed("kd.mix=entropy", "kd.top_k=8") == needed()
    large = ("ta.model=someone/t-7B",)  # to train it takes more than to hold it
    assert needed("kd.mix=entropy", *large) == needed(*large)


def test_plan_and_outcome_stand_side_by_side(tmp_path: Path) -> None:
    plan = make_plan(load_recipe(list(SMALL)), tmp_path, 2)
    assert comparison(plan) == ""
    plan["actual"] = {"queries": 2, "tokens": 350, "usd": 0.0017, "seconds": 65, "peak_memory_mb": 900, "disk": 2.5e6}
    table = comparison(plan).splitlines()
    assert table[0].split() == ["planned", "happened"]
    assert [line.split()[-1] for line in table[2:4]] == ["2", "350"]
    assert "2.5 MB" in table[-1]
