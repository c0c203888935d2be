"""The order in which the student meets its lessons, and the warning of one that was not aligned."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge_edge.curriculum import DECISIONS, alignment_note, easy_first, short_first, spread
from bridge_edge.data.samples import Sample, write_jsonl
from bridge_edge.errors import UserError
from bridge_edge.phases import Context, Course, all_passes
from bridge_edge.recipe_io import load_recipe
from bridge_edge.stage_key import stage_key
from bridge_edge.stages import STAGES, needed_for
from bridge_edge.train.batches import ANSWER, RATIONALE, Encoded
from bridge_edge.train.loop import Plan, step_plan
from bridge_edge.tutoring import tutor
from tests import tiny
from tests.legal import LEGAL

PLAN = Plan(1e-3, 2, 64, 32, seed=3)
SAMPLES = [Sample(f"item {i}", "Yes", f"step {i}.") for i in range(5)]


def rows(n: int = 30) -> list[Encoded]:
    """Examples of different lengths, told apart by their first id."""
    found = []
    for i in range(n):
        learnt = i * 5 % 13 + 1
        codes = [0, *[RATIONALE, ANSWER] * 7][: learnt + 1]
        found.append(Encoded(np.array([i, *[7] * learnt], dtype=np.int32), np.array(codes, dtype=np.int8)))
    return found


def decisions(path: Path, *logprobs: float | None, kept: bool = True) -> Path:
    lines = [{"id": s.id, "kept": kept, "logprob": p} for s, p in zip(SAMPLES, logprobs, strict=False)]
    (path / DECISIONS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_easy_is_what_the_assistant_was_sure_of_and_unknown_comes_last(tmp_path: Path) -> None:
    found = easy_first(SAMPLES, decisions(tmp_path, -0.9, -0.1, -0.5))
    assert [s.prompt for s in found] == ["item 1", "item 2", "item 0", "item 3", "item 4"]


def test_what_was_dropped_says_nothing_of_the_item(tmp_path: Path) -> None:
    assert easy_first(SAMPLES, decisions(tmp_path, -0.9, -0.1, kept=False)) == SAMPLES


def test_an_order_by_sureness_needs_probabilities(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs the assistant's log-probabilities") as caught:
        easy_first(SAMPLES, decisions(tmp_path, -0.9, None))
    assert "short-to-long" in caught.value.hint


def test_the_first_epoch_keeps_its_order_and_the_next_does_not() -> None:
    examples = rows()
    steps = step_plan(examples, replace(PLAN, ordered=30))
    seen = [sorted(i for micro in step for i in micro) for step in steps]
    flat = [i for step in seen for i in step]
    assert flat[:30] == list(range(30))  # each step takes the next examples
    assert sorted(flat[30:]) == list(range(30))
    assert flat[30:] != list(range(30))
    for step in steps:
        assert all(max(len(examples[i]) for i in micro) * len(micro) <= 32 for micro in step)
    assert step_plan(examples, PLAN) == step_plan(examples, replace(PLAN, ordered=0))


def test_half_an_epoch_in_order_is_its_beginning() -> None:
    steps = step_plan(rows(), replace(PLAN, epochs=0.5, ordered=30))
    seen = sorted(i for step in steps for micro in step for i in micro)
    assert seen == list(range(len(seen)))
    assert 8 < len(seen) < 22


def test_what_is_not_ordered_follows_shuffled() -> None:
    flat = [i for step in step_plan(rows(), replace(PLAN, epochs=1, ordered=10)) for micro in step for i in micro]
    assert sorted(flat[:10]) == list(range(10))
    assert sorted(flat[10:]) == list(range(10, 30))


def test_short_ones_come_first_by_what_is_learnt() -> None:
    learnt = [int((e.segments > 0).sum()) for e in short_first(rows())]
    assert learnt == sorted(learnt)
    assert len(set(learnt)) > 5


def test_extra_is_spread_evenly() -> None:
    assert spread("abcdef", "xy") == list("abcxdefy")
    assert spread("ab", "wxyz") == list("awxbyz")
    assert spread("abc", "") == list("abc")


def test_passes_told_again_follow_the_first_with_their_share_of_documents() -> None:
    tokenizer, examples = tiny.tokenizer(), rows(8)
    told = {k: list(reversed(examples[k:])) for k in (1, 2)}
    found, passes = all_passes(Course(examples, told.__getitem__), tokenizer, 0.0, replace(PLAN, epochs=3))
    assert passes == (8, 7, 6)
    assert found == [*examples, *told[1], *told[2]]
    found, passes = all_passes(Course(examples, told.__getitem__), tokenizer, 0.5, replace(PLAN, epochs=3))
    assert passes == (12, 11, 10)
    assert found[12:19] == told[1]
    assert all_passes(Course(examples, told.__getitem__), tokenizer, 0.0, replace(PLAN, epochs=1)) == (examples, ())


def test_rehearsal_lies_between_the_ordered_examples() -> None:
    tokenizer, examples = tiny.tokenizer(), rows(8)
    found, passes = all_passes(Course(examples), tokenizer, 0.5, replace(PLAN, ordered=8))
    shuffled, sizes = all_passes(Course(examples), tokenizer, 0.5, PLAN)
    assert passes == sizes == (12, 12)
    assert all_passes(Course(examples), tokenizer, 0.0, PLAN) == (examples, ())
    own = [i for i, e in enumerate(found[:12]) if any(e is x for x in examples)]
    assert len(found) == len(shuffled) == 24
    assert len(own) == 8  # the other 4 of the first epoch are documents
    assert [found[i] for i in own] == examples
    assert max(b - a for a, b in pairwise(own)) == 2


def test_the_order_concerns_the_tutoring_alone(tmp_path: Path) -> None:
    outputs = dict.fromkeys((s.name for s in STAGES), "x")

    def keys(*words: str) -> dict[str, str]:
        recipe = load_recipe([*LEGAL, *words])
        return {s.name: stage_key(s, recipe, outputs) for s in needed_for(None, recipe)}

    plain, ordered = keys(), keys("tutor.order=easy-to-hard")
    assert {name for name in plain if plain[name] != ordered[name]} == {"tutor"}
    weighted = keys("tutor.lambda_answer=2")
    assert {"tutor", "baseline"} <= {name for name in plain if plain[name] != weighted[name]}


@pytest.mark.parametrize(("rate", "warns"), [(0.0, False), (0.05, False), (0.06, True)])
def test_the_parse_failures_decide_on_the_warning(rate: float, warns: bool) -> None:
    note = alignment_note(rate)
    assert bool(note) == warns
    assert not warns or ("6.0%" in note and "align.enabled=true" in note)


def run(path: Path, *words: str) -> dict[str, Any]:
    """The tutoring of a tiny random student in a run written by hand."""
    tiny.checkpoint(path / "align")
    for stage in ("data", "teach", "annotate", "tutor"):
        (path / stage).mkdir()
    write_jsonl(path / "data" / "dev.jsonl", SAMPLES)
    write_jsonl(path / "teach" / "taught.jsonl", SAMPLES[3:])
    write_jsonl(path / "annotate" / "annotations.jsonl", SAMPLES[:3])
    decisions(path / "annotate", -0.9, -0.1, -0.5)
    sizes = ("student.epochs=1", "student.batch_tokens=64", "student.micro_tokens=64", "task.max_new_tokens=8")
    recipe = load_recipe([*LEGAL, *sizes, *words])
    return tutor(Context(recipe, path), path / "tutor")


@pytest.mark.parametrize("skip", ["align.enabled=false", "align.epochs=0"])
def test_a_student_that_was_not_aligned_is_checked(
    skip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = run(tmp_path, skip, "tutor.order=easy-to-hard")
    assert metrics["dev_parse_failures"] == 1.0  # what a random student writes has no answer in it
    assert "100.0% of the student's dev answers cannot be read" in capsys.readouterr().err
    assert (metrics["from_teacher"], metrics["from_ta"]) == (2, 3)


def test_an_aligned_student_is_not_checked_again(tmp_path: Path) -> None:
    assert "dev_parse_failures" not in run(tmp_path, "tutor.order=short-to-long")
