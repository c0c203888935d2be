"""Through lm-evaluation-harness the student's own probabilities and answers are scored, on files without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bridge_edge.benchmarks import harness
from bridge_edge.benchmarks.options import BenchOptions
from bridge_edge.errors import UserError
from bridge_edge.evaluate import wilson
from bridge_edge.runtimes.load import load_runtime
from tests import tiny

ITEMS = [{"question": f"Is {n} odd?", "answer": n % 2} for n in range(6)]
OPTIONS = BenchOptions(threads=1)


def written(folder: Path, name: str, *lines: str) -> str:
    """A task file over local items."""
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    head = (
        f"task: {name}",
        "dataset_path: json",
        f"dataset_kwargs: {{data_files: {{test: {folder / 'items.jsonl'}}}}}",
    )
    (folder / f"{name}.yaml").write_text("\n".join([*head, "test_split: test", *lines]) + "\n")
    return str(folder / f"{name}.yaml")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def runtime(model: Path) -> Iterator[Any]:
    opened = load_runtime(model, 1)
    yield opened
    opened.close()


def test_choices_are_scored_as_the_slow_way_scores_them(
    model: Path, runtime: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    file = written(
        tmp_path, "odd", "output_type: multiple_choice", 'doc_to_text: "{{question}}"', "doc_to_target: answer",
        'doc_to_choice: ["no", "yes"]', "metric_list: [{metric: acc}]",
    )  # fmt: skip
    (found,) = harness.assess([model], file, 5, OPTIONS)
    hits = 0
    for item in ITEMS[:5]:
        prompt = runtime.chat(item["question"])
        sums = []
        for choice in ("no", "yes"):
            ids = runtime.encode(choice)
            rows = runtime.logits([*prompt, *ids])
            sums.append(sum(rows[len(prompt) - 1 + k][t] - np.log(np.exp(rows[len(prompt) - 1 + k]).sum())
                            for k, t in enumerate(ids)))  # fmt: skip
        hits += int(np.argmax(sums) == item["answer"])
    acc = found["tasks"]["odd"]["metrics"]["acc"]
    assert found["tasks"]["odd"]["n"] == 5
    assert acc["value"] == pytest.approx(hits / 5)
    assert acc["ci95"] == pytest.approx(wilson(hits, 5))
    assert found["artifact"] == {"path": str(model), "runtime": "torch"}
    assert "odd" in harness.table([found])


def test_what_the_model_says_is_what_the_runtime_decodes(runtime: Any) -> None:
    pytest.importorskip("lm_eval")
    from bridge_edge.benchmarks.harness_model import FRAMED, Student

    student = Student(runtime, 12)
    whole = runtime.decode(list(runtime.stream(runtime.chat("Is 7 odd?"), 12)))
    assert len(whole) > 4
    assert student.answer(FRAMED + "Is 7 odd?", {}) == whole
    assert student.answer(FRAMED + "Is 7 odd?", {"until": [whole[3:5], whole[2:4]]}) == whole[:2]
    assert student.answer(FRAMED + "Is 7 odd?", {"until": "never said", "max_gen_toks": 3}) != whole
    with pytest.raises(UserError, match="samples"):
        student.answer("x", {"do_sample": True, "temperature": 0.7})
    ids = runtime.encode("The tenant pays 1200 dollars a month")
    request = SimpleNamespace(args=("The tenant pays 1200 dollars a month",))
    rows = runtime.logits([student.prefix_token_id, *ids])
    slow = sum(float(rows[k][t] - np.log(np.exp(rows[k]).sum())) for k, t in enumerate(ids))
    assert student.loglikelihood_rolling([request])[0] == pytest.approx(slow, rel=1e-4)
    greedy = list(runtime.stream(runtime.chat("x"), 3))
    assert student.likelihood(runtime.chat("x"), greedy)[1]
    assert not student.likelihood(runtime.chat("x"), [greedy[0], (greedy[1] + 1) % 300])[1]
    with pytest.raises(UserError, match="system prompt"):
        student.apply_chat_template([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])


def test_what_cannot_be_assessed_is_said(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    with pytest.raises(UserError, match="no task file"):
        harness.assess([model], str(tmp_path / "none.yaml"), 5, OPTIONS)
    broken = written(tmp_path, "broken", "output_type: multiple_choice", "doc_to_text: nothing", "doc_to_target: 0")
    with pytest.raises(UserError, match="lm-evaluation-harness failed"):
        harness.assess([model], broken, 5, OPTIONS)


def test_a_result_becomes_metrics_with_intervals() -> None:
    given = {
        "results": {"t": {"alias": "t", "acc,none": 0.75, "acc_stderr,none": 0.2, "f1,strict": 0.5,
                          "f1_stderr,strict": 0.1, "bleu,none": 3.0, "bleu_stderr,none": "N/A"}},
        "n-samples": {"t": {"original": 9, "effective": 4}},
        "versions": {"t": 2.0},
    }  # fmt: skip
    found = harness.plain(given)["t"]
    assert (found["n"], found["version"]) == (4, 2.0)
    assert found["metrics"]["acc"]["ci95"] == pytest.approx(wilson(3, 4))
    assert found["metrics"]["f1,strict"]["ci95"] == pytest.approx([0.304, 0.696], abs=1e-3)
    assert found["metrics"]["bleu"] == {"value": 3.0, "ci95": None}
