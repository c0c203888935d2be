"""The ledger under caps, threads, processes, kills and full disks. Real files, real processes."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest

from bridge_edge.budget import (
    AlreadyAnswered,
    BudgetExhausted,
    Caps,
    Details,
    InFlight,
    Ledger,
    Price,
    Reservation,
    Usage,
    show_usd,
)
from bridge_edge.errors import UserError
from bridge_edge.ledger_file import LEDGER, SCHEMA

PRICE = Price(0.15, 0.60)  # 150 and 600 nano-dollars a token
WORD: Any = "5"  # as a server may send it


def open_ledger(folder: Path, price: Price = PRICE, **caps: Any) -> Ledger:
    return Ledger(folder / "ledger.sqlite", Caps(**caps), price)


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


def test_a_request_in_flight_is_not_sent_twice(tmp_path: Path) -> None:
    ledger, other = open_ledger(tmp_path), open_ledger(tmp_path)
    ledger.reserve("h1", "a", 10, 5)
    with pytest.raises(InFlight, match="item 'a'"):
        other.reserve("h1", "a", 10, 5)
    assert other.unresolved() == []


def test_setting_the_clock_does_not_make_a_living_process_look_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger(tmp_path)
    ledger.reserve("h1", "a", 10, 5)
    began, born = psutil.boot_time(), psutil.Process.create_time
    monkeypatch.setattr(psutil, "boot_time", lambda: began + 1000)
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: born(process) + 1000)
    with pytest.raises(InFlight):
        open_ledger(tmp_path).reserve("h1", "a", 10, 5)
    monkeypatch.setattr(psutil, "boot_time", lambda: began)  # a later process with the same number
    ledger.reserve("h1", "a", 10, 5)


CHILD = """
import random, sys, time
from bridge_edge.budget import *
from bridge_edge.prices import *
path, seed, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rng = random.Random(seed)
ledger = Ledger(path, Caps(queries=int(sys.argv[4]), usd=sys.argv[5]), Price(0.15, 0.60))
print("ready", flush=True)
sys.stdin.readline()
number = 0
while True:
    number += 1
    key = f"h{rng.randrange(1000)}" if mode == "race" else f"h{seed}-{number}"
    try:
        reservation = ledger.reserve(key, key, 100, 50)
    except (AlreadyAnswered, InFlight):
        continue
    except BudgetExhausted:
        break
    print("sent", key, flush=True)
    if rng.random() < 0.2:
        ledger.fail(reservation, "lost")
    else:
        ledger.settle(reservation, Usage(80, 20), f"answer {key}")
        print("kept", key, flush=True)
    time.sleep(0.003 if mode == "race" else 0.0)  # SQLite's waiting is not fair: leave the others a gap
"""


def child(path: Path, seed: int, mode: str, queries: int, usd: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", CHILD, str(path), str(seed), mode, str(queries), usd]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def start(*children: subprocess.Popen[str]) -> None:
    """Wait until all are ready, then let them all go."""
    for process in children:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in children:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def finish(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    lines = process.stdout.read().split("\n")[:-1]  # the last, if any, was cut off by the kill
    process.wait(timeout=60)
    return lines


@pytest.mark.parametrize(("queries", "usd", "cap"), [(120, "1", "queries"), (1000, "0.003", "usd")])
def test_threads_and_processes_near_the_cap_never_overspend(tmp_path: Path, queries: int, usd: str, cap: str) -> None:
    path = tmp_path / "ledger.sqlite"
    children = [child(path, seed, "race", queries, usd) for seed in (1, 2)]
    ledger = Ledger(path, Caps(queries=queries, usd=usd), PRICE)
    sent: list[str] = []
    most: list[int] = []
    stopped: list[str] = []

    def spend(seed: int) -> None:
        rng = random.Random(seed)
        while True:
            key = f"h{rng.randrange(1000)}"
            try:
                reservation = ledger.reserve(key, key, 100, 50)
            except (AlreadyAnswered, InFlight):
                continue
            except BudgetExhausted as error:
                stopped.append(error.cap)
                return
            sent.append(key)
            most.append(ledger.totals().nano)
            ledger.settle(reservation, Usage(80, 20), f"answer {key}")
            time.sleep(0.01)

    threads = [threading.Thread(target=spend, args=(seed,)) for seed in range(8)]
    start(*children)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    outputs = [finish(process) for process in children]
    assert [process.returncode for process in children] == [0, 0]
    assert sum(["sent" in " ".join(output) for output in outputs] + [bool(sent)]) >= 2  # there was a race
    sent += [line.split()[1] for output in outputs for line in output if line.startswith("sent")]
    ledger.verify()
    totals = ledger.totals()
    assert totals.queries == len(sent) == sum(1 for _ in ledger.attempts())
    assert totals.queries <= queries
    assert max(most) <= float(usd) * 1e9
    assert stopped == [cap] * 8
    if cap == "queries":
        assert totals.queries == queries
    else:  # the last to leave may have been turned away by ten others in flight
        assert 3_000_000 - totals.nano < 11 * PRICE.nano(100, 50)
    answered = [row["request_hash"] for row in ledger.attempts() if row["status"] == "ok"]
    assert len(answered) == len(set(answered))


def test_racing_on_one_request_only_one_sends_it(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    barrier = threading.Barrier(12)
    got: list[Reservation | None] = []

    def race() -> None:
        barrier.wait()
        try:
            got.append(ledger.reserve("same", "a", 10, 5))
        except InFlight:
            got.append(None)

    threads = [threading.Thread(target=race) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(result, Reservation) for result in got) == 1
    assert len(got) == 12


def test_killed_at_random_moments_the_ledger_stays_right(tmp_path: Path) -> None:
    path, rng, kept, sent = tmp_path / "ledger.sqlite", random.Random(7), set(), 0
    for seed in range(20):
        process = child(path, seed, "own", 100_000, "0.05")
        start(process)
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(rng.randrange(12))]
        time.sleep(rng.uniform(0.0, 0.01))
        os.kill(process.pid, signal.SIGKILL)
        lines += finish(process)
        kept |= {line.split()[1] for line in lines if line.startswith("kept")}
        sent += sum(line.startswith("sent") for line in lines)
        ledger = Ledger(path, Caps(usd="0.05"), PRICE)
        ledger.verify()
        rows = list(ledger.attempts())
        assert kept <= {row["request_hash"] for row in rows if row["status"] == "ok"}
        assert len(rows) >= sent
        assert ledger.totals().nano <= 50_000_000
        open_rows = [row for row in rows if row["state"] == "reserved"]
        assert {row["id"] for row in open_rows} <= {row["id"] for row in ledger.unresolved()}
        assert not [row for row in ledger.attempts() if row["state"] == "reserved"]
        for row in open_rows:  # lost for good: it may be sent again, and both attempts count
            ledger.fail(ledger.reserve(row["request_hash"], row["item_id"], 100, 50), "again", billed=False)
        ledger.close()
    assert len(kept) > 20


def test_a_full_database_is_reported_and_nothing_is_lost(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.settle(ledger.reserve("h0", "a", 10, 5), Usage(10, 5), "kept")
    waiting = ledger.reserve("h1", "b", 10, 5)
    pages = ledger._file._connection().execute("PRAGMA page_count").fetchone()[0]
    ledger._file._connection().execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(UserError, match=r"full.*free some disk space"):
        ledger.settle(waiting, Usage(10, 5), "x" * 100_000)
    ledger.verify()
    assert ledger.totals().unsettled_queries == 1
    ledger._file._connection().execute("PRAGMA max_page_count = 1000000")
    ledger.settle(waiting, Usage(10, 5), "x" * 100_000)
    assert ledger.totals().unsettled_queries == 0
    assert ledger.answer_for("h0") is not None


LIMITED = """
import resource, sys
from bridge_edge.budget import *
from bridge_edge.errors import UserError
ledger = Ledger(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for number in range(1000):
        ledger.settle(ledger.reserve(f"h{number}", "a", 1, 1), Usage(1, 1), "x" * 5000)
        print("kept", number, flush=True)
except UserError as error:
    print(error.hint)
"""


def test_a_write_the_system_refuses_is_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().split("\n")
    assert "run the same command again" in lines[-1]
    ledger = Ledger(path)
    ledger.verify()
    assert {f"h{line.split()[1]}" for line in lines[:-1]} <= {
        row["request_hash"] for row in ledger.attempts() if row["status"] == "ok"
    }
    assert len(lines) > 5


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("these are notes, " * 100)
    with pytest.raises(UserError, match="not a ledger"):
        Ledger(text)
    foreign = tmp_path / "other.sqlite"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE t (x)")
    before = foreign.read_bytes()
    with pytest.raises(UserError, match="not a ledger"):
        Ledger(foreign)
    assert foreign.read_bytes() == before
    with pytest.raises(UserError, match="no folder"):
        Ledger(tmp_path / "missing" / "ledger.sqlite")


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.close()
    with sqlite3.connect(ledger.path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match="version 99"):
        Ledger(ledger.path)


def test_a_forked_child_uses_its_own_connection(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    mine = ledger.reserve("h1", "a", 10, 5)
    pid = os.fork()
    if pid == 0:
        try:
            ledger.reserve("h2", "b", 10, 5)
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    ledger.settle(mine, Usage(10, 5), "mine")
    assert ledger.totals().queries == 2
    assert [row["item_id"] for row in ledger.unresolved()] == ["b"]  # the child is gone
    ledger.verify()


def test_attempts_cannot_be_deleted(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.reserve("h1", "a", 10, 5)
    with pytest.raises(UserError, match="never deleted"), ledger._file.write() as db:
        db.execute("DELETE FROM attempts")
    assert ledger.totals().queries == 1
