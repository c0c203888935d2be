"""The Batch API against a real server: prices, partial and expired batches, caps."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from bridge_edge.budget import Caps, Ledger
from bridge_edge.prices import Price
from bridge_edge.teacher.base import TeacherError
from bridge_edge.teacher.batch_api import BatchTeacher
from bridge_edge.teacher.batch_run import ask_in_batches
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher
from bridge_edge.teacher.outcome import Progress
from tests.teacher.asking import requests
from tests.teacher.batch_server import Result, good, serve_batches
from tests.teacher.batching import PRICE, QUICK, api, bill, books, go
from tests.teacher.loopback import chat
from tests.teacher.toys import KEY


def test_a_batch_is_answered_once_at_the_batch_price(tmp_path: Path) -> None:
    seen: list[Progress] = []
    said: list[str] = []
    with serve_batches() as server:
        server.statuses = ["validating", "in_progress", "completed"]
        with Ledger(tmp_path / "l.sqlite", Caps(), PRICE) as ledger:
            outcome = ask_in_batches(api(server), ledger, requests(5), seen.append, said.append, patience=QUICK)
        again = go(server, tmp_path)
    assert {k: [r.text for r in v] for k, v in outcome.replies.items()} == {
        f"item-{i}": ["Fine.\nAnswer: yes"] for i in range(5)
    }
    assert (outcome.asked, outcome.left, outcome.stopped_by, outcome.failures) == (5, 0, None, [])
    assert again.replies == outcome.replies
    assert (again.asked, again.from_ledger) == (0, 5)
    assert len(server.batches) == len(server.files) == 1
    assert books(tmp_path) == (bill(server), 0, Counter({"settled": 5}))
    assert (seen[-1].done, seen[-1].total) == (5, 5)
    assert any("in_progress" in text for text in said)
    sent = [json.loads(line) for line in server.content["file-0"].splitlines()]
    assert sent[0]["body"] == {
        "model": "toy",
        "messages": [{"role": "user", "content": "Is 0 even?"}],
        "max_tokens": 20,
    }
    assert server.keys == {f"Bearer {KEY}"}


def test_an_answer_of_the_plain_api_is_not_bought_again_in_a_batch() -> None:
    endpoint = Endpoint("toy", "http://127.0.0.1:1/v1", "TOY_KEY")
    one = requests(1)[0]
    assert BatchTeacher(endpoint, PRICE).request_hash(one) == OpenAITeacher(endpoint, Price(1, 2)).request_hash(one)
    with pytest.raises(TeacherError, match="in batches only"):
        BatchTeacher(endpoint, PRICE).ask(one)


def test_partial_results_of_an_expired_batch_are_kept_and_the_rest_asked_again(tmp_path: Path) -> None:
    def behave(name: str, body: dict, number: int) -> Result:
        odd = int(body["messages"][0]["content"].split()[1]) % 2
        return "expired" if odd and number == 0 else good(name, body, number)

    with serve_batches(behave) as server:
        server.statuses = ["expired"]
        outcome = go(server, tmp_path, 6)
    assert len(outcome.replies) == 6
    assert len(server.batches) == 2
    assert len(server.content["file-1"].splitlines()) == 3
    assert books(tmp_path) == (bill(server), 0, Counter({"settled": 6, "released": 3}))


def test_what_always_expires_is_given_up_after_some_batches(tmp_path: Path) -> None:
    with serve_batches(lambda *_: "expired") as server:
        outcome = go(server, tmp_path, 2)
    assert len(server.batches) == QUICK.rounds
    assert {f.status for f in outcome.failures} == {"batch expired"}
    assert books(tmp_path)[:2] == (0, 0)


def test_a_cancelled_batch_gives_what_was_done(tmp_path: Path) -> None:
    def behave(name: str, body: dict, number: int) -> Result:
        return good(name, body, number) if "Is 0" in str(body) or number else "cancelled"

    with serve_batches(behave) as server:
        server.statuses = ["in_progress", "cancelling", "cancelled"]
        outcome = go(server, tmp_path, 3)
    assert len(outcome.replies) == 3
    assert books(tmp_path)[0] == bill(server)


def test_a_failed_batch_costs_nothing_and_says_why(tmp_path: Path) -> None:
    with serve_batches() as server:
        server.statuses = ["validating", "failed"]
        outcome = go(server, tmp_path, 3)
    assert outcome.stopped_by == "teacher"
    assert "line 1 is no JSON" in outcome.message
    assert books(tmp_path) == (0, 0, Counter({"released": 3}))


def test_lines_of_every_kind_become_rows(tmp_path: Path) -> None:
    answers: list[Result] = [
        good("", {}, 0),
        (400, '{"error": {"code": "content_filter", "message": "no"}}'),
        (400, '{"error": {"code": "context_length_exceeded", "message": "long"}}'),
        (200, chat("", usage=None)),
        "missing",
    ]

    def behave(name: str, body: dict, number: int) -> Result:
        return answers[int(body["messages"][0]["content"].split()[1])]

    with serve_batches(behave) as server:
        outcome = go(server, tmp_path, 5)
    assert list(outcome.replies) == ["item-0"]
    assert {f.item_id: f.status for f in outcome.failures} == {
        "item-1": "filtered",
        "item-2": "context overflow",
        "item-3": "empty",
        "item-4": "missing",
    }
    nano, unsettled, states = books(tmp_path)
    assert states == Counter({"settled": 2, "unknown": 2, "released": 1})  # missing stays counted
    assert nano > bill(server)
    assert unsettled > 0


def test_a_cap_holds_for_the_worst_case_and_what_is_left_over_buys_more(tmp_path: Path) -> None:
    with serve_batches() as server:
        bound = api(server).prompt_tokens(requests(1)[0])
        worst = PRICE.nano(bound, 20)
        caps = Caps(usd=Decimal(3 * worst) / 10**9)
        outcome = go(server, tmp_path, 9, caps)
        assert len(server.content["file-0"].splitlines()) == 3
        assert len(server.batches) > 1  # the first three cost less than was reserved
    assert bill(server) <= 3 * worst
    assert books(tmp_path)[0] == bill(server)
    assert outcome.stopped_by == "usd"
    assert len(outcome.replies) + outcome.left == 9
    assert len(outcome.replies) > 3


def test_a_refused_schema_is_asked_without_in_the_next_batch(tmp_path: Path) -> None:
    def behave(name: str, body: dict, number: int) -> Result:
        if "response_format" in body:
            return 400, '{"error": {"message": "response_format is not supported by this model"}}'
        return good(name, body, number)

    with serve_batches(behave) as server:
        outcome = go(server, tmp_path, 3, structured="auto", answers=("yes", "no"))
    assert len(outcome.replies) == 3
    assert len(server.batches) == 2
    assert books(tmp_path) == (bill(server), 0, Counter({"settled": 3, "released": 3}))
