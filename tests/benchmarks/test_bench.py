from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.benchmarks import report
from bridge_edge.benchmarks.bench import BenchOptions, bench, bench_many, sizes
from bridge_edge.data.samples import Sample
from bridge_edge.errors import Failures, UserError, told
from tests import tiny
from tests.rule_runtime import RuleRuntime

SAMPLES = [Sample("is 7 odd?", "yes"), Sample("is 8 odd?", "no"), Sample("is 9 odd?", "yes")]
QUICK = BenchOptions(threads=1, repetitions=3, warmup=1, decode_tokens=4, prefill=(8, 32, 600), memory=False, rest_s=0)


class Shelf:
    """Loads rule runtimes and remembers them; a path named slow gives a slower one."""

    def __init__(self) -> None:
        self.made: list[RuleRuntime] = []

    def __call__(self, path: Path, threads: int | None) -> RuleRuntime:
        self.made.append(RuleRuntime(path, pause=0.01 if path.name == "slow" else 0.002))
        return self.made[-1]


def toy(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"x" * 100)
    (path / "config.json").write_bytes(b"{}")
    return path


def test_two_artifacts_in_turns(tmp_path: Path) -> None:
    shelf = Shelf()
    fast, slow = bench_many([toy(tmp_path, "fast"), toy(tmp_path, "slow")], SAMPLES, QUICK, shelf)
    assert all(runtime.closed for runtime in shelf.made)
    assert fast["artifact"] == {
        "path": str(tmp_path / "fast"), "bytes": 102, "weight_bytes": 100, "runtime": "rule", "context_length": 512,
    }  # fmt: skip
    assert list(fast["prefill"]) == ["8", "32"]
    assert fast["prefill_skipped"] == [600]
    assert fast["prefill"]["8"]["seconds"]["n"] == 3
    assert fast["prefill"]["8"]["seconds"]["p50"] >= 0.002
    assert fast["decode"]["tps"]["n"] == 3
    assert fast["decode"]["tps"]["mean"] <= 500
    assert slow["decode"]["tps"]["mean"] <= 100
    assert slow["ttft_s"]["p50"] >= 0.01
    assert fast["decode"]["tokens"] == 3 * (11 + 10 + 10)  # a yes is 11 bytes, a no 10; the third says no
    assert fast["quality"]["accuracy"] == pytest.approx(2 / 3)
    assert slow["quality"]["paired"]["difference"] == 0.0
    assert fast["memory"] is None
    assert slow["protocol"]["compared_with"] == [str(tmp_path / "fast")]
    # No prompt finds its beginning in the cache of the one run just before it.
    timed = shelf.made[1].seen[
        : 4 * 2 * (2 + 3)
    ]  # four repetitions of two prefills and three answers, each after another
    assert all(a[0] != b[0] for a, b in pairwise(timed))
    assert [len(ids) for ids in timed[:10]] == [1, 8, 1, 32, 1, 11, 1, 11, 1, 11]


def test_reports_as_table_and_line(tmp_path: Path) -> None:
    found = bench_many([toy(tmp_path, "fast"), toy(tmp_path, "slow")], SAMPLES, QUICK, Shelf())
    found[1]["reasons"] = [*found[0]["contention"]["reasons"], "on fire"]
    text = report.table(found)
    assert "rule: " in text.splitlines()[0]
    assert "prefill 32, tokens/s" in text
    assert "prefill 600 is beyond the context" in text
    assert "slow): on fire" in text
    assert "peak RSS" not in text  # nothing measured, no row
    assert json.loads(report.line(found))["reports"][1]["reasons"][-1] == "on fire"
    assert "\n" not in report.line(found)


def test_a_run_under_noise_is_not_publishable(tmp_path: Path) -> None:
    found = bench(toy(tmp_path, "fast"), SAMPLES, BenchOptions(repetitions=1, prefill=(8,), memory=False), Shelf())
    assert not found["publishable"]
    assert "fewer than two repetitions" in found["reasons"]


def test_samples_without_answers_are_timed_and_not_scored(tmp_path: Path) -> None:
    found = bench(toy(tmp_path, "fast"), [Sample("is 7 odd?")], QUICK, Shelf())
    assert found["quality"] is None
    assert found["answer_s"]["n"] == 3
    assert "accuracy" not in report.table([found])


def test_a_student_that_says_nothing(tmp_path: Path) -> None:
    class Mute(RuleRuntime):
        def stream(self, ids: Sequence[int], max_new_tokens: int) -> Iterator[int]:
            self.seen.append(list(ids))
            return iter(())

    found = bench(toy(tmp_path, "mute"), SAMPLES[:1], QUICK, lambda path, threads: Mute(path))
    assert found["decode"] == {"tps": None, "tokens": 0, "at_once": 12}
    assert not found["publishable"]
    assert found["quality"]["parse_failure_rate"] == 1.0
    assert "12 answers ended without a token" in report.table([found])


def test_everything_is_closed_when_one_fails(tmp_path: Path) -> None:
    shelf = Shelf()

    def load(path: Path, threads: int | None) -> RuleRuntime:
        if path.name == "bad":
            raise UserError("no model there")
        return shelf(path, threads)

    with pytest.raises(UserError, match="no model there"):
        bench_many([toy(tmp_path, "fast"), toy(tmp_path, "bad")], SAMPLES, QUICK, load)
    assert all(runtime.closed for runtime in shelf.made)


class Breaking(RuleRuntime):
    """Gives up in its third repetition; two prefills and three answers make one, each after a prompt of its own."""

    def stream(self, ids: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        if len(self.seen) > 25:
            raise RuntimeError("the engine gave up\nat length")
        return super().stream(ids, max_new_tokens)


class Blind(RuleRuntime):
    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        raise MemoryError


def test_the_others_are_measured_when_one_fails(tmp_path: Path) -> None:
    """One cannot be opened, one breaks down while it is timed, one while it is scored."""
    kinds: dict[str, type[RuleRuntime]] = {"breaks": Breaking, "fast": RuleRuntime, "blind": Blind}
    made: list[RuleRuntime] = []

    def load(path: Path, threads: int | None) -> RuleRuntime:
        if path.name not in kinds:
            raise UserError("no model there", "look elsewhere")
        made.append(kinds[path.name](path))
        return made[-1]

    paths = [toy(tmp_path, name) for name in ("closed", "breaks", "fast", "blind")]
    failures = Failures()
    fast, blind = bench_many(paths, SAMPLES, QUICK, load, failures)
    assert all(runtime.closed for runtime in made)
    assert [Path(name).name for name in failures.found] == ["closed", "breaks", "blind"]
    assert [str(told(error)) for error in failures.found.values()] == [
        "no model there; look elsewhere", "RuntimeError: the engine gave up", "MemoryError: MemoryError",
    ]  # fmt: skip
    assert fast["quality"]["n"] == len(SAMPLES)
    assert fast["protocol"]["compared_with"] == [str(tmp_path / "blind")]
    assert blind["decode"]["tps"]["n"] == QUICK.repetitions
    assert blind["quality"] is None
    assert "accuracy" in report.table([fast, blind])


@pytest.mark.parametrize(
    ("option", "value"), [("repetitions", 0), ("threads", 0), ("prefill", (64, 0)), ("rest_s", -1), ("warmup", -1)]
)
def test_bad_options_are_refused(option: str, value: Any) -> None:
    with pytest.raises(UserError, match=option):
        BenchOptions(**{option: value})


def test_thread_count_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert BenchOptions().thread_count == 1
    assert BenchOptions(threads=3).thread_count == 3


def test_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no samples"):
        bench(tmp_path, [], QUICK, Shelf())
    with pytest.raises(UserError, match="no artifact"):
        bench_many([], SAMPLES, QUICK, Shelf())


def test_sizes_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"abc")
    assert sizes(tmp_path / "m.gguf") == {"path": str(tmp_path / "m.gguf"), "bytes": 3, "weight_bytes": 3}


def test_a_real_student_through_the_real_loader(tmp_path: Path) -> None:
    model = tiny.checkpoint(tmp_path / "model")
    samples = [Sample(prompt, "yes") for prompt in tiny.PROMPTS]
    options = BenchOptions(threads=1, repetitions=2, warmup=0, decode_tokens=4, prefill=(32, 512), rest_s=0)
    found = bench(model, samples, options)
    assert found["artifact"]["runtime"] == "torch"
    assert found["prefill_skipped"] == [512]  # the toy's context is 256
    assert found["memory"]["peak_rss_bytes"] > found["artifact"]["weight_bytes"]
    assert found["quality"]["n"] == 3
    assert found["load"]["first_s"] > 0
    json.dumps(found, allow_nan=False)
