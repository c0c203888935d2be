"""The ledger of one process: exact money, caps, and the states of an attempt. Real files."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.budget import AlreadyAnswered, BudgetExhausted, Caps, Details, Ledger, Price, Usage, show_usd
from bridge_edge.errors import UserError
from bridge_edge.ledger_file import LEDGER, SCHEMA
from tests.ledgers import PRICE, open_ledger

WORD: Any = "5"  # as a server may send it


def test_money_is_exact_and_rounds_against_the_spender() -> None:
    assert PRICE.nano(100, 50) == 100 * 150 + 50 * 600
    assert Price("0.0375", 0).nano(1, 0) == 38  # 37.5 nano-dollars
    assert Price("0.0375", 0).nano(2, 0) == 75
    assert Caps(usd=0.1).nano == 100_000_000
    assert sum(Price(0.1, 0).nano(1, 0) for _ in range(10)) == 1000  # ten floats of 0.1 would not add up to 1.0
    assert (show_usd(1_500_000_000), show_usd(37_500)) == ("$1.50", "$0.0000375")


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "much", True])
def test_a_bad_price_or_cap_is_named(bad: Any) -> None:
    with pytest.raises(UserError, match=r"price\.prompt"):
        Price(bad, 0)
    with pytest.raises(UserError, match=r"budget\.usd"):
        Caps(usd=bad)


def test_reserve_settle_and_read_back(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, queries=2)
    reservation = ledger.reserve("h1", "item-1", 100, 50)
    totals = ledger.totals()
    assert (totals.queries, totals.tokens, totals.nano) == (1, 150, 45_000)
    assert totals.unsettled_nano == 45_000
    ledger.settle(reservation, Usage(90, 10), "because\nAnswer: yes", "ok", Details("stop", "m", "", 0.5))
    totals = ledger.totals()
    assert (totals.tokens, totals.nano, totals.unsettled_tokens) == (100, 90 * 150 + 10 * 600, 0)
    assert totals.usd == Decimal("0.0000195")
    ledger.close()

    again = open_ledger(tmp_path)
    answer = again.answer_for("h1")
    assert answer is not None
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("because\nAnswer: yes", 90, 10)
    with pytest.raises(AlreadyAnswered) as found:
        again.reserve("h1", "item-1", 100, 50)
    assert found.value.answer == answer
    row = next(again.attempts())
    assert (row["state"], row["status"], row["attempt"], row["latency_s"]) == ("settled", "ok", 1, 0.5)
    with pytest.raises(ValueError, match="already closed"):
        again.settle(reservation, Usage(1, 1), "twice")
    again.verify()


@pytest.mark.parametrize(
    ("caps", "which"),
    [({"queries": 1}, "queries"), ({"tokens": 299}, "tokens"), ({"usd": "0.000089999"}, "usd")],
)
def test_each_cap_refuses_the_worst_case_and_can_be_raised(tmp_path: Path, caps: dict, which: str) -> None:
    ledger = open_ledger(tmp_path, **caps)
    first = ledger.reserve("h1", "a", 100, 50)
    with pytest.raises(BudgetExhausted) as refused:
        ledger.reserve("h2", "b", 100, 50)
    assert refused.value.cap == which
    assert f"budget.{which}" in str(refused.value)
    assert ledger.totals().queries == 1
    if which != "queries":  # the answer cost less than was reserved: now it fits
        ledger.settle(first, Usage(50, 5), "short")
        ledger.reserve("h2", "b", 100, 50)
    else:
        ledger.close()
        open_ledger(tmp_path, queries=2).reserve("h2", "b", 100, 50)


def test_a_cap_is_filled_to_the_last_nano_dollar(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, usd="0.00009")
    ledger.reserve("h1", "a", 100, 50)
    ledger.reserve("h2", "b", 100, 50)
    assert ledger.totals().usd == Decimal("0.00009")
    with pytest.raises(BudgetExhausted):
        ledger.reserve("h3", "c", 1, 0)


def test_not_billed_is_released_and_unknown_stays_counted_until_resolved(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.fail(ledger.reserve("h1", "a", 100, 50), "http 429", "busy", billed=False)
    assert (ledger.totals().queries, ledger.totals().nano) == (0, 0)
    ledger.fail(ledger.reserve("h1", "a", 100, 50), "timeout", "no answer")
    ledger.fail(ledger.reserve("h2", "b", 100, 50), "timeout", "no answer")
    assert (ledger.totals().queries, ledger.totals().unsettled_nano) == (2, 90_000)
    lost = ledger.unresolved()
    assert [(row["item_id"], row["attempt"]) for row in lost] == [("a", 2), ("b", 1)]
    ledger.resolve(lost[0]["id"], None)
    ledger.resolve(lost[1]["id"], Usage(100, 7))
    totals = ledger.totals()
    assert (totals.queries, totals.nano, totals.unsettled_queries) == (1, 100 * 150 + 7 * 600, 0)
    assert ledger.answer_for("h2") is None
    with pytest.raises(UserError, match="not an unresolved"):
        ledger.resolve(lost[0]["id"], None)
    ledger.verify()


@pytest.mark.parametrize(
    "usage",
    [None, Usage(-1, 5), Usage(5, -1), Usage(0, 5), Usage(5, 0), Usage(10**12, 5), Usage(5, 10**30), Usage(WORD, 5)],
)
def test_missing_or_absurd_usage_is_charged_at_the_worst_case(tmp_path: Path, usage: Usage | None) -> None:
    ledger = open_ledger(tmp_path)
    ledger.settle(ledger.reserve("h1", "a", 100, 50), usage, "text")
    assert ledger.totals().nano == PRICE.nano(100, 50)
    row = next(ledger.attempts())
    assert ("not plausible" in row["error"]) == (usage is not None)


def test_usage_above_the_bounds_is_counted_as_billed(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, tokens=160)
    ledger.settle(ledger.reserve("h1", "a", 100, 50), Usage(130, 50), "text")
    assert ledger.totals().tokens == 180
    with pytest.raises(BudgetExhausted):
        ledger.reserve("h2", "b", 1, 0)


def test_only_ok_is_an_answer_and_odd_text_is_kept(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.settle(ledger.reserve("h1", "a", 10, 5), Usage(10, 5), "no\ud800\x00pe", "filtered")
    assert ledger.answer_for("h1") is None
    assert [(reply.status, reply.text) for reply in ledger.replies(["h1", "h2"])["h1"]] == [("filtered", "no?\x00pe")]
    ledger.reserve("h1", "a", 10, 5)


def test_an_answer_bought_elsewhere_is_entered_in_one_step(tmp_path: Path) -> None:
    source = Ledger(tmp_path / "other.sqlite", Caps(), PRICE)
    bought = [
        source.settle(source.reserve(h, "theirs", 100, 50), Usage(90, 10), f"text {h}") for h in ("h1", "h2", "h3")
    ]
    rows = list(source.attempts())
    ledger = open_ledger(tmp_path, Price(9, 9), queries=2, usd="0.00002")
    ledger.carry(rows[0], "a", "run legal-1")
    ledger.carry(rows[0], "a", "run legal-1")  # the same attempt is not counted twice
    assert (ledger.totals().queries, ledger.totals().nano, ledger.totals().tokens) == (1, 19_500, 100)  # as it was paid
    with pytest.raises(BudgetExhausted) as dear:
        ledger.carry(rows[1], "b", "run legal-1")
    assert dear.value.cap == "usd"
    mine = ledger.adopt(bought[1], "b", "cache: bought by x")
    assert (mine.item_id, mine.text) == ("b", "text h2")
    assert (ledger.totals().queries, ledger.totals().nano, ledger.totals().tokens) == (2, 19_500, 100)
    with pytest.raises(BudgetExhausted) as full:  # a cap on queries holds for free answers too
        ledger.adopt(bought[2], "c", "cache: bought by x")
    assert full.value.cap == "queries"
    with pytest.raises(AlreadyAnswered):
        ledger.adopt(bought[0], "a", "again")
    found = [(row["item_id"], row["state"], row["origin"], row["used_nano"], row["nano"]) for row in ledger.attempts()]
    assert found == [
        ("a", "settled", "run legal-1", 19_500, 19_500),
        ("b", "settled", "cache: bought by x", Price(9, 9).nano(90, 10), 0),
    ]
    ledger.verify()


def test_a_ledger_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as db:
        for statement in (*SCHEMA, f"PRAGMA application_id = {LEDGER.application}", "PRAGMA user_version = 1"):
            db.execute(statement)
        values = "'h1', 1, 'a', 'settled', 'ok', '', 1, 1, 0, 5, 7, 0, 1, 12, 0, 'stop', 'm', 0.1, 'x', 'text', 1, 1"
        db.execute(f"INSERT INTO attempts VALUES (1, {values}, 'h', 1, 1)")
    ledger = open_ledger(tmp_path)
    answer = ledger.answer_for("h1")
    assert answer is not None
    assert (answer.text, next(ledger.attempts())["origin"], ledger.totals().tokens) == ("text", "", 12)
    ledger.reserve("h2", "b", 1, 1)
    ledger.verify()
