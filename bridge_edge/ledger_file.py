"""The SQLite file below the ledger: opening, transactions, errors a user can act on, and who made a reservation.

WAL with synchronous=FULL: a commit survives a killed process and a power cut. A process has one connection, used in
turns by its threads, so that only processes contend inside SQLite; after a fork the child opens its own. Triggers keep
the running sums in the same transaction as the rows, so the two cannot drift apart.

Not covered: network file systems (WAL needs shared memory).
"""

from __future__ import annotations

import functools
import os
import socket
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from bridge_edge.errors import UserError

APPLICATION = 0x42454C47  # marks the file as one of ours, so that no other database is ever written to
VERSION = 1
BUSY_S = 60.0
LEASE_S = 3600.0  # a reservation made on another machine is taken for lost after this long
CLOCK_S = 30.0  # how far two readings of a process's start may lie apart when the clock is set
RESERVED, SETTLED, UNKNOWN, RELEASED = "reserved", "settled", "unknown", "released"

SCHEMA = (
    f"""CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,
    request_hash TEXT NOT NULL, attempt INTEGER NOT NULL, item_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('{RESERVED}', '{SETTLED}', '{UNKNOWN}', '{RELEASED}')),
    status TEXT NOT NULL, error TEXT NOT NULL DEFAULT '',
    reserved_prompt INTEGER NOT NULL, reserved_completion INTEGER NOT NULL, reserved_nano INTEGER NOT NULL,
    used_prompt INTEGER, used_completion INTEGER, used_nano INTEGER,
    queries INTEGER NOT NULL, tokens INTEGER NOT NULL, nano INTEGER NOT NULL, -- what counts against the caps now
    finish_reason TEXT, model TEXT, latency_s REAL, response_sha256 TEXT, response TEXT,
    started REAL NOT NULL, finished REAL,
    host TEXT NOT NULL, pid INTEGER NOT NULL, process_started REAL NOT NULL,
    UNIQUE (request_hash, attempt))""",
    "CREATE INDEX attempts_state ON attempts (state)",
    "CREATE TABLE spend (queries INTEGER NOT NULL, tokens INTEGER NOT NULL, nano INTEGER NOT NULL)",
    "INSERT INTO spend VALUES (0, 0, 0)",
    """CREATE TRIGGER attempt_added AFTER INSERT ON attempts BEGIN
    UPDATE spend SET queries = queries + NEW.queries, tokens = tokens + NEW.tokens, nano = nano + NEW.nano; END""",
    """CREATE TRIGGER attempt_changed AFTER UPDATE ON attempts BEGIN
    UPDATE spend SET queries = queries + NEW.queries - OLD.queries,
        tokens = tokens + NEW.tokens - OLD.tokens, nano = nano + NEW.nano - OLD.nano; END""",
    """CREATE TRIGGER attempt_kept BEFORE DELETE ON attempts BEGIN
    SELECT RAISE(ABORT, 'attempts are never deleted'); END""",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)

HINTS = {
    sqlite3.SQLITE_FULL: "free some disk space and run the same command again; what was saved is safe",
    sqlite3.SQLITE_IOERR: "check the disk (space, quota, cable) and run the same command again; what was saved is safe",
    sqlite3.SQLITE_BUSY: "another process holds it; wait for that one or stop it",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable",
    sqlite3.SQLITE_CANTOPEN: "make its folder exist and writable",
    sqlite3.SQLITE_PERM: "make the file readable and writable",
    sqlite3.SQLITE_NOTADB: "it is not a ledger; give another path",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it from a copy or give another path",
}


_open_files: weakref.WeakSet[LedgerFile] = weakref.WeakSet()


class LedgerFile:
    """Transactions over one ledger file, safe to use from many threads and processes."""

    _db: sqlite3.Connection | None

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.parent.is_dir():
            raise UserError(f"there is no folder {str(path.parent)!r} for the ledger", "create it first")
        self._start()
        _open_files.add(self)
        with self.read():  # opens it, and says here and not at the first query what is wrong with the file
            pass

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction that holds the write lock from its start: what it reads cannot change before it commits."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the file."""
        with self._transaction("BEGIN") as db:
            yield db

    def close(self) -> None:
        with self._turn:
            if self._db is not None:
                self._db.close()
                self._db = None

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._turn:
            db: sqlite3.Connection | None = None
            try:
                db = self._connection()
                db.execute(begin)
                yield db
                db.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._trouble(error) from error
            finally:
                if db is not None and db.in_transaction:
                    with suppress(sqlite3.Error):  # SQLite rolls back by itself where this fails
                        db.execute("ROLLBACK")

    def _start(self) -> None:
        self._turn, self._db = threading.Lock(), None

    def _forked(self) -> None:
        """In a child just forked: leave the parent's connection and lock alone (unused, never closed), start afresh."""
        self._inherited = self._db
        self._start()

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                db.row_factory = sqlite3.Row
                db.execute("PRAGMA synchronous = FULL")
                self._admit(db)
                _wal(db)
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db

    def _admit(self, db: sqlite3.Connection) -> None:
        """Make the tables in a new file; refuse a database that is not a ledger before anything is written to it.

        Several threads and processes may do this at once, so each look at the file is one transaction, and the look
        that allows writing holds the write lock. Only a file that carries our mark is switched to WAL.
        """
        db.execute("BEGIN")
        empty = self._empty(db)
        db.execute("COMMIT")
        if empty:
            db.execute("BEGIN IMMEDIATE")
            if self._empty(db):
                for statement in SCHEMA:
                    db.execute(statement)
            db.execute("COMMIT")

    def _empty(self, db: sqlite3.Connection) -> bool:
        """Whether the file holds nothing yet, a ledger otherwise; to be asked within a transaction."""
        application, version = _mark(db)
        if application == 0 and db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0:
            return True
        if application != APPLICATION:
            raise UserError(f"{str(self.path)!r} is a database but not a ledger", "give another path")
        if version > VERSION:
            raise UserError(
                f"the ledger {str(self.path)!r} has version {version}, this release knows up to {VERSION}",
                "upgrade with: pip install --upgrade bridge-edge",
            )
        return False

    def _trouble(self, error: sqlite3.Error) -> UserError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte names the family
        return UserError(f"the ledger {str(self.path)!r} failed: {error}", HINTS.get(code, "see the message of SQLite"))


def _mark(db: sqlite3.Connection) -> tuple[int, int]:
    application = db.execute("PRAGMA application_id").fetchone()[0]
    return application, db.execute("PRAGMA user_version").fetchone()[0]


def _wal(db: sqlite3.Connection) -> None:
    """Switch to WAL; SQLite answers "locked" at once, without waiting, where two processes do so together."""
    end = time.monotonic() + BUSY_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _after_fork() -> None:
    for file in list(_open_files):
        file._forked()


os.register_at_fork(after_in_child=_after_fork)  # the child has one thread then: no race for the fresh lock


@functools.lru_cache(maxsize=4)
def owner(pid: int) -> tuple[str, int, float]:
    """Host, process id and start of a process: who made a reservation. A process id alone would be used again."""
    return socket.gethostname(), pid, psutil.Process(pid).create_time()


def abandoned(row: sqlite3.Row | dict[str, Any]) -> bool:
    """Whether the process that made a reservation is gone, so that its query cannot come back any more."""
    host, pid, started = row["host"], row["pid"], row["process_started"]
    if host != socket.gethostname():
        return bool(time.time() - row["started"] > LEASE_S)
    try:
        process = psutil.Process(pid)
        alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return not alive or abs(process.create_time() - started) > CLOCK_S
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:  # it exists: better to wait for it than to pay twice
        return False


def storable(text: str) -> str:
    """`text` without lone surrogates, which a server may send and UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def interrupt(db: sqlite3.Connection, attempt_id: int) -> None:
    values = {"state": UNKNOWN, "status": "interrupted", "error": "its process ended before an answer was stored"}
    update(db, attempt_id, values, (RESERVED,))


def update(db: sqlite3.Connection, attempt_id: int, values: dict[str, Any], states: tuple[str, ...]) -> bool:
    columns = ", ".join(f"{name} = ?" for name in values)  # names come from this module, never from outside
    where = f"id = ? AND state IN ({', '.join('?' * len(states))})"
    done = db.execute(f"UPDATE attempts SET {columns} WHERE {where}", (*values.values(), attempt_id, *states))
    return done.rowcount == 1


def spend(db: sqlite3.Connection) -> tuple[int, int, int]:
    queries, tokens, nano = db.execute("SELECT queries, tokens, nano FROM spend").fetchone()
    return queries, tokens, nano


def sums(db: sqlite3.Connection, where: str = "") -> tuple[int, int, int]:
    sums = "IFNULL(SUM(queries), 0), IFNULL(SUM(tokens), 0), IFNULL(SUM(nano), 0)"
    queries, tokens, nano = db.execute(f"SELECT {sums} FROM attempts {where}").fetchone()
    return queries, tokens, nano
