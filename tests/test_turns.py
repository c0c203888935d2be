"""Tutoring in turns: who writes and who is trained in each, what is shared with runs without, where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bridge_edge.ablate.grid import experiments
from bridge_edge.benchmarks.html.facts import read_facts
from bridge_edge.benchmarks.html.method import learning
from bridge_edge.benchmarks.html.page import Table
from bridge_edge.data.samples import read_jsonl
from bridge_edge.distill import summary_text
from bridge_edge.errors import UserError
from bridge_edge.plan import make_plan
from bridge_edge.recipe_io import load_recipe
from bridge_edge.run import Run, run_path
from bridge_edge.stage_key import stage_key
from bridge_edge.stages import Stage, needed_for
from bridge_edge.train.models import load_model
from tests import colours
from tests.colours import RIGHT, go
from tests.legal import LEGAL

ON = (*LEGAL, "turns.count=2")


def stages_of(*words: str) -> dict[str, Stage]:
    return {stage.name: stage for stage in needed_for(None, load_recipe(words))}


def key(name: str, *words: str) -> str:
    """The key of a stage where every output is called after the stage that it takes the place of."""
    recipe = load_recipe(words)
    stage = stages_of(*words)[name]
    return stage_key(stage, recipe, dict.fromkeys(stages_of(*words), "the same"))


def test_one_turn_changes_no_name_and_no_key() -> None:
    plain, said = load_recipe(LEGAL), load_recipe([*LEGAL, "turns.count=1", "turns.epochs=7"])
    assert run_path(Path(), plain) == run_path(Path(), said) != run_path(Path(), load_recipe([*ON]))
    assert list(stages_of(*LEGAL)) == list(stages_of(*LEGAL, "turns.count=1"))
    same = set(stages_of(*LEGAL)) - {"draft", "annotate", "tutor"}
    assert {name for name in same if key(name, *ON) == key(name, *LEGAL)} == same


def test_the_last_turn_has_the_plain_names_and_reads_the_one_before() -> None:
    stages = stages_of(*LEGAL, "turns.count=3")
    first, second = ("draft-1", "align", "reader", "annotate-1", "tutor-1"), ("draft-2", "annotate-2", "tutor-2")
    assert list(stages)[6:] == [*first, *second, "draft", "annotate", "tutor", "baseline", "evaluate"]
    assert stages["draft-1"].needs == ("data", "apprentice")
    assert stages["tutor-1"].needs == ("teach", "annotate-1", "align")
    assert stages["draft-2"].found == {"apprentice": "tutor-1"}
    assert stages["draft-1"].title == "Drafts of the pool by the assistant (turn 1 of 3)"
    assert stages["draft-2"].title == "Drafts of the pool by the student (turn 2 of 3)"
    assert stages["tutor-2"].found == {"annotate": "annotate-2", "align": "tutor-1"}
    assert stages["draft"].needs == ("data", "tutor-2")
    assert stages["tutor"].needs == ("teach", "annotate", "tutor-2")
    wanted = [stage.name for stage in needed_for("tutor-1", load_recipe([*ON]))]
    assert wanted[-1] == "tutor-1"
    assert "draft" not in wanted


def test_turns_before_the_last_one_are_those_of_a_run_without_methods_or_with_more_turns() -> None:
    for name in ("draft", "annotate", "tutor"):
        assert key(f"{name}-1", *ON) == key(name, *LEGAL)
        assert key(f"{name}-1", *ON, "kd.mix=static") == key(name, *LEGAL)
        assert key(f"{name}-2", *LEGAL, "turns.count=3") == key(name, *ON)
    for word in ("kd.mix=static", "turns.share=0.1", "turns.epochs=9"):
        assert key("tutor", *ON, word) != key("tutor", *ON), word
    assert key("annotate", *ON, "turns.surest=0.9") != key("annotate", *ON) == key("annotate", *ON, "turns.epochs=9")


def test_it_goes_with_rounds_a_refined_assistant_budgets_and_reinforcement() -> None:
    stages = stages_of(*ON, "select.rounds=2", "refine.items=9", "reasoning.budgets=[16]", "reasoning.rl=true")
    assert {"apprentice-1", "draft-1", "tutor-1"} <= stages.keys()
    assert stages["draft-1"].found == {"apprentice": "refine"}
    assert stages["sft"].found["align"] == "tutor-1"  # the last turn is what is reinforced
    assert "sft" in stages["tutor"].needs
    assert "shorten" not in stages["tutor-1"].needs
    seen = stages["tutor-1"].sees(load_recipe([*ON, "reasoning.budgets=[16]", "reasoning.rl=true"]))
    assert not seen.reasoning.budgets
    assert not seen.reasoning.rl


def test_a_later_turn_sees_its_own_share_rate_and_writer() -> None:
    recipe = load_recipe([*ON, "annotate.surest=0.5", "turns.surest=0.7", "turns.epochs=3", "turns.share=0.25"])
    stages = {stage.name: stage for stage in needed_for(None, recipe)}
    assert stages["annotate-1"].sees(recipe).annotate.surest == 0.5
    assert stages["annotate"].sees(recipe).annotate.surest == 0.7
    all_of_it = load_recipe([*ON, "annotate.surest=1"])
    assert stages["annotate"].sees(all_of_it).annotate.surest == 1
    before, after = (stages[name].sees(recipe).student for name in ("tutor-1", "tutor"))
    assert before == recipe.student
    assert (after.epochs, after.lr) == (3, 0.25 * recipe.student.lr)
    assert stages["draft"].sees(recipe).ta == recipe.student


def test_it_is_refused_where_it_has_no_sense() -> None:
    unlabelled = (*ON, "data.labels=none", "select.difficulty=entropy")
    with pytest.raises(UserError, match=r"turns.count=2 needs labels.*set annotate.samples=5"):
        load_recipe(unlabelled)
    assert load_recipe([*unlabelled, "annotate.samples=4"]).turns.on
    with pytest.raises(UserError, match=r"turns.count=2 lets the student write here, and annotate.engine=openai"):
        load_recipe([*ON, "annotate.engine=openai", "annotate.base_url=http://ta", "annotate.model=ta"])
    with pytest.raises(UserError, match=r"turns.count=2 needs tutor.format=rationale_answer"):
        load_recipe([*ON, "tutor.format=multitask"])
    with pytest.raises(UserError, match=r"turns.count=2 is of the tutoring, which reasoning.grpo.sft=false leaves out"):
        load_recipe([*ON, "reasoning.rl=true", "reasoning.grpo.sft=false"])


def test_the_grid_has_an_experiment_of_turns() -> None:
    (found,) = experiments(["turns"], load_recipe(LEGAL))
    assert [arm.words for arm in found.arms] == [("turns.count=1",), ("turns.count=2",), ("turns.count=3",)]
    assert {claim.b for claim in found.claims} == {"1 turn"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colours.write(tmp_path_factory.mktemp("colours"))


def test_a_run_in_two_turns_learns_on_from_the_students_own_right_rationales(recipe: Path, tmp_path: Path) -> None:
    plain, one = go(recipe, tmp_path, *RIGHT)
    # Many passes of the first turn: what a student writes that has learnt nothing cannot be read.
    words = ("turns.count=2", "turns.share=1", "student.epochs=8", "turns.epochs=1")
    summary, run = go(recipe, tmp_path, *RIGHT, *words)
    stages = run.manifest["stages"]
    assert stages["draft-1"]["taken_from"] == one.path.name
    assert summary["teacher"]["queries"] == plain["teacher"]["queries"]
    gold = {s.id: s.answer for s in read_jsonl(run.path / "data" / "pool.jsonl")}
    written = {name: list(read_jsonl(run.path / name / "annotations.jsonl")) for name in ("annotate-1", "annotate")}
    assert {s.provenance for s in written["annotate-1"]} == {"ta"}
    assert {s.provenance for s in written["annotate"]} == {"student"}
    assert all(s.answer == gold[s.id] for some in written.values() for s in some)
    assert "from_ta" in stages["tutor-1"]["metrics"]
    assert stages["tutor"]["metrics"]["from_student"] > 0
    assert summary["turns"] == [len(some) for some in written.values()]
    a, b = summary["turns"]
    assert f"Turns      {a} kept by the assistant, then {b} by the student" in summary_text(summary)
    tables = {block.caption: block for block in learning(read_facts(run.path)).blocks if isinstance(block, Table)}
    trained = [row[0] for row in tables["Trainings"].rows]
    assert [title for title in trained if "turn" in title] == ["Student, tutoring, turn 1", "Student, tutoring, turn 2"]
    assert "What the filters took from the student's annotations, turn 2" in tables
    # The second turn goes on from the student of the first: one step away, while the aligned base is far.
    states = {
        name: torch.cat([p.detach().flatten() for p in load_model(str(run.path / name)).parameters()])
        for name in ("align", "tutor-1", "tutor")
    }
    moved = (states["tutor"] - states["tutor-1"]).norm()
    assert 0 < moved < 0.5 * (states["tutor"] - states["align"]).norm()
    again, _ = go(recipe, tmp_path, *RIGHT, *words)
    assert again["worked"] == 0


def test_a_plan_names_the_stages_and_the_disk_of_all_turns(recipe: Path, tmp_path: Path) -> None:
    words = [f"recipe={recipe}", *colours.WORDS, "budget.queries=8"]
    one, three = (make_plan(load_recipe([*words, f"turns.count={n}"]), tmp_path, 1) for n in (1, 3))
    names = [step["name"] for step in three["stages"]]
    assert {"draft-1", "tutor-1", "draft-2", "tutor-2", "tutor"} <= set(names)
    assert three["disk"]["needed"] > one["disk"]["needed"]
    assert three["calls"] == one["calls"]


def test_a_plan_takes_times_from_the_same_work_and_not_from_the_same_name(tmp_path: Path) -> None:
    """In a run of one turn `draft` is the assistant's; of two, `draft-1` is, and `draft` is the student's."""
    words = [*LEGAL, "annotate.reader=false"]

    def ran(*more: str, first: float) -> dict[str, float]:
        recipe = load_recipe([*words, *more])
        run = Run.create(tmp_path, recipe)
        took = {stage.name: first + n for n, stage in enumerate(needed_for(None, recipe))}
        run.manifest["stages"] = {name: {"key": "", "output": "", "seconds": value} for name, value in took.items()}
        run.save()
        return took

    def planned(*more: str) -> dict[str, float | None]:
        found = make_plan(load_recipe([*words, *more]), tmp_path, 1)["seconds"]["stages"]
        assert isinstance(found, dict)
        return found

    one = ran(first=100)
    two = planned("turns.count=2")
    assert (two["draft-1"], two["tutor-1"]) == (one["draft"], one["tutor"])
    assert (two["draft"], two["tutor"]) == (None, None)  # the student's, and its second course: no run has done those
    assert planned("refine.items=8")["draft"] == one["draft"]  # an assistant is one, refined or not
    assert planned("reasoning.budgets=[16]", "reasoning.rl=true")["tutor"] is None  # its reinforcement
    both = ran("turns.count=2", "seed=1", first=500)
    three = planned("turns.count=3")
    assert (three["draft-1"], three["draft-2"], three["draft"]) == (both["draft-1"], both["draft"], both["draft"])
    assert planned("seed=2")["draft"] == both["draft-1"]
