"""How the asking loop ends when it is not the teacher that fails: bugs, full disks, Ctrl-C, two runs at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.budget import Caps, Ledger
from bridge_edge.errors import UserError
from bridge_edge.teacher.ask import Progress, ask_all
from bridge_edge.teacher.base import Reply, Request, TeacherError
from tests.teacher.asking import PRICE, Toy, good, requests
from tests.teacher.loopback import chat, serve
from tests.teacher.toys import KEY


def test_a_bug_in_a_teacher_is_raised_after_the_others_are_saved(tmp_path: Path) -> None:
    def buggy(request: Request, call: int) -> Reply:
        if request.item_id == "item-1":
            raise ZeroDivisionError("a bug")
        time.sleep(0.05)
        return good(request, call)

    ledger = Ledger(tmp_path / "l.sqlite", Caps(), PRICE)
    with pytest.raises(ZeroDivisionError):
        ask_all(Toy(buggy), ledger, requests(10), 3)
    states = {row["item_id"]: row["state"] for row in ledger.attempts() if row["status"] != "not sent"}
    assert states.pop("item-1") == "unknown"
    assert states
    assert len(states) < 9
    assert set(states.values()) == {"settled"}


def test_a_reply_that_cannot_be_kept_takes_none_with_it_that_came_beside_it(tmp_path: Path) -> None:
    def odd(request: Request, call: int) -> Reply:
        text: Any = 5 if request.item_id == "item-1" else "Answer: yes"
        return Reply(text, 10, 5)

    ledger = Ledger(tmp_path / "l.sqlite", Caps(), PRICE)
    with pytest.raises(AttributeError):
        ask_all(Toy(odd), ledger, requests(3), 3)
    assert {row["item_id"]: row["status"] for row in ledger.attempts()} == {
        "item-0": "ok",
        "item-1": "crashed",
        "item-2": "ok",
    }


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
    """Eight calls at once, four reserved ahead: these four are not sent after the key was refused, and cost nothing."""
    barrier = threading.Barrier(8)

    def refuse(request: Request, call: int) -> Reply:
        barrier.wait(timeout=30)
        time.sleep(0.2 if call else 0.0)  # the others end when the first is known
        raise TeacherError("who?", "not authorised", billed="no", scope="all")

    ledger, toy = Ledger(tmp_path / "l.sqlite", Caps(), PRICE), Toy(refuse)
    outcome = ask_all(toy, ledger, requests(30), 8)
    statuses = Counter(row["status"] for row in ledger.attempts())
    assert (toy.calls, outcome.asked, outcome.left, outcome.stopped_by) == (8, 8, 22, "teacher")
    assert statuses == {"not authorised": 8, "not sent": 4}
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
