"""A GGUF file that this project exported, as the teacher of the teach stage: what it says is taught, at no cost."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bridge_edge.apprenticeship import LEDGER, requests_for, teach
from bridge_edge.budget import Ledger
from bridge_edge.data.pool import load_task
from bridge_edge.data.samples import Sample, read_jsonl, write_jsonl
from bridge_edge.errors import UserError
from bridge_edge.export.quantize import make_gguf
from bridge_edge.phases import Context
from bridge_edge.recipe_io import load_recipe
from bridge_edge.runtimes.load import load_runtime
from bridge_edge.teacher.local import one_message
from tests import tiny

SAID = "They live apart.\nAnswer: Yes"
ITEMS = 4


def taught_by_heart(folder: Path) -> None:
    """Train the checkpoint until it says `SAID` whatever it is asked about."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    others = load_task("legal").generate(50, 7)
    prompts = [one_message(request) for request in requests_for(load_recipe(["recipe=legal"]), others)]
    answer = [*tokenizer(SAID)["input_ids"], model.config.eos_token_id]
    steps = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for prompt in prompts:
        start = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        ids = torch.tensor([[*start, *answer]])
        labels = torch.tensor([[-100] * len(start) + answer])
        model(input_ids=ids, labels=labels).loss.backward()
        steps.step()
        steps.zero_grad()
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.checkpoint(folder / "hf", max_position_embeddings=2048)
    taught_by_heart(folder / "hf")
    make_gguf(folder / "hf", folder / "teacher.gguf", "Q8_0", "toy")
    return folder / "teacher.gguf"


def items() -> list[Sample]:
    """Two items of either answer."""
    made = load_task("legal").generate(60, 1)
    return [s for answer in ("Yes", "No") for s in [s for s in made if s.answer == answer][: ITEMS // 2]]


def run(folder: Path, model: Path | str, **more: Any) -> dict[str, Any]:
    recipe = load_recipe(["recipe=legal", "teacher=local", f"teacher.model={model}", f"budget.queries={ITEMS}"])
    for name in ("data", "select", "out"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "data" / "pool.jsonl", items())
    (folder / "select" / "selected.json").write_text(json.dumps([{"id": s.id} for s in items()]))
    return teach(Context(recipe, folder, concurrency=3, **more), folder / "out")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    with closing(Ledger(folder / LEDGER)) as ledger:
        ledger.verify()
        return list(ledger.attempts())


def test_a_gguf_file_teaches_for_nothing(model: Path, tmp_path: Path) -> None:
    metrics = run(tmp_path / "run", model)
    assert (metrics["queries"], metrics["usd"], metrics["failed"]) == (ITEMS, 0.0, 0)
    assert (metrics["usable"], metrics["contradicted_gold"]) == (2, 2)  # it says yes to all
    assert metrics["teacher"] == "local:teacher.gguf"
    taught = list(read_jsonl(tmp_path / "run" / "out" / "taught.jsonl"))
    assert [(s.rationale, s.answer, s.provenance) for s in taught] == [("They live apart.", "Yes", "teacher")] * 2
    rows = rows_of(tmp_path / "run")
    runtime = load_runtime(model, 1)
    said = len(runtime.encode(SAID))
    assert {(row["state"], row["status"], row["response"]) for row in rows} == {("settled", "ok", SAID)}
    assert {(row["used_completion"], row["nano"]) for row in rows} == {(said, 0)}
    assert metrics["tokens"] == sum(row["used_prompt"] for row in rows) + ITEMS * said


def test_a_second_run_takes_the_answers_over_unless_the_file_has_changed(model: Path, tmp_path: Path) -> None:
    run(tmp_path / "one", model)
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(model.read_bytes())
    again = run(tmp_path / "two", copy, borrow=lambda: [tmp_path / "one" / LEDGER])
    assert again["reused"] == ITEMS
    copy.write_bytes(model.read_bytes() + b"\0")  # other bytes, so another model, whatever its name
    assert run(tmp_path / "three", copy, borrow=lambda: [tmp_path / "one" / LEDGER])["reused"] == 0


def test_a_damaged_file_is_one_error_and_no_query_is_spent(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"broken\.gguf"):
        run(tmp_path / "run", broken)
    assert rows_of(tmp_path / "run") == []
