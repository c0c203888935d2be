"""The meter: rate, spending and expectation from the states of the loop, retries from the attempts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge_edge.budget import Caps, Ledger, Totals
from bridge_edge.prices import Price
from bridge_edge.progress import track
from bridge_edge.teacher.ask import Policy, ask_all
from bridge_edge.teacher.base import Request
from bridge_edge.teacher.meter import Meter
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher
from bridge_edge.teacher.outcome import Progress
from tests.teacher.loopback import chat, serve


def state(done: int, spent: int, unsettled: int = 0, failed: int = 0) -> Progress:
    return Progress(done, failed, 10, Totals(done, 0, spent + unsettled, 1, 0, unsettled))


def test_the_expectation_counts_what_this_run_settled() -> None:
    seen: list[tuple[float, str]] = []
    meter = Meter(lambda step, note: seen.append((step, note)), 2.0)
    meter(state(4, 10**9))  # four were there before
    meter(state(6, 2 * 10**9, unsettled=5 * 10**9))
    assert [step for step, _ in seen] == [4, 2]
    assert seen[0][1] == "4 of 10 calls, $1.0000 of $2.00"
    last = seen[1][1]
    assert last.startswith("6 of 10 calls, ")
    assert "a second" in last
    assert "$7.0000 of $2.00" in last  # reservations count as spent until they are resolved
    assert last.endswith("$4.0000 expected in all")  # 2 settled, half a dollar for each of the other four
    meter(Progress(7, 1, 10, Totals(8, 0, 5 * 10**9, 3, 0, 3 * 10**9, 2 * 10**9)))  # the failed one may have cost two
    assert seen[2][1].endswith("$5.5000 expected in all, 1 failed")  # 4 ended, of which 3 in the four calls here
    assert Meter(lambda *_: None, None).note(state(1, 0, failed=2)) == "3 of 10 calls, $0.0000, 2 failed"


def test_retries_are_the_attempts_beyond_the_first(tmp_path: Path) -> None:
    notes: list[str] = []
    meter = Meter(lambda step, note: notes.append(note), None)
    with serve(lambda n, b: (503, {}, "{}") if n < 2 else (200, {}, chat("Answer: yes"))) as server:
        teacher = OpenAITeacher(Endpoint("toy", server.url, ""), Price(1, 2))
        with Ledger(tmp_path / "l.sqlite", Caps(), teacher.price) as ledger:
            asked = [Request.of(str(i), f"Is {i} even?", 20) for i in range(3)]
            ask_all(teacher, ledger, asked, 1, meter, Policy(first_wait_s=0.01))
    assert "2 retries" in notes[-1]


def test_without_a_terminal_a_line_comes_though_nothing_ends(capfd: pytest.CaptureFixture[str]) -> None:
    with track("teacher", 5, every=0.05) as advance:
        advance(0, "0 of 5 calls")
        import time

        end = time.monotonic() + 20
        while not (lines := capfd.readouterr().err) and time.monotonic() < end:
            time.sleep(0.02)
    assert "teacher: 0%  0 of 5 calls" in lines
