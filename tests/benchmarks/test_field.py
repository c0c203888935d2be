from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.benchmarks import field, report, schema
from bridge_edge.benchmarks.bench import BenchOptions, bench, bench_many
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from tests.rule_runtime import RuleRuntime

SAMPLES = [Sample("is 7 odd?", "yes"), Sample("is 8 odd?", "no")]
QUICK = BenchOptions(
    threads=1,
    repetitions=2,
    warmup=1,
    decode_tokens=4,
    prefill=(8,),
    memory=False,
    rest_s=0,
    prompt_tokens=(16, 600),
    generate_tokens=(4,),
    depths=(20, 0),
    sustained=4,
    retries=0,
)


def test_tests_stand_in_order_of_depth_and_are_named_as_the_field_does() -> None:
    asked = field.tests((512, 128, 512), (32,), (64, 0))
    assert [t.name for t in asked] == ["pp512@d0", "pp128@d0", "tg32@d0", "pp512@d64", "pp128@d64", "tg32@d64"]
    fit, rest = field.fitting(asked, 160)
    assert [t.name for t in fit] == ["pp128@d0", "tg32@d0", "tg32@d64"]
    assert len(rest) == 3
    assert field.fitting(asked, None) == (asked, [])


def test_a_repetition_feeds_what_its_tests_say_and_fills_each_depth_once() -> None:
    runtime = RuleRuntime(Path("toy"), pause=0.003)
    ids = list(range(1, 8))
    done = field.repetition(runtime, field.tests((6,), (3,), (0, 5)), ids)
    (session,) = runtime.sessions
    stock = (ids * 2)[:11]
    assert session.room == 11
    assert (
        session.calls
        == [
            (0, stock[:6]),  # pp6@d0
            *((i, [stock[i]]) for i in range(3)),  # tg3@d0
            (3, stock[3:5]),  # up to the depth: two more, since three are there
            (5, stock[5:11]),
            *((5 + i, [stock[5 + i]]) for i in range(3)),
        ]
    )
    assert [t.test.name for t in done] == ["pp6@d0", "tg3@d0", "pp6@d5", "tg3@d5"]
    assert all(t.seconds[0] >= 0.003 for t in done)
    assert done[1].seconds[0] == pytest.approx(sum(done[1].gaps))
    assert (len(done[0].gaps), len(done[1].gaps)) == (0, 3)
    assert field.repetition(runtime, [], ids) == []


def test_sustained_tells_the_first_run_from_the_last() -> None:
    class Tiring(RuleRuntime):
        def session(self, room: int) -> Any:
            self.pause += 0.004
            return super().session(room)

    found = field.sustained(Tiring(Path("toy")), 8, 4, 3, [1, 2, 3])
    assert found is not None
    assert (found["runs"], len(found["tg_by_run"])) == (8, 8)
    assert found["burst_tg_tps"] == found["tg_by_run"][0] <= 250
    assert found["sustained_tg_tps"] == pytest.approx(sum(found["tg_by_run"][-2:]) / 2)
    assert found["kept_share"] < 0.9  # the pause has grown sevenfold
    assert field.sustained(RuleRuntime(Path("toy"), context=16), 2, 12, 12, [1]) is None


def test_a_sweep_over_threads_reports_each_count_in_one_schema(tmp_path: Path) -> None:
    asked: list[int | None] = []

    def load(path: Path, threads: int | None) -> RuleRuntime:
        asked.append(threads)
        return RuleRuntime(path, pause=0.001)

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    options = BenchOptions(**{**QUICK.__dict__, "sweep": (1, 2), "threads": None})
    found = bench_many([tmp_path / "a", tmp_path / "b"], SAMPLES, options, load)
    assert [r["protocol"]["threads"] for r in found] == [1, 2, 1, 2]
    assert set(asked) == {1, 2}
    assert [r["quality"] is not None for r in found] == [True, False, True, False]  # accuracy has no threads
    for one in found:
        schema.check(one)
        assert [t["test"] for t in one["field"]] == ["pp16@d0", "tg4@d0", "pp16@d20", "tg4@d20"]
        assert one["field_skipped"] == ["pp600@d0", "pp600@d20"]
        assert one["field"][1]["inter_token_s"]["n"] == 2 * 4
        assert one["field"][0]["tps"]["n"] == 2
        assert one["sustained"]["runs"] == 4
    text = report.table(found)
    assert "pp16@d20, tokens/s" in text
    assert "(2 threads)" in text
    assert "pp600@d0 is beyond the context" in text
    assert "burst / sustained" in text


def test_the_schema_refuses_what_it_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    found = bench(tmp_path / "a", SAMPLES, QUICK, lambda path, threads: RuleRuntime(path))
    file = tmp_path / "report.json"
    file.write_text("measuring\n" + json.dumps(found), encoding="utf-8")
    assert schema.main([str(file)]) == 0
    for changed in ({**found, "extra": 1}, {k: v for k, v in found.items() if k != "load"}, {**found, "schema": 1}):
        with pytest.raises(UserError, match=r"extra|load|schema 1"):
            schema.check(changed)
    file.write_text("[]", encoding="utf-8")
    assert schema.main([str(file)]) == 2
    assert "holds no JSON object" in capsys.readouterr().err
    assert schema.main([]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed["required"]) == {*found}


@pytest.mark.parametrize(
    ("option", "value"), [("prompt_tokens", (0,)), ("generate_tokens", (-1,)), ("sweep", (0,)), ("depths", (-1,))]
)
def test_lengths_that_make_no_sense_are_refused(option: str, value: Any) -> None:
    with pytest.raises(UserError, match=r"is (0|-1)"):
        BenchOptions(**{option: value})
