"""Runs that live at once and share a cache: none buys what another one is buying, whoever is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.answer_cache import AnswerCache
from bridge_edge.benchmarks.billing_server import ask_bill, running
from bridge_edge.budget import Caps, InFlight, Ledger
from bridge_edge.prices import Price
from bridge_edge.teacher.ask import Outcome, ask_all
from bridge_edge.teacher.base import Request
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher

PRICE, MODEL = Price(1, 2), "shared"
ITEMS = list(range(8))
fork = multiprocessing.get_context("fork")


@pytest.fixture
def server() -> Iterator[str]:
    with running(latency_ms=300) as address:
        yield address


def run(folder: Path, name: str, address: str, items: list[int], concurrency: int = 4, **cache: Any) -> Outcome:
    """A run with a ledger of its own; `cache` replaces methods of its cache."""
    wanted = [Request.of(f"item-{i}", f"Is {i} even?", 20) for i in items]
    teacher = OpenAITeacher(Endpoint(MODEL, f"{address}/v1", "", 30.0), PRICE)
    shared = AnswerCache(folder / "home", name)
    vars(shared).update(cache)
    (folder / name).mkdir(exist_ok=True)
    with Ledger(folder / name / "ledger.sqlite", Caps(), PRICE) as ledger, closing(shared):
        outcome = ask_all(teacher, ledger, wanted, concurrency, cache=shared)
        ledger.verify()
    assert (len(outcome.replies), outcome.left) == (len(items), 0)
    return outcome


def start(work: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    process = fork.Process(target=work, args=arguments, kwargs=more)
    process.start()
    return process


def asked(address: str) -> int:
    return int(ask_bill(address, MODEL)["requests"])


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_two_runs_at_once_ask_each_request_once(tmp_path: Path, server: str, concurrency: int) -> None:
    """In opposite orders, so that each comes to what the other one has claimed."""
    runs = [
        start(run, tmp_path, name, server, order, concurrency)
        for name, order in (("first", ITEMS), ("second", ITEMS[::-1]))
    ]
    for process in runs:
        process.join(120)
    assert [process.exitcode for process in runs] == [0, 0]
    assert asked(server) == len(ITEMS)


def test_what_a_killed_run_had_sent_is_asked_once_more_and_at_once(tmp_path: Path, server: str) -> None:
    first = start(run, tmp_path, "first", server, ITEMS)
    while asked(server) < 4:
        time.sleep(0.01)
    first.kill()  # four calls whose replies never come
    first.join()
    assert run(tmp_path, "second", server, ITEMS).asked == len(ITEMS)
    assert asked(server) == len(ITEMS) + 4
    again = run(tmp_path, "first", server, ITEMS)
    assert (again.asked, again.from_cache, asked(server)) == (0, len(ITEMS), len(ITEMS) + 4)


def test_what_a_killed_run_had_in_its_own_ledger_alone_is_not_bought_again(tmp_path: Path, server: str) -> None:
    first = start(run, tmp_path, "first", server, ITEMS[:1], _put=die)
    first.join(60)
    assert first.exitcode == -signal.SIGKILL
    second = run(tmp_path, "second", server, ITEMS[:1])
    assert (second.asked, second.from_cache, asked(server)) == (0, 1, 1)
    with Ledger(tmp_path / "second" / "ledger.sqlite") as ledger:
        assert [row["origin"][:20] for row in ledger.attempts()] == ["cache: bought by fir"]


def test_a_claim_lasts_until_it_is_let_go_or_its_process_is_gone(tmp_path: Path) -> None:
    mine, other, ledger = AnswerCache(tmp_path), AnswerCache(tmp_path), tmp_path / "none.sqlite"
    assert mine.claim(["a", "b"], ledger) == (2, None)
    assert mine.claim(["a"], ledger) == (1, None)
    count, known = other.claim(["c", "a", "d"], ledger)
    assert count == 1
    assert isinstance(known, InFlight)
    assert str(os.getpid()) in str(known)
    mine.release(["a"])
    assert other.claim(["c", "a", "d"], ledger) == (3, None)
    assert isinstance(other.claim(["b"], ledger)[1], InFlight)
    mine.release()
    assert other.claim(["b"], ledger) == (1, None)

    def claim_and_die() -> None:
        AnswerCache(tmp_path).claim(["e"], ledger)
        die()

    start(claim_and_die).join(60)
    assert other.claim(["e"], ledger) == (1, None)


def test_a_run_that_ends_early_holds_no_claim(tmp_path: Path, server: str) -> None:
    cache = AnswerCache(tmp_path / "home")
    teacher = OpenAITeacher(Endpoint(MODEL, f"{server}/v1", "", 30.0), PRICE)
    wanted = [Request.of(f"item-{i}", f"Is {i} even?", 20) for i in ITEMS]
    with Ledger(tmp_path / "ledger.sqlite", Caps(queries=2), PRICE) as ledger:
        assert ask_all(teacher, ledger, wanted, 4, cache=cache).stopped_by == "queries"
    left = [teacher.request_hash(request) for request in wanted[2:]]
    assert AnswerCache(tmp_path / "home").claim(left, ledger.path) == (6, None)
