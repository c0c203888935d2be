"""One ledger under threads, processes, kills, forks and full disks. Real files, real processes."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from bridge_edge.budget import AlreadyAnswered, BudgetExhausted, Caps, InFlight, Ledger, Reservation, Usage
from bridge_edge.errors import UserError
from tests.ledgers import PRICE, open_ledger


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
