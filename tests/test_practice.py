"""Practice of the assistant: it learns from its own right rationales only, on items the teacher was not asked about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bridge_edge import practice
from bridge_edge.data.encode import prompt_ids
from bridge_edge.data.samples import ASSISTANT, TEACHER, Sample, read_jsonl, write_jsonl
from bridge_edge.phases import Context
from bridge_edge.recipe_io import load_recipe
from bridge_edge.train.models import load_tokenizer, locate

BASE = locate("embedded:ta")
POOL = [Sample(f"What of case {i}?", "Yes" if i % 2 else "No") for i in range(8)]
TAUGHT = [replace(s, rationale="It is so.", provenance=TEACHER) for s in POOL[:2]]
TEXTS = {
    2: "2 + 2 = 4.\nAnswer: No",
    3: "2 + 2 = 5.\nAnswer: Yes",  # a false sum
    4: "So it is.\nAnswer: Yes",  # the gold answer is No
    5: "It is so.\nAnswer: Yes",
    6: "no answer at all",
    7: "\nAnswer: Yes",  # no rationale
}


@dataclass
class Row:
    index: int
    ids: list[int]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was trained, in order; a canned text stands for what the assistant would write."""
    calls: list[dict[str, Any]] = []
    tokenizer = load_tokenizer(BASE)
    told = {tuple(prompt_ids(tokenizer, [s.prompt])[0]): i for i, s in enumerate(POOL)}

    def fit(ctx: Context, out: Path, source: str, spec: Any, examples: list[Any], label: str, **changes: Any) -> Any:
        out.mkdir(exist_ok=True)
        calls.append({"out": out, "source": source, "rows": len(examples), "label": label, **changes})
        return {"loss": 0.5, "examples": len(examples)}

    def generate(model: Any, prompts: list[list[int]], *_: Any) -> Iterator[Row]:
        for index, ids in reversed(list(enumerate(prompts))):
            number = told[tuple(ids)]
            assert number > 1, "the teacher's items are not for practice"
            yield Row(index, tokenizer(TEXTS[number], add_special_tokens=False)["input_ids"])

    monkeypatch.setattr(practice, "fit", fit)
    monkeypatch.setattr(practice, "generate", generate)
    monkeypatch.setattr(practice, "load_model", lambda *_: None)
    monkeypatch.setattr(practice, "load_tokenizer", lambda *_: tokenizer)
    return calls


def context(tmp_path: Path, *words: str) -> Context:
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "pool.jsonl", POOL)
    return Context(load_recipe(["recipe=legal", "practice.items=100", "practice.epochs=2", *words]), tmp_path)


def test_only_right_rationales_with_true_sums_are_learnt_from(tmp_path: Path, trained: list[dict[str, Any]]) -> None:
    ctx, out = context(tmp_path), tmp_path / "apprentice"
    out.mkdir()
    metrics = practice.practise(ctx, out, "warm", TAUGHT, [])
    kept = list(read_jsonl(out / practice.DRAFTS))
    assert sorted(s.prompt for s in kept) == [POOL[2].prompt, POOL[5].prompt]
    assert {s.provenance for s in kept} == {ASSISTANT}
    assert metrics["practised"] == 2
    first, second = trained
    assert (first["label"], first["source"], first["out"]) == ("assistant", "warm", out / practice.LESSON)
    assert (second["source"], second["out"], second["rows"], second["epochs"]) == (str(first["out"]), out, 2, 2)
    assert not (out / practice.LESSON).exists()


def test_after_a_kill_in_the_second_training_the_drafts_are_not_written_again(
    tmp_path: Path, trained: list[dict[str, Any]]
) -> None:
    ctx, out = context(tmp_path), tmp_path / "apprentice"
    (out / practice.LESSON).mkdir(parents=True)
    write_jsonl(out / practice.DRAFTS, [replace(POOL[5], rationale="It is so.", provenance=ASSISTANT)])
    practice.practise(ctx, out, "warm", TAUGHT, [])
    assert [call["label"] for call in trained] == ["practice"]


def test_practice_is_for_labelled_pools_and_the_last_round(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    assert practice.wanted(ctx)
    assert not practice.wanted(replace(ctx, part=(1, 2)))
    assert practice.wanted(replace(ctx, part=(2, 2)))
    assert not practice.wanted(replace(ctx, recipe=load_recipe(["recipe=legal", "practice.items=0"])))


def test_a_run_with_practice_finishes_and_says_what_it_learnt_from(tmp_path: Path) -> None:
    """The real stage, with the embedded assistant and next to nothing of training."""
    from bridge_edge.distill import distill

    words = ["recipe=legal", "data.pool=40", "data.dev=4", "data.test=4", "budget.queries=4", "practice.items=6",
             "ta.epochs=1", "warmup.epochs=1", "task.max_new_tokens=8"]  # fmt: skip
    distill(words, tmp_path, target="apprentice")
    run = next(tmp_path.glob("legal-*"))
    found = json.loads((run / "manifest.json").read_text())["stages"]["apprentice"]
    assert found["metrics"]["practised"] >= 0
    assert found["metrics"]["lesson"]["examples"] == 4
    assert (run / "apprentice" / "model.safetensors").exists()
    assert not (run / "apprentice" / practice.LESSON).exists()
