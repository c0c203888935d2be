from __future__ import annotations

import time
from pathlib import Path

import pytest

from bridge_edge.benchmarks import latency
from tests.rule_runtime import RuleRuntime


def test_summary() -> None:
    found = latency.summary([1.0, 2.0, 3.0, 4.0])
    assert found is not None
    assert (found["n"], found["mean"], found["p50"]) == (4, 2.5, 2.5)
    assert found["sd"] == pytest.approx(1.2909944)
    assert found["p95"] == pytest.approx(3.85)
    assert latency.summary([]) is None


def test_an_answer_is_timed_token_by_token_after_another_prompt_was_run() -> None:
    runtime = RuleRuntime(Path("toy"), pause=0.004)
    start = time.perf_counter()
    found = latency.answer(runtime, "is 7 odd?", 20)
    wall = time.perf_counter() - start
    assert (found.prompt_tokens, found.produced, len(found.gaps)) == (11, 11, 10)  # "Answer: yes" is 11 bytes
    assert 0.004 <= found.ttft_s < found.total_s <= wall
    assert all(gap >= 0.004 for gap in found.gaps)
    assert found.total_s >= found.ttft_s + sum(found.gaps)
    before, asked = runtime.seen
    assert len(before) == 1
    assert before[0] not in (asked[0], *runtime.eos_ids)


def test_decode_speed_counts_only_produced_tokens() -> None:
    done = [latency.Answer(4, 3, 0.1, 0.6, (0.2, 0.3)), latency.Answer(4, 0, 0.1, 0.1, ())]
    assert latency.decode_speed(done) == pytest.approx(4.0)
    assert latency.decode_speed(done[1:]) is None


def test_a_repetition_goes_on_until_enough_tokens_and_stops_in_any_case() -> None:
    runtime = RuleRuntime(Path("toy"))
    assert len(latency.answers(runtime, ["a", "b"], 20, decode_tokens=1)) == 2
    assert len(latency.answers(runtime, ["a", "b"], 20, decode_tokens=20)) == 3  # nine gaps each
    assert len(latency.answers(runtime, ["a", "b"], 1, decode_tokens=20)) == 8  # one token each: no gaps at all


def test_prefill_stops_at_the_first_token() -> None:
    runtime = RuleRuntime(Path("toy"), pause=0.005)
    assert 0.005 <= latency.prefill_seconds(runtime, [1, 2, 3]) < 11 * 0.005  # a whole answer has 10 or 11 tokens
    assert runtime.seen == [[2], [1, 2, 3]]
