from __future__ import annotations

import json
from pathlib import Path

import pytest

from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from bridge_edge.evaluate import evaluate, paired, records_json, score, table, to_json, wilson
from tests.rule_runtime import CARD, RuleRuntime

ANSWERS = ("yes", "no")
# Six items: gold yes yes yes yes no no; right on three yes and one no, one unreadable.
SAMPLES = [
    Sample("q1", "yes", kind="a"),
    Sample("q2", "yes", kind="a"),
    Sample("q3", "yes", kind="a"),
    Sample("q4", "yes", kind="b"),
    Sample("q5", "no", kind="b"),
    Sample("q6", "no", kind="b"),
]
TEXTS = [
    "so\nAnswer: yes",
    "Answer: YES.",
    "Answer: no, then\nAnswer: yes",
    "I am not sure",
    "Answer: no",
    "Answer: yes",
]


def test_scores_by_hand() -> None:
    scores = score(SAMPLES, TEXTS, ANSWERS, tokens=[4, 2, 6, 4, 2, 2])
    assert scores.n == 6
    assert scores.accuracy == pytest.approx(4 / 6)
    assert scores.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores.majority == pytest.approx(4 / 6)
    assert scores.parse_failure_rate == pytest.approx(1 / 6)
    assert scores.mean_completion_tokens == pytest.approx(20 / 6)
    assert list(scores.per_task) == ["a", "b"]
    assert scores.per_task["a"].accuracy == 1.0
    assert scores.per_task["b"].accuracy == pytest.approx(1 / 3)
    assert [r.correct for r in scores.records] == [True, True, True, False, True, False]
    assert scores.records[3].prediction is None
    assert not scores.records[3].parsed


def test_an_answer_outside_the_choices_is_a_parse_failure_and_wrong() -> None:
    scores = score(SAMPLES[:1], ["Answer: perhaps"], ANSWERS)
    assert (scores.accuracy, scores.parse_failure_rate) == (0.0, 1.0)


def test_free_form_answers_are_compared_in_normal_form() -> None:
    samples = [Sample("a", "1,200"), Sample("b", "$40")]
    assert score(samples, ["Answer: $1200", "Answer: 41"]).accuracy == 0.5


def test_wilson_against_published_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == (0.0, pytest.approx(0.1611, abs=5e-5))
    assert wilson(29, 29) == (pytest.approx(0.8830, abs=5e-5), 1.0)


def test_paired_against_published_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17:2635, table II, method 10: 36, 12, 2, 0 of 50.
    a = [True] * 48 + [False] * 2
    b = [True] * 36 + [False] * 12 + [True] * 2
    found = paired(a, b)
    assert found["difference"] == pytest.approx(0.2)
    assert found["ci95"] == pytest.approx([0.0569, 0.3404], abs=5e-5)
    assert (found["only_a"], found["only_b"]) == (12, 2)
    # Two-sided: 2 * (1 + 14 + 91) / 2**14.
    assert found["mcnemar_p"] == pytest.approx(212 / 16384)


def test_paired_ends() -> None:
    same = paired([True, False], [True, False])
    assert (same["difference"], same["mcnemar_p"]) == (0.0, 1.0)
    worse = paired([False] * 6, [True] * 6)
    assert worse["difference"] == -1.0
    assert worse["mcnemar_p"] == pytest.approx(2 / 64)
    assert -1.0 <= worse["ci95"][0] <= -1.0 + 1e-9
    assert paired([True] * 3000 + [False] * 3000, [False] * 3000 + [True] * 3000)["mcnemar_p"] == 1.0


def test_evaluate_runs_every_prompt_and_keeps_the_order() -> None:
    runtime = RuleRuntime(Path("toy"))
    # Longer prompts first, more than one batch, so that sorting and batching would show in a mixed-up order.
    samples = [Sample("7" * (80 - i) if i % 2 else "3" * (80 - i), "yes" if i % 2 else "no") for i in range(70)]
    told: list[tuple[int, int]] = []
    scores = evaluate(runtime, samples, CARD, progress=lambda done, total: told.append((done, total)))
    assert scores.accuracy == 1.0
    assert [r.id for r in scores.records] == [s.id for s in samples]
    assert told == [(32, 70), (64, 70), (70, 70)]
    assert scores.mean_completion_tokens == 10.5


def test_the_bound_on_new_tokens_reaches_the_runtime() -> None:
    scores = evaluate(RuleRuntime(Path("toy")), [Sample("7", "yes")], CARD, max_new_tokens=5)
    assert (scores.parse_failure_rate, scores.mean_completion_tokens) == (1.0, 5.0)


def test_nothing_to_score() -> None:
    with pytest.raises(UserError, match="no samples"):
        score([], [])
    with pytest.raises(UserError, match="no gold answer"):
        score([Sample("q")], ["Answer: yes"])
    with pytest.raises(UserError, match="no items"):
        paired([], [])
    with pytest.raises(ValueError, match="1 completions for 2"):
        score(SAMPLES[:2], ["x"])
    with pytest.raises(ValueError, match="1 and 2"):
        paired([True], [True, False])


def test_json_and_table() -> None:
    scores = score(SAMPLES, TEXTS, ANSWERS)
    data = json.loads(json.dumps(to_json(scores)))
    assert {"accuracy", "n", "ci95", "balanced_accuracy", "majority", "parse_failure_rate", "per_task"} <= set(data)
    assert data["per_task"]["b"]["n"] == 3
    assert json.loads(json.dumps(records_json(scores)))[0]["gold"] == "yes"
    lines = table(scores).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["a", "b", "all"]
    assert "66.7%" in lines[-1]
