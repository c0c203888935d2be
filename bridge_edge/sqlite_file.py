"""A SQLite file of a kind of our own: opening, versions, transactions, and errors that a user can act on.

In WAL mode a commit survives a killed process, with synchronous=FULL also a power cut. A process has one connection,
used in turns by its threads, so that only processes contend inside SQLite; after a fork the child opens its own. While
one thread waits for the disk, the writes of the others queue up, and whoever comes next commits them all at once: a
disk that syncs a hundred times a second still takes thousands of writes.

Not covered: network file systems (WAL needs shared memory).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from bridge_edge.errors import UserError

BUSY_S = 60.0


@dataclass(frozen=True)
class Kind:
    """What a file is for: `application` marks it as one of ours, so that no other database is ever written to;
    `versions` holds the statements that lead from each version to the next, the first from an empty file."""

    noun: str
    application: int
    versions: tuple[tuple[str, ...], ...]
    synchronous: Literal["FULL", "NORMAL"] = "FULL"


HINTS = {
    sqlite3.SQLITE_FULL: "free some disk space and run the same command again; what was saved is safe",
    sqlite3.SQLITE_IOERR: "check the disk (space, quota, cable) and run the same command again; what was saved is safe",
    sqlite3.SQLITE_BUSY: "another process holds it; wait for that one or stop it",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable",
    sqlite3.SQLITE_CANTOPEN: "make its folder exist and writable",
    sqlite3.SQLITE_PERM: "make the file readable and writable",
    sqlite3.SQLITE_NOTADB: "it is not a {noun}; give another path",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it from a copy or give another path",
}


Result = TypeVar("Result")


@dataclass(eq=False)
class _Order:
    """A write that a thread waits for, and what came of it."""

    work: Callable[[sqlite3.Connection], Any]
    result: Any = None
    error: Exception | None = None
    ended: bool = False


_open_files: weakref.WeakSet[SqliteFile] = weakref.WeakSet()


class SqliteFile:
    """Transactions over one file, safe to use from many threads and processes."""

    _db: sqlite3.Connection | None

    def __init__(self, path: Path, kind: Kind) -> None:
        self.path, self.kind = path, kind
        if not path.parent.is_dir():
            raise UserError(f"there is no folder {str(path.parent)!r} for the {kind.noun}", "create it first")
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

    def commit(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do `work` in a transaction, perhaps one with the works of other threads; when it returns, all is on disk.

        A work must raise before it writes, or not at all, since those that share its transaction are committed.
        """
        ((result, error),) = self.commit_all([work])
        if error is not None:
            raise error
        return cast(Result, result)

    def commit_all(
        self, works: Sequence[Callable[[sqlite3.Connection], Result]]
    ) -> list[tuple[Result | None, Exception | None]]:
        """The same for several works: what each returned, and what it raised."""
        orders = [_Order(work) for work in works]
        self._orders.extend(orders)
        with self._turn:
            if not all(order.ended for order in orders):  # no thread before this one has done them
                self._carry_out(orders)
        return [(order.result, order.error) for order in orders]

    def _carry_out(self, own: Sequence[_Order]) -> None:
        """Everything that is waiting in one transaction; one by one where that fails, so each hears its own error."""
        orders: list[_Order] = []
        while self._orders:
            orders.append(self._orders.popleft())
        try:
            self._try(orders)
        except UserError as error:
            for order in orders:
                try:
                    if len(orders) == 1:
                        raise error
                    self._try([order])
                except UserError as alone:
                    order.error, order.ended = alone, True
        finally:  # Ctrl-C in this thread: the others do the rest themselves, and nobody does what this one gave up
            self._orders.extendleft(reversed([order for order in orders if not order.ended and order not in own]))

    def _try(self, orders: Sequence[_Order]) -> None:
        with self._inside("BEGIN IMMEDIATE") as db:
            for order in orders:
                order.error = None
                try:
                    order.result = order.work(db)
                except sqlite3.Error:
                    raise
                except Exception as error:
                    order.error = error
        for order in orders:
            order.ended = True

    def close(self) -> None:
        with self._turn:
            if self._db is not None:
                self._db.close()
                self._db = None

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._turn, self._inside(begin) as db:
            yield db

    @contextmanager
    def _inside(self, begin: str) -> Iterator[sqlite3.Connection]:
        """A transaction of the thread whose turn it is."""
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
        self._orders: deque[_Order] = deque()

    def _forked(self) -> None:
        """In a child just forked: leave the parent's connection and lock alone (unused, never closed), start afresh."""
        self._inherited = self._db
        self._start()

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                db.row_factory = sqlite3.Row
                db.execute(f"PRAGMA synchronous = {self.kind.synchronous}")
                self._admit(db)
                _wal(db)
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db

    def _admit(self, db: sqlite3.Connection) -> None:
        """Make the tables in a new file; refuse a database of another kind before anything is written to it.

        Several threads and processes may do this at once, so each look at the file is one transaction, and the look
        that allows writing holds the write lock. Only a file that carries our mark is switched to WAL.
        """
        db.execute("BEGIN")
        missing = self._missing(db)
        db.execute("COMMIT")
        if missing:
            db.execute("BEGIN IMMEDIATE")
            for statement in self._missing(db):
                db.execute(statement)
            db.execute("COMMIT")

    def _missing(self, db: sqlite3.Connection) -> tuple[str, ...]:
        """The statements that a new file or one of an older release lacks; to be asked within a transaction."""
        kind, (application, version) = self.kind, _mark(db)
        mark = (f"PRAGMA application_id = {kind.application}", f"PRAGMA user_version = {len(kind.versions)}")
        if application == 0 and db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0:
            version = 0
        elif application != kind.application:
            raise UserError(f"{str(self.path)!r} is a database but not a {kind.noun}", "give another path")
        if version > len(kind.versions):
            problem = f"has version {version}, this release knows up to {len(kind.versions)}"
            hint = "upgrade with: pip install --upgrade bridge-edge"
            raise UserError(f"the {kind.noun} {str(self.path)!r} {problem}", hint)
        lacking = [statement for statements in kind.versions[version:] for statement in statements]
        return (*lacking, *mark) if lacking else ()

    def _trouble(self, error: sqlite3.Error) -> UserError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte names the family
        message = f"the {self.kind.noun} {str(self.path)!r} failed: {error}"
        return UserError(message, HINTS.get(code, "see the message of SQLite").format(noun=self.kind.noun))


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
