"""What the assistant misses between rounds is what the next round asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge_edge.data.samples import Sample, write_jsonl
from bridge_edge.generate.engine import Generated
from bridge_edge.phases import Context
from bridge_edge.recipe_io import load_recipe
from bridge_edge.rounds import ASKED, SCORER
from bridge_edge.select import explained
from bridge_edge.select.explained import MISSED, Sampled, choose_missed, draw_rows, explain, shortlist
from bridge_edge.select.strategies import STRATEGIES
from bridge_edge.selection import score_stage, select
from bridge_edge.train.models import load_model, load_tokenizer
from tests import tiny

TEXTS = {
    "right": "3 is more than 2.\nAnswer: yes",
    "other answer": "3 is more than 2.\nAnswer: no",
    "no answer": "3 is more than 2.",
    "false sum": "2 + 2 = 5.\nAnswer: yes",
}


def unit(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("gold", ["yes", None])
def test_an_item_is_missed_by_its_answer_its_form_or_its_arithmetic(
    gold: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = str(tiny.checkpoint(tmp_path / "model"))
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)

    def written(*asked: Any) -> Any:
        assert asked[0] is model
        assert asked[2] == 9
        for i, text in reversed(list(enumerate(TEXTS.values()))):  # in any order
            yield Generated(i, tokenizer(text)["input_ids"], -0.1, True)

    monkeypatch.setattr(explained, "generate", written)
    items = [Sample(f"{name}?", gold) for name in TEXTS]
    counted: list[float] = []
    found = explain(model, tokenizer, items, ("yes", "no"), 9, lambda step, note: counted.append(step))
    missed = dict(zip(TEXTS, found.difficulty >= MISSED, strict=True))
    assert missed == {"right": False, "other answer": gold is not None, "no answer": True, "false sum": True}
    assert found.difficulty % 1 == pytest.approx(1 - np.exp(-0.1), abs=1e-5)
    assert found.answers == ["yes", "no", "", "yes"]
    assert found.missed == sum(missed.values())
    assert sum(counted) == len(TEXTS)


def test_every_round_draws_its_own_items() -> None:
    one, again, other = draw_rows(90, 40, 3, 2), draw_rows(90, 40, 3, 2), draw_rows(90, 40, 3, 3)
    assert one.tolist() == again.tolist() == sorted(set(one.tolist()))
    assert len(one) == 40
    assert one.tolist() != other.tolist()
    assert draw_rows(9, 40, 3, 2).tolist() == list(range(9))


def test_what_was_missed_stands_on_the_shortlist_or_the_hardest_do() -> None:
    hard = np.array([0.1, 1.2, 0.5, 1.9, 0.3, 1.1])
    free = np.array([True, True, True, False, True, True])
    assert shortlist(hard, free, 1, True).tolist() == [1, 5]
    assert shortlist(hard, free, 3, True).tolist() == [1, 2, 5]
    assert shortlist(hard, free, 2, False).tolist() == [1, 2, 4, 5]
    assert shortlist(hard, free, 9, True).tolist() == [0, 1, 2, 4, 5]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_items_are_chosen_among_those_that_were_missed(strategy: str) -> None:
    rows = np.arange(0, 120, 2)
    hard = np.where(rows % 3 == 0, 1.5, 0.5) + 0.001 * np.arange(60)
    gold = ["yes" if i % 4 else "no" for i in range(120)]
    already = rows[:6].tolist()
    found = choose_missed(Sampled(rows, hard, unit(60), gold, 120), 8, strategy, 0.5, 0.0, 1, already)
    assert len(set(found)) == 8
    assert not set(found) & set(already)
    assert set(found) <= set(rows.tolist())
    missed = [i % 3 == 0 for i in found]
    assert all(missed) == (strategy in explained.BY_DIFFICULTY)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("missed", [20, 90])
def test_a_larger_budget_holds_what_a_smaller_one_asked(strategy: str, missed: int) -> None:
    """Whether fewer or more were missed than are wanted; what is paid for is asked in the larger round too."""
    rng = np.random.default_rng(3)
    rows, hard = np.sort(rng.choice(400, 150, replace=False)), rng.random(150).astype(np.float32)
    hard[rng.choice(150, missed, replace=False)] += MISSED
    gold = [("yes", "no")[i] for i in rng.integers(0, 2, 400)]
    found = Sampled(rows, hard, unit(150), gold, 400)
    asked = [set(choose_missed(found, n, strategy, 0.5, 0.03, 1, [0, 1])) for n in (30, 45, 110, 300)]
    assert [len(some) for some in asked] == [30, 45, 110, 300]
    assert asked[0] < asked[1] < asked[2] < asked[3]


def test_where_too_few_were_explained_others_are_drawn() -> None:
    rows = np.array([4, 7, 9])
    sampled = Sampled(rows, np.array([1.5, 0.2, 1.1]), unit(3), None, 30)
    found = choose_missed(sampled, 10, "bridge", 0.5, 0.0, 1, [9, 11])
    assert set(found[:2]) == {4, 7}
    assert len(set(found)) == 10
    assert not {9, 11} & set(found)
    assert found == choose_missed(sampled, 10, "bridge", 0.5, 0.0, 1, [9, 11])


@pytest.mark.parametrize("labels", ["gold", "none"])
def test_the_stages_of_a_later_round_look_at_a_sample(labels: str, tmp_path: Path) -> None:
    pool = [
        Sample(f"Is {i} more than {i % 7}?", ("yes" if i % 2 else "no") if labels == "gold" else None)
        for i in range(40)
    ]
    for name in ("data", "score", "select", "select-1"):
        (tmp_path / name).mkdir()
    write_jsonl(tmp_path / "data" / "pool.jsonl", pool)
    tiny.checkpoint(tmp_path / "apprentice-1")
    asked = [{"id": pool[i].id, "rank": k, "difficulty": 0.5} for k, i in enumerate((3, 8))]
    (tmp_path / "select-1" / "selected.json").write_text(json.dumps(asked))
    words = [
        "task.answers=['yes', 'no']",
        "task.max_new_tokens=8",
        "budget.queries=6",
        f"data.labels={labels}",
        "select.difficulty=entropy",
    ]
    recipe = load_recipe(["recipe=legal", *words, "select.probe=20", "select.samples=2", "select.check=4"])
    places = {"data": "data", SCORER: "apprentice-1", ASKED: "select-1"}
    ctx = Context(recipe, tmp_path, places=places, part=(2, 2))
    scored = score_stage(ctx, tmp_path / "score")
    rows, hard = (np.load(tmp_path / "score" / f"{name}.npy") for name in ("rows", "difficulty"))
    assert len(rows) == len(hard) == scored["explained"] == 20
    assert len(np.load(tmp_path / "score" / "embeddings.npy")) == 20
    assert scored["missed"] == 20, "an untrained model gives no answer that can be read"
    assert ("self_consistency" in scored) == (labels == "none")
    chosen = select(ctx, tmp_path / "select")
    found = json.loads((tmp_path / "select" / "selected.json").read_text())
    assert found[:2] == asked
    assert {row["id"] for row in found[2:]} <= {pool[i].id for i in rows}
    assert [row["round"] for row in found[2:]] == [2] * 4
    assert all(row["difficulty"] >= MISSED for row in found[2:])
    assert (chosen["selected"], chosen["new"]) == (6, 4)
    assert chosen["difficulty_mean"] >= MISSED


def test_without_a_probe_the_whole_pool_is_answered_directly(tmp_path: Path) -> None:
    for name in ("data", "score"):
        (tmp_path / name).mkdir()
    write_jsonl(tmp_path / "data" / "pool.jsonl", [Sample(f"Is {i} even?", "yes") for i in range(12)])
    tiny.checkpoint(tmp_path / "apprentice-1")
    recipe = load_recipe(["recipe=legal", "task.answers=['yes', 'no']", "select.probe=0"])
    score_stage(
        Context(recipe, tmp_path, places={"data": "data", SCORER: "apprentice-1"}, part=(2, 2)), tmp_path / "score"
    )
    assert len(np.load(tmp_path / "score" / "difficulty.npy")) == 12
    assert not (tmp_path / "score" / "rows.npy").exists()
