"""Rounds of selection: one leaves all as it was, several share what is equal, and nothing is asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge_edge.budget import Ledger
from bridge_edge.distill import rounds_of, summary_text
from bridge_edge.errors import UserError
from bridge_edge.plan import make_plan
from bridge_edge.recipe import NEUTRAL, Recipe, settings
from bridge_edge.recipe_io import load_recipe
from bridge_edge.rounds import OFTEN, expand, recipe_of, size_of_rounds
from bridge_edge.run import Run, run_path
from bridge_edge.select.strategies import STRATEGIES, Candidates, choose
from bridge_edge.stage_key import stage_key
from bridge_edge.stages import STAGES, needed_for
from tests import colours
from tests.colours import go
from tests.legal import LEGAL


def test_one_round_changes_no_name_and_no_key() -> None:
    """Folders and keys of before the value was known stay what they were."""
    plain, said = load_recipe(["recipe=medical"]), load_recipe(["recipe=medical", "select.rounds=1"])
    assert "rounds" not in settings(plain)["select"]
    assert set(plain.model_dump(mode="json")["select"]) - set(settings(plain)["select"]) == {
        "rounds",
        "round_size",
        "probe",
    }
    assert run_path(Path(), plain) == run_path(Path(), said)
    assert expand(STAGES, 1) == list(STAGES)
    for dotted, value in NEUTRAL.items():  # what is left out is what a recipe that says nothing has
        part, _, name = dotted.partition(".")
        assert plain.model_dump(mode="json")[part][name] == value
    assert run_path(Path(), load_recipe(["recipe=medical", "select.rounds=2"])) != run_path(Path(), plain)


def test_rounds_are_stages_whose_last_ones_have_the_plain_names() -> None:
    recipe = load_recipe([*LEGAL, "select.rounds=3"])
    names = [stage.name for stage in needed_for(None, recipe)]
    loop = [f"{name}{end}" for end in ("-1", "-2", "") for name in OFTEN]
    assert names == ["data", "warmup", *loop, "draft", "align", "reader", "annotate", "tutor", "baseline", "evaluate"]
    stages = {stage.name: stage for stage in needed_for(None, recipe)}
    assert stages["score"].needs == ("data", "apprentice-2")
    assert set(stages["select-2"].needs) == {"data", "score-2", "select-1"}
    assert stages["apprentice-2"].needs == ("data", "warmup", "teach-2")
    assert "score-2" in {stage.name for stage in needed_for("select", recipe)}
    assert "apprentice" not in {stage.name for stage in needed_for("select", recipe)}


def test_a_round_sees_its_share_of_every_cap() -> None:
    words = [*LEGAL, "budget.queries=90", "budget.usd=3", "budget.tokens=900", "gate.on_fail=stop"]
    recipe = load_recipe([*words, "select.rounds=3"])
    first, last = recipe_of(recipe, (1, 3)), recipe_of(recipe, (3, 3))
    assert last == load_recipe([*words, "select.round_size=null"])
    assert settings(last) == settings(load_recipe(words)), "one round has no size"
    assert (first.budget.queries, first.budget.usd, first.budget.tokens) == (30, 1, 300)
    assert first.gate.on_fail == "continue"
    with pytest.raises(UserError, match="each round asks at least one"):
        load_recipe([*LEGAL, "budget.queries=2", "select.rounds=3"])


def test_rounds_of_a_size_stay_where_they_are_when_the_budget_is_raised() -> None:
    def parts(*words: str) -> list[int | None]:
        recipe = load_recipe([*LEGAL, "select.rounds=3", "select.round_size=20", *words])
        return [recipe_of(recipe, (k, 3)).budget.queries for k in (1, 2, 3)]

    assert parts("budget.queries=90") == [20, 40, 90]
    assert parts("budget.queries=200") == [20, 40, 200]
    assert parts("budget.fraction=0.05", "data.pool=5000") == [20, 40, None]
    assert parts("budget.queries=40") == [13, 27, 40], "the last would have none, so all are equal"
    assert parts("budget.fraction=0.01", "data.pool=4000") == [None, None, None]
    small, large = (
        keys(load_recipe([*LEGAL, f"budget.queries={n}", "select.rounds=2", "select.round_size=20"])) for n in (40, 80)
    )
    assert all(small[f"{name} 1"] == large[f"{name} 1"] for name in OFTEN)
    assert size_of_rounds(load_recipe(["recipe=medical", "select.rounds=2"])) is None


def keys(recipe: Recipe) -> dict[str, str]:
    """Keys of all stages where each output is called after its kind and round from the start."""
    stages = needed_for(None, recipe)
    place = {s.name: f"{s.kind or s.name} {s.part[0]}" for s in stages}
    return {place[s.name]: stage_key(s, recipe, place) for s in stages}


def test_more_rounds_of_the_same_size_share_those_that_are_done() -> None:
    two = keys(load_recipe([*LEGAL, "budget.queries=40", "budget.usd=null", "select.rounds=2"]))
    four = keys(load_recipe([*LEGAL, "budget.queries=80", "budget.usd=null", "select.rounds=4"]))
    assert {name for name in two if two[name] == four.get(name)} >= {f"{name} {k}" for name in OFTEN for k in (1, 2)}
    one = keys(load_recipe([*LEGAL, "budget.queries=20", "budget.usd=null"]))
    assert all(one[f"{name} 1"] == two[f"{name} 1"] for name in OFTEN)


def test_how_many_items_are_explained_matters_to_later_rounds_alone() -> None:
    words = [*LEGAL, "budget.queries=40", "budget.usd=null", "select.rounds=2"]
    usual, fewer = keys(load_recipe(words)), keys(load_recipe([*words, "select.probe=800"]))
    assert {name for name in usual if usual[name] == fewer[name]} >= {f"{name} 1" for name in OFTEN}
    assert usual["score 2"] != fewer["score 2"]
    one = keys(load_recipe([*LEGAL, "budget.queries=20", "budget.usd=null"]))
    assert usual["score 1"] == one["score 1"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_goes_on_from_what_was_chosen(strategy: str) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(200, 6)).astype(np.float32)
    pool = Candidates(rng.random(200), vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    already = [7, 150, 3, 88]
    chosen = choose(pool, 20, strategy, trim=0.02, seed=3, already=already)
    assert chosen[:4] == already
    assert len(set(chosen)) == 20
    assert choose(pool, 4, strategy, already=already) == already
    assert sorted(choose(pool, 200, strategy, 0.5, 0.1, already=already)) == list(range(200))
    if strategy not in ("kmeans", "typiclust"):  # clusters have no greedy order that a prefix would determine
        begun = choose(pool, 6, strategy, trim=0.0, seed=3)
        assert choose(pool, 20, strategy, trim=0.0, seed=3, already=begun) == choose(pool, 20, strategy, seed=3)


def asked(run: Run) -> list[str]:
    with Ledger(run.path / "ledger.sqlite") as ledger:
        return [row["item_id"] for row in ledger.attempts()]


def rows(run: Run, stage: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((run.path / stage / "selected.json").read_text())
    return found


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colours.write(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Run]:
    """A whole run of two rounds."""
    return go(recipe, tmp_path_factory.mktemp("runs"), "budget.queries=8", "select.rounds=2")


@pytest.fixture(scope="module")
def finished(whole: tuple[dict[str, Any], Run]) -> Run:
    return whole[1]


def test_the_summary_has_a_line_of_what_each_round_came_to(whole: tuple[dict[str, Any], Run]) -> None:
    summary, run = whole
    stages = run.manifest["stages"]
    dev = [stages[name]["metrics"]["dev"]["accuracy"] for name in ("apprentice-1", "apprentice")]
    assert summary["rounds"] == [{"queries": 4, "accuracy": dev[0]}, {"queries": 8, "accuracy": dev[1]}]
    assert f"TA on dev: {dev[0]:.1%} after 4 queries, {dev[1]:.1%} after 8 queries" in summary_text(summary)
    assert rounds_of(stages, 1) == []


def test_two_rounds_ask_half_each_and_nothing_twice(finished: Run) -> None:
    first, both = rows(finished, "select-1"), rows(finished, "select")
    assert (len(first), len(both)) == (4, 8)
    assert both[:4] == first
    assert [row.get("round", 1) for row in both] == [1] * 4 + [2] * 4
    assert sorted(asked(finished)) == sorted({row["id"] for row in both})
    metrics = {name: finished.manifest["stages"][name]["metrics"] for name in ("teach-1", "teach", "apprentice")}
    assert (metrics["teach-1"]["queries"], metrics["teach"]["queries"], metrics["teach"]["usable"]) == (4, 8, 8)
    assert (metrics["teach"]["asked"], metrics["teach"]["new"]) == (8, 4)
    assert "new" not in metrics["teach-1"]
    assert metrics["apprentice"]["examples"] == 8
    assert finished.finished
    assert not np.array_equal(*(np.load(finished.path / name / "difficulty.npy") for name in ("score-1", "score")))


def test_a_larger_budget_goes_on_and_asks_what_is_new(recipe: Path, finished: Run) -> None:
    done, more = go(recipe, finished.path.parent, "budget.queries=16", "select.rounds=4", target="teach")
    assert rows(more, "select")[:8] == rows(finished, "select")
    assert more.manifest["stages"]["score"].get("taken_from") is None
    for name in ("score-1", "apprentice-1", "score-2", "apprentice-2"):
        assert more.manifest["stages"][name]["taken_from"] == finished.path.name, name
    assert done["teacher"]["queries"] == 16
    with Ledger(more.path / "ledger.sqlite") as ledger:
        origins = [bool(row["origin"]) for row in ledger.attempts()]
    assert (sum(origins), len(origins)) == (8, 16)
    plan = make_plan(
        load_recipe([f"recipe={recipe}", *colours.WORDS, "budget.queries=12", "select.rounds=3"]), more.path.parent, 1
    )
    actions = {step["name"]: step["action"] for step in plan["stages"]}
    assert (actions["apprentice-2"], actions["select"], actions["teach"]) == ("work", "work", "work")
    assert actions["select-1"] == "copy"


def test_a_raised_budget_in_rounds_of_a_size_asks_only_what_is_new(recipe: Path, tmp_path: Path) -> None:
    words = ("select.rounds=2", "select.round_size=4")
    _, less = go(recipe, tmp_path, "budget.queries=8", *words, target="teach")
    _, more = go(recipe, tmp_path, "budget.queries=20", *words, target="teach")
    before, after = ({row["id"] for row in rows(run, "select")} for run in (less, more))
    assert (len(before), len(after)) == (8, 20)
    assert before < after
    with Ledger(more.path / "ledger.sqlite") as ledger:
        assert sum(not row["origin"] for row in ledger.attempts()) == 12
    assert more.manifest["stages"]["apprentice-1"]["taken_from"] == less.path.name


def test_the_plan_counts_the_disk_of_every_round(tmp_path: Path) -> None:
    words = [*LEGAL, "data.pool=40", "data.dev=4", "data.test=4", "budget.queries=8"]
    one, two, three = (
        make_plan(load_recipe([*words, f"select.rounds={n}"]), tmp_path, 1)["disk"]["needed"] for n in (1, 2, 3)
    )
    assert one < two
    assert three - two == two - one


def test_a_killed_run_of_rounds_goes_on_to_the_same_files(recipe: Path, finished: Run, tmp_path: Path) -> None:
    words = [f"recipe={recipe}", *colours.WORDS, "budget.queries=8", "select.rounds=2"]
    command = [sys.executable, "-m", "bridge_edge.cli", "distill", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not list(tmp_path.glob("runs/*/score.partial")) + list(tmp_path.glob("runs/*/score")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done, run = go(recipe, tmp_path / "runs", "budget.queries=8", "select.rounds=2")
    assert 0 < done["worked"] < len(run.manifest["stages"])
    for name, record in finished.manifest["stages"].items():
        assert run.manifest["stages"][name]["output"] == record["output"], name
    assert sorted(asked(run)) == sorted(asked(finished))


def test_a_round_with_nothing_to_ask_says_so(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"round 2 of 30 has nothing left to ask.*lower select.rounds or select.round_size"
    ):
        go(recipe, tmp_path, "budget.fraction=0.1", "select.rounds=30", "ta.epochs=1", target="select-2")
