"""Arms at budgets of reasoning: how they are asked, and their table and claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge_edge import thinking
from bridge_edge.ablate.arms import Arm, Claim, Experiment
from bridge_edge.ablate.cells import Results, Setting, cell_of
from bridge_edge.ablate.grid import experiments
from bridge_edge.ablate.report import markdown, summarise
from bridge_edge.ablate.thinking import FIGURES, KEPT, scores_at
from bridge_edge.data.samples import Sample
from bridge_edge.data.thinking import SIGNAL
from bridge_edge.recipe_io import load_recipe
from tests import tiny

WORDS = ("recipe=legal", "task.answers=['yes', 'no']", "task.max_new_tokens=12")
POOL = [Sample(f"Is {i} more than {i % 7}?", "yes" if i % 2 else "no") for i in range(4)]


@pytest.mark.parametrize("budgets", [(), (4, 8)])
def test_only_a_student_that_learnt_budgets_is_told_one(
    budgets: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.checkpoint(tmp_path)
    encode, told = thinking.prompt_ids, []

    def heard(tokenizer: Any, prompts: list[str]) -> list[list[int]]:
        told.append(prompts)
        return encode(tokenizer, prompts)

    monkeypatch.setattr(thinking, "prompt_ids", heard)
    scores, found = scores_at(
        tmp_path, POOL, load_recipe([*WORDS, f"reasoning.budgets={list(budgets)}"]), "cpu", (4, 8)
    )
    assert list(scores) == ["think-4", "think-8"]
    for budget, prompts in zip((4, 8), told, strict=True):
        signal = "\n" + SIGNAL.format(budget=budget) if budgets else ""
        assert prompts == [s.prompt + signal for s in POOL]
        assert found[str(budget)]["accuracy"] == scores[f"think-{budget}"].accuracy
        assert set(FIGURES) <= set(found[str(budget)])


def test_arms_at_budgets_are_other_cells_and_their_recipes_load() -> None:
    [found] = experiments(["thinking"], load_recipe(["recipe=legal"]))
    setting = Setting(("recipe=legal",), Path("runs"), 1)
    cells = [cell_of(arm, 0, setting) for arm in found.arms]
    assert len({cell.id for cell in cells}) == len(found.arms)
    assert cells[0].id != cell_of(Arm("plain"), 0, setting).id  # of which nothing is measured at budgets
    assert [cell.recipe.reasoning.rl for cell in cells] == [False] * 3 + [True] * 6
    assert [cell.recipe.reasoning.compress for cell in cells] == [
        *("cut", "cut", "teacher", "teacher", "teacher"),
        *("cut", "cut", "cut", "cut"),
    ]
    assert [cell.recipe.reasoning.grpo.tolerance for cell in cells] == [0.25] * 4 + [0, 0.25, 0, 0.25, 0.25]
    [own] = experiments(["thinking"], load_recipe(["recipe=legal", "reasoning.budgets=[8,24]"]))
    assert {arm.think for arm in own.arms} == {(8, 24)}


def test_each_budget_has_claims_of_its_own_and_one_table_shows_all(tmp_path: Path) -> None:
    arms = tuple(Arm(name, (f"student.lr={lr}",), think=(16, 32)) for name, lr in (("ours", 1e-3), ("theirs", 2e-3)))
    trial = Experiment("trial", "Is it?", arms, (Claim("ours is better", "ours", "theirs"),))
    setting, kept = Setting(("recipe=legal",), Path("runs"), 1), Results(tmp_path / "results.jsonl")
    marks = {"ours": {"test": "1" * 40, "think-16": "1" * 40, "think-32": "10" * 20},
             "theirs": {"test": "1" * 40, "think-16": "0" * 40, "think-32": "10" * 20}}  # fmt: skip
    for arm in arms:
        sets: dict[str, Any] = {
            part: {"items": "same", "n": 40, "correct": right, "parsed": "1" * 40}
            for part, right in marks[arm.name].items()
        }
        one = {"accuracy": 0.5, "left_alone": 0.75, "violations": 0.125, "distance": 0.25, "thought": 12.0}
        sets[KEPT] = {"16": one, "32": one | {"thought": 30.0}, "spearman": 0.9}
        cell = cell_of(arm, 0, setting)
        teacher = {"queries": 30, "usd": 0.5}
        kept.add({"cell": cell.id, "key": cell.id, "sets": sets, "teacher": teacher, "annotate": {}})
    tables = summarise([trial], [0], setting, kept)
    verdicts = {part: found["claims"][0]["verdict"] for part, found in tables["trial"]["sets"].items()}
    assert verdicts == {"test": "not decided", "think-16": "holds", "think-32": "not decided"}
    text = markdown("A title", tables, [])
    assert "### On held-out items, at most 16 tokens of reasoning" in text
    assert text.count("| ours | 16 | 50.0 | 75.0 | 12.5 | 25.0 | 12.0 | 0.900 |") == 1
    assert text.count("| theirs | 32 | 50.0 | 75.0 | 12.5 | 25.0 | 30.0 | 0.900 |") == 1
