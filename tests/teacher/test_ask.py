"""The asking loop against a real server: caps, retries, and what a teacher's failures cost."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from bridge_edge.budget import Caps, Ledger
from bridge_edge.teacher.ask import Progress, ask_all
from bridge_edge.teacher.base import Reply, Request
from tests.teacher.asking import PRICE, QUICK, Toy, api, bill, good, requests
from tests.teacher.loopback import Scripted, chat, serve
from tests.teacher.toys import KEY


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
