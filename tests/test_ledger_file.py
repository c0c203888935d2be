"""Opening a ledger while others open it: every look at the file and every step of making it is one transaction."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bridge_edge import sqlite_file
from bridge_edge.budget import Ledger
from bridge_edge.errors import UserError
from bridge_edge.ledger_file import LEDGER
from bridge_edge.sqlite_file import Kind, SqliteFile


def together(count: int, work: Callable[[], object]) -> list[BaseException]:
    """Run `work` in `count` threads that start at once; returns what they raised."""
    barrier, raised = threading.Barrier(count), []

    def run() -> None:
        barrier.wait()
        try:
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    return raised


@pytest.mark.parametrize("looks", [1, 2])
def test_another_makes_the_ledger_while_this_one_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """The other is let loose just after the mark was read (of the first or the second look), before the tables are."""
    path, mark, seen = tmp_path / "l.sqlite", sqlite_file._mark, 0
    other = threading.Thread(target=lambda: SqliteFile(path, LEDGER).close())

    def interfere(db: sqlite3.Connection) -> tuple[int, int]:
        nonlocal seen
        found = mark(db)
        if threading.current_thread() is not other:
            seen += 1
            if seen == looks:
                other.start()
                other.join(timeout=0.3)  # it either makes the tables now, or has to wait for this transaction
        return found

    monkeypatch.setattr(sqlite_file, "_mark", interfere)
    file = SqliteFile(path, LEDGER)
    other.join(timeout=30)
    assert not other.is_alive()
    with file.read() as db:
        assert mark(db) == (LEDGER.application, len(LEDGER.versions))
        assert db.execute("SELECT COUNT(*) FROM spend").fetchone()[0] == 1  # made once
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_foreign_database_that_appears_while_looking_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between "nothing there" and "make the tables" another program makes its own, which must stay as it is."""
    path, missing = tmp_path / "l.sqlite", SqliteFile._missing
    kept: list[bytes] = []

    def appear(self: SqliteFile, db: sqlite3.Connection) -> tuple[str, ...]:
        found = missing(self, db)
        if not kept:
            db.execute("COMMIT")  # let the other in, as it could come right after this transaction
            with sqlite3.connect(path) as foreign:
                foreign.execute("CREATE TABLE theirs (x)")
            kept.append(path.read_bytes())
            db.execute("BEGIN")
        return found

    monkeypatch.setattr(SqliteFile, "_missing", appear)
    with pytest.raises(UserError, match="not a ledger"):
        SqliteFile(path, LEDGER)
    assert path.read_bytes() == kept[0]
    assert [p.name for p in tmp_path.iterdir()] == ["l.sqlite"]


def totals(path: Path) -> object:
    return Ledger(path).totals()


def test_threads_that_open_a_new_ledger_together(tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / f"{number}.sqlite"
        assert together(8, partial(totals, path)) == []


OPENER = """
import sys
from bridge_edge.budget import Ledger
print("ready", flush=True)
for line in sys.stdin:
    with Ledger(line.strip()) as ledger:
        ledger.fail(ledger.reserve(f"h{sys.argv[1]}", "a", 1, 1), "tried", billed=False)
    print("opened", flush=True)
"""


def test_processes_that_open_a_new_ledger_together(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    openers = [
        subprocess.Popen([sys.executable, "-c", OPENER, str(n)], stdin=pipe, stdout=pipe, text=True) for n in range(3)
    ]
    try:
        for opener in openers:
            assert opener.stdout is not None
            assert opener.stdout.readline() == "ready\n"
        for number in range(10):
            path = tmp_path / f"{number}.sqlite"
            for opener in openers:
                assert opener.stdin is not None
                opener.stdin.write(f"{path}\n")
                opener.stdin.flush()
            for opener in openers:
                assert opener.stdout is not None
                assert opener.stdout.readline() == "opened\n"
            with Ledger(path) as ledger:
                assert sorted(row["request_hash"] for row in ledger.attempts()) == ["h0", "h1", "h2"]
                ledger.verify()
    finally:
        for opener in openers:
            opener.communicate(timeout=30)


def test_a_child_forked_in_the_middle_of_a_transaction_has_its_own_lock(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "l.sqlite", LEDGER)
    with file.read():  # this thread holds the turn; an inherited lock would never be let go in the child
        pid = os.fork()
        if pid == 0:
            try:
                raised = together(4, lambda: file.close())
                with file.read() as db:
                    count = db.execute("SELECT COUNT(*) FROM attempts").fetchone()[0]
                os._exit(len(raised) + count)
            except BaseException:
                os._exit(100)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def queued(file: SqliteFile, works: list[Callable[[sqlite3.Connection], object]]) -> tuple[list[str], list[object]]:
    """Let each work wait in a thread of its own behind this one; returns the statements run and what came of each."""
    statements: list[str] = []
    ends: dict[int, object] = {}

    def run(number: int) -> None:
        try:
            ends[number] = file.commit(works[number])
        except BaseException as error:
            ends[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    with file.read() as db:
        db.set_trace_callback(statements.append)
        for number, thread in enumerate(threads):
            thread.start()
            while len(file._orders) <= number:
                time.sleep(0.001)
        statements.clear()
    for thread in threads:
        thread.join(timeout=60)
    return statements, [ends[number] for number in range(len(works))]


def add(key: str, text: str = "") -> Callable[[sqlite3.Connection], object]:
    def work(db: sqlite3.Connection) -> str:
        db.execute("INSERT INTO notes VALUES (?, ?)", (key, text))
        return key

    return work


NOTES = Kind("notebook", 0x1234, (("CREATE TABLE notes (key TEXT, text TEXT)",),))


def test_writes_that_wait_together_are_committed_together(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "n.sqlite", NOTES)

    def refuse(db: sqlite3.Connection) -> object:
        raise KeyError("not this one")

    works = [add(str(n)) for n in range(12)]
    statements, ends = queued(file, [*works[:5], refuse, *works[5:]])
    assert ends[:5] + ends[6:] == [str(n) for n in range(12)]
    assert isinstance(ends[5], KeyError)
    assert [s for s in statements if s in ("BEGIN IMMEDIATE", "COMMIT")] == ["COMMIT", "BEGIN IMMEDIATE", "COMMIT"]
    with file.read() as db:
        assert [row["key"] for row in db.execute("SELECT key FROM notes")] == [str(n) for n in range(12)]


def test_a_write_that_does_not_fit_takes_no_other_down(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "n.sqlite", NOTES)
    with file.read() as db:
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0] + 2}")
    _, ends = queued(file, [add("a"), add("big", "x" * 100_000), add("b")])
    assert [ends[0], ends[2]] == ["a", "b"]
    assert isinstance(ends[1], UserError)
    assert "full" in ends[1].message
    with file.read() as db:
        assert [row["key"] for row in db.execute("SELECT key FROM notes")] == ["a", "b"]


def test_a_thread_that_is_interrupted_leaves_the_writes_of_the_others_to_them(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "n.sqlite", NOTES)
    tried: list[int] = []

    def once(db: sqlite3.Connection) -> object:
        tried.append(1)
        if len(tried) == 1:
            raise KeyboardInterrupt  # comes in the thread that carries out the writes of all
        return add("1")(db)

    _, ends = queued(file, [add("0"), once, add("2")])
    interrupted = [number for number, end in enumerate(ends) if isinstance(end, KeyboardInterrupt)]
    assert len(interrupted) == 1
    with file.read() as db:
        kept = {row["key"] for row in db.execute("SELECT key FROM notes")}
    assert kept == {"0", "1", "2"} - {str(interrupted[0])}
    assert not file._orders
