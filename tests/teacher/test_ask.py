"""The asking loop against real teachers: a server on loopback that counts its bill, and a teacher of a few lines."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge_edge.budget import Caps, Ledger
from bridge_edge.errors import UserError
from bridge_edge.prices import Price
from bridge_edge.teacher.ask import Policy, Progress, ask_all
from bridge_edge.teacher.base import Reply, Request, TeacherError, digest, quarter
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher
from tests.teacher.loopback import Scripted, Server, chat, serve

KEY = "sk-canary-0123456789abcdef"
PRICE = Price(1, 2)
QUICK = Policy(first_wait_s=0.01, most_wait_s=0.05)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", KEY)


def api(server: Server, timeout_s: float = 5.0) -> OpenAITeacher:
    return OpenAITeacher(Endpoint("toy", server.url, "TOY_KEY", timeout_s), PRICE)


def requests(n: int, max_tokens: int = 20) -> list[Request]:
    return [Request.of(f"item-{i}", f"Is {i} even?", max_tokens) for i in range(n)]


def bill(server: Server) -> int:
    return sum(PRICE.nano(prompt, completion) for prompt, completion in server.billed)


class Toy:
    """A teacher that does what `behave(request, call)` says."""

    name, price = "toy", PRICE

    def __init__(self, behave: Callable[[Request, int], Reply]) -> None:
        self.behave, self.calls = behave, 0
        self.lock = threading.Lock()
        self.order: list[str] = []

    def count_tokens(self, text: str) -> int:
        return quarter(text)

    def prompt_tokens(self, request: Request) -> int:
        return 10

    def request_hash(self, request: Request) -> str:
        return digest("toy", "", "toy", request)

    def ask(self, request: Request) -> Reply:
        with self.lock:
            call, self.calls = self.calls, self.calls + 1
            self.order.append(request.item_id)
        return self.behave(request, call)


def good(request: Request, call: int) -> Reply:
    return Reply(f"So.\nAnswer: {request.item_id}", 10, 5)


def test_everything_is_asked_once_and_the_books_agree_with_the_server(tmp_path: Path) -> None:
    seen: list[Progress] = []
    with serve(lambda n, b: (200, {}, chat("Fine.\nAnswer: yes<|im_end|>", 40, 8)), 0.005) as server:
        with Ledger(tmp_path / "l.sqlite", Caps(), PRICE) as ledger:
            first = ask_all(api(server), ledger, requests(12), 4, seen.append)
            assert ledger.totals().nano == bill(server)
        assert list(first.replies) == [f"item-{i}" for i in range(12)]
        assert first.replies["item-3"] == [Reply("Fine.\nAnswer: yes", 40, 8, "stop", "toy-1")]
        assert (first.asked, first.from_ledger, first.stopped_by, first.left, first.failures) == (12, 0, None, 0, [])
        with Ledger(tmp_path / "l.sqlite", Caps(), PRICE) as ledger:
            second = ask_all(api(server), ledger, requests(13), 4)
        assert (second.asked, second.from_ledger) == (1, 12)
        assert {key: second.replies[key] for key in first.replies} == first.replies
        assert len(server.billed) == 13
    assert (seen[0].done, seen[-1].done, seen[-1].total) == (0, 12, 12)
    for path in tmp_path.iterdir():
        assert KEY.encode() not in path.read_bytes()


def test_equal_questions_and_samples(tmp_path: Path) -> None:
    toy = Toy(lambda r, call: Reply(f"{r.sample}\nAnswer: x", 10, 5))
    twice = [Request.of("a", "same"), Request.of("b", "same"), Request.of("a", "same", sample=1)]
    outcome = ask_all(toy, Ledger(tmp_path / "l.sqlite", Caps(), PRICE), twice)
    assert toy.calls == 2
    assert [reply.text for reply in outcome.replies["a"]] == ["0\nAnswer: x", "1\nAnswer: x"]
    assert [reply.text for reply in outcome.replies["b"]] == ["0\nAnswer: x"]


@pytest.mark.parametrize("concurrency", [1, 7])
@pytest.mark.parametrize(
    ("caps", "cap", "bought"),
    [
        (Caps(queries=5), "queries", 5),
        # the worst case is 10 + 20 tokens, an answer takes 15: after n answers 15 n are spent
        (Caps(tokens=100), "tokens", 5),
        (Caps(usd="0.000130"), "usd", 5),  # $20 a million answers, $50 a million worst cases
    ],
)
def test_it_stops_at_a_cap_with_the_first_items_bought(
    tmp_path: Path, caps: Caps, cap: str, bought: int, concurrency: int
) -> None:
    def slow(request: Request, call: int) -> Reply:
        time.sleep(0.005)
        return good(request, call)

    toy, ledger = Toy(slow), Ledger(tmp_path / "l.sqlite", caps, PRICE)
    outcome = ask_all(toy, ledger, requests(20), concurrency)
    assert outcome.stopped_by == cap
    assert f"raise budget.{cap}" in outcome.message
    assert list(outcome.replies) == [f"item-{i}" for i in range(bought)]
    assert (outcome.left, toy.calls) == (20 - bought, bought)
    assert ledger.totals().unsettled_queries == 0
    rest = ask_all(toy, Ledger(ledger.path, Caps(), PRICE), requests(20), concurrency)
    assert (rest.stopped_by, rest.from_ledger, rest.asked, toy.calls) == (None, bought, 20 - bought, 20)


def test_retries_are_rows_and_succeed(tmp_path: Path) -> None:
    script: list[Scripted] = [(429, {"retry-after-ms": "30"}, "{}"), (500, {}, "oops"), (0, {}, "")]
    script.append((200, {}, chat("Answer: yes")))

    def flaky(number: int, body: dict) -> Scripted:
        return script[number]

    with serve(flaky) as server, Ledger(tmp_path / "l.sqlite", Caps(), PRICE) as ledger:
        outcome = ask_all(api(server), ledger, requests(1), 1, None, QUICK)
        rows = list(ledger.attempts())
    assert outcome.replies["item-0"][0].text == "Answer: yes"
    assert [(r["attempt"], r["state"], r["status"]) for r in rows] == [
        (1, "released", "http 429"),
        (2, "unknown", "http 500"),
        (3, "unknown", "connection"),
        (4, "settled", "ok"),
    ]
    assert rows[1]["started"] - rows[0]["finished"] >= 0.03  # the server's wish was kept


def test_a_pause_that_the_server_asks_for_holds_for_all_requests(tmp_path: Path) -> None:
    times: list[float] = []

    def limited(number: int, body: dict) -> Scripted:
        times.append(time.monotonic())
        return (200, {}, chat("Answer: yes")) if number else (429, {"retry-after-ms": "250"}, "{}")

    with serve(limited) as server, Ledger(tmp_path / "l.sqlite", Caps(), PRICE) as ledger:
        outcome = ask_all(api(server), ledger, requests(3), 1, None, QUICK)
    assert len(outcome.replies) == 3
    assert min(later - times[0] for later in times[1:]) >= 0.24


def test_retries_end_and_the_rest_goes_on(tmp_path: Path) -> None:
    def one_bad(number: int, body: dict) -> Scripted:
        bad = "Is 1 " in body["messages"][0]["content"]
        return (503, {}, "busy") if bad else (200, {}, chat("Answer: yes"))

    with serve(one_bad) as server, Ledger(tmp_path / "l.sqlite", Caps(), PRICE) as ledger:
        outcome = ask_all(api(server), ledger, requests(4), 2, None, QUICK)
    assert [failure.item_id for failure in outcome.failures] == ["item-1"]
    assert (outcome.failures[0].status, outcome.stopped_by, len(outcome.replies)) == ("http 503", None, 3)
    assert len(server.bodies) == 3 + 1 + QUICK.retries


def test_garbage_and_missing_usage_are_rows_at_the_worst_case_and_the_run_goes_on(tmp_path: Path) -> None:
    bodies = ["<html>", chat("Answer: yes", usage=None), '{"choices": 3}', chat("Answer: no", -5, 10**15)]
    with serve(lambda n, b: (200, {}, bodies[int(b["messages"][0]["content"].split()[1])])) as server:
        teacher = api(server)
        with Ledger(tmp_path / "l.sqlite", Caps(), PRICE) as ledger:
            outcome = ask_all(teacher, ledger, requests(4), 2)
            rows = sorted(ledger.attempts(), key=lambda row: row["item_id"])
            worst = sum(PRICE.nano(teacher.prompt_tokens(r), r.max_tokens) for r in requests(4))
            assert ledger.totals().nano == worst
    assert [row["status"] for row in rows] == ["malformed", "ok", "malformed", "ok"]
    assert rows[0]["response"] == "<html>"
    assert list(outcome.replies) == ["item-1", "item-3"]
    assert [failure.status for failure in outcome.failures] == ["malformed", "malformed"]


def test_a_filtered_item_is_named_and_not_bought_again(tmp_path: Path) -> None:
    with (
        serve(lambda n, b: (200, {}, chat("No", finish_reason="content_filter"))) as server,
        Ledger(tmp_path / "l.sqlite", Caps(), PRICE) as ledger,
    ):
        for _ in range(2):
            outcome = ask_all(api(server), ledger, requests(1))
            assert [(f.item_id, f.status) for f in outcome.failures] == [("item-0", "filtered")]
            assert outcome.stopped_by is None
        assert ledger.totals().nano == bill(server)
    assert len(server.bodies) == 1


def test_a_wrong_key_stops_at_once(tmp_path: Path) -> None:
    with (
        serve(lambda n, b: (401, {}, json.dumps({"error": {"message": f"wrong: {KEY}"}}))) as server,
        Ledger(tmp_path / "l.sqlite", Caps(), PRICE) as ledger,
    ):
        outcome = ask_all(api(server), ledger, requests(30), 1)
        assert ledger.totals().queries == 0
    assert (outcome.stopped_by, outcome.left, len(server.bodies)) == ("teacher", 29, 1)
    assert "TOY_KEY" in outcome.message
    assert KEY not in repr(outcome)
    for path in tmp_path.iterdir():
        assert KEY.encode() not in path.read_bytes()


def test_a_dead_teacher_trips_the_breaker(tmp_path: Path) -> None:
    with serve(lambda n, b: (404, {}, "{}")) as server, Ledger(tmp_path / "l.sqlite", Caps(), PRICE) as ledger:
        outcome = ask_all(api(server), ledger, requests(50), 1)
    assert len(server.bodies) == 5
    assert (outcome.stopped_by, len(outcome.failures), outcome.left) == ("teacher", 5, 45)
    assert "5 items in a row failed" in outcome.message


def test_empty_replies_stop_the_run_before_they_cost_all(tmp_path: Path) -> None:
    with (
        serve(lambda n, b: (200, {}, chat("", finish_reason="length"))) as server,
        Ledger(tmp_path / "l.sqlite", Caps(), PRICE) as ledger,
    ):
        outcome = ask_all(api(server), ledger, requests(50), 1)
        assert ledger.totals().nano == bill(server)
    assert (len(server.bodies), outcome.stopped_by, outcome.left) == (5, "teacher", 45)
    assert "raise teacher.max_tokens" in outcome.message


def test_a_long_pause_stops_instead_of_sleeping(tmp_path: Path) -> None:
    with (
        serve(lambda n, b: (429, {"Retry-After": "3601"}, "{}")) as server,
        Ledger(tmp_path / "l.sqlite", Caps(), PRICE) as ledger,
    ):
        outcome = ask_all(api(server), ledger, requests(3), 1)
    assert outcome.stopped_by == "teacher"
    assert re.search(r"wait 3601 s, until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", outcome.message)
    assert len(server.bodies) == 1


def test_answers_lost_to_timeouts_stay_counted_and_never_pass_the_cap(tmp_path: Path) -> None:
    with serve(lambda n, b: (200, {}, chat("late", 40, 8)), delay=0.3) as server:
        teacher = api(server, timeout_s=0.1)
        worst = PRICE.nano(teacher.prompt_tokens(requests(1)[0]), 20)
        caps = Caps(usd=str(worst * 3 / 1e9))
        with Ledger(tmp_path / "l.sqlite", caps, PRICE) as ledger:
            outcome = ask_all(teacher, ledger, requests(3), 3, None, QUICK)
            assert outcome.stopped_by == "usd"
            assert ledger.totals().unsettled_queries == 3
        time.sleep(0.4)
        assert bill(server) <= worst * 3
        assert len(server.bodies) == 3


def test_a_bug_in_a_teacher_is_raised_after_the_others_are_saved(tmp_path: Path) -> None:
    def buggy(request: Request, call: int) -> Reply:
        if request.item_id == "item-1":
            raise ZeroDivisionError("a bug")
        time.sleep(0.05)
        return good(request, call)

    ledger = Ledger(tmp_path / "l.sqlite", Caps(), PRICE)
    with pytest.raises(ZeroDivisionError):
        ask_all(Toy(buggy), ledger, requests(10), 3)
    states = {row["item_id"]: row["state"] for row in ledger.attempts()}
    assert states.pop("item-1") == "unknown"
    assert states
    assert len(states) < 9
    assert set(states.values()) == {"settled"}


def test_a_full_disk_stops_the_run_with_a_user_error(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", Caps(), PRICE)
    toy = Toy(lambda request, call: Reply("x" * 20_000, 10, 5))
    pages = ledger._file._connection().execute("PRAGMA page_count").fetchone()[0]
    ledger._file._connection().execute(f"PRAGMA max_page_count = {pages + 12}")
    with pytest.raises(UserError, match="free some disk space"):
        ask_all(toy, ledger, requests(30), 2)
    ledger.verify()
    kept = [row["item_id"] for row in ledger.attempts() if row["status"] == "ok"]
    assert kept
    assert ledger.totals().unsettled_queries >= 1


def test_a_failing_display_loses_nothing(tmp_path: Path) -> None:
    def display(progress: Progress) -> None:
        if progress.done:
            raise OSError("the terminal is gone")

    ledger = Ledger(tmp_path / "l.sqlite", Caps(), PRICE)
    toy = Toy(good)
    with pytest.raises(OSError, match="terminal"):
        ask_all(toy, ledger, requests(10), 3, display)
    assert ledger.totals().unsettled_queries == 0
    assert ledger.totals().queries == toy.calls


def test_two_runs_on_one_ledger_share_the_work(tmp_path: Path) -> None:
    def slow(request: Request, call: int) -> Reply:
        time.sleep(0.02)
        return good(request, call)

    toy, outcomes = Toy(slow), []

    def run() -> None:
        outcomes.append(ask_all(toy, Ledger(tmp_path / "l.sqlite", Caps(queries=10), PRICE), requests(10), 2))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert toy.calls == 10
    assert outcomes[0].replies == outcomes[1].replies
    assert sum(outcome.asked for outcome in outcomes) == 10
    assert len(outcomes[0].replies) == 10


def test_a_free_ledger_for_a_priced_teacher_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="costs"):
        ask_all(Toy(good), Ledger(tmp_path / "l.sqlite"), requests(1))


def test_teacher_errors_never_hide_the_bill() -> None:
    assert TeacherError("lost").billed == "unknown"


CHILD = """
import os, sys
from bridge_edge.budget import Caps, Ledger
from bridge_edge.prices import Price
from bridge_edge.teacher.ask import ask_all
from bridge_edge.teacher.base import Request
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher
teacher = OpenAITeacher(Endpoint("toy", sys.argv[1], "TOY_KEY", 20.0), Price(1, 2))
ledger = Ledger(sys.argv[2], Caps(queries=1000), Price(1, 2))
try:
    ask_all(teacher, ledger, [Request.of(f"item-{i}", f"Is {i} even?", 20) for i in range(500)], 4)
except KeyboardInterrupt:
    print("interrupted", ledger.totals().queries, ledger.totals().unsettled_queries, flush=True)
    os._exit(130)
"""


@pytest.mark.parametrize(("interrupts", "delay"), [(1, 0.15), (2, 5.0)])
def test_ctrl_c(tmp_path: Path, interrupts: int, delay: float) -> None:
    path = tmp_path / "l.sqlite"
    with serve(lambda n, b: (200, {}, chat("Answer: yes", 40, 8)), delay) as server:
        arguments = [sys.executable, "-c", CHILD, server.url, str(path)]
        environment = {**os.environ, "TOY_KEY": KEY}
        process = subprocess.Popen(
            arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        end = time.monotonic() + 120
        while len(server.bodies) < 4 and time.monotonic() < end:
            time.sleep(0.01)
        for _ in range(interrupts):
            process.send_signal(signal.SIGINT)
            time.sleep(0.5 if interrupts > 1 else 0.0)
        out, error = process.communicate(timeout=30)
        billed = len(server.billed)
    assert process.returncode == 130, error
    ledger = Ledger(path, Caps(), PRICE)
    ledger.verify()
    totals = ledger.totals()
    assert out.split() == ["interrupted", str(totals.queries), str(totals.unsettled_queries)]
    assert totals.queries == len(server.bodies) < 20
    if interrupts == 1:  # what was in flight was waited for
        assert totals.unsettled_queries == 0
        assert totals.nano == billed * PRICE.nano(40, 8)
    else:  # what was in flight was given up, and stays counted
        assert [row["status"] for row in ledger.unresolved()] == ["interrupted"] * 4
    assert KEY not in out + error


def test_what_is_reserved_ahead_is_given_back_where_nothing_may_be_sent(tmp_path: Path) -> None:
    """Eight calls at once, two reserved ahead: these two are not sent after the key was refused, and cost nothing."""
    barrier = threading.Barrier(8)

    def refuse(request: Request, call: int) -> Reply:
        barrier.wait(timeout=30)
        time.sleep(0.2 if call else 0.0)  # the others end when the first is known
        raise TeacherError("who?", "not authorised", billed="no", scope="all")

    ledger, toy = Ledger(tmp_path / "l.sqlite", Caps(), PRICE), Toy(refuse)
    outcome = ask_all(toy, ledger, requests(30), 8)
    statuses = Counter(row["status"] for row in ledger.attempts())
    assert (toy.calls, outcome.asked, outcome.left, outcome.stopped_by) == (8, 8, 22, "teacher")
    assert statuses == {"not authorised": 8, "not sent": 2}
    assert ledger.totals().queries == 0


def test_no_more_calls_at_once_than_were_asked_for(tmp_path: Path) -> None:
    flying, most, lock = [0], [0], threading.Lock()

    def count(request: Request, call: int) -> Reply:
        with lock:
            flying[0] += 1
            most[0] = max(most[0], flying[0])
        time.sleep(0.02)
        with lock:
            flying[0] -= 1
        return good(request, call)

    outcome = ask_all(Toy(count), Ledger(tmp_path / "l.sqlite", Caps(), PRICE), requests(60), 8)
    assert (len(outcome.replies), most[0]) == (60, 8)
