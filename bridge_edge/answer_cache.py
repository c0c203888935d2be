"""The shared cache: answers that any run of this user has bought, so that no run buys the same one again.

A ledger belongs to one run and keeps accounts; the cache belongs to the user and keeps none. It holds good answers by
the hash of their request (endpoint, model, messages, parameters and sample index, never the key). An answer taken from
it is entered in the run's ledger with its origin: it uses up one query of `budget.queries`, so that a budget means the
same number of lessons with and without a cache, and no tokens and no money.

Two runs that live at once do not buy the same answer either: a run claims a request here before it sends it, and lets
go of the claim with the answer or the failure of that attempt. A claim is held for a call and never while waiting for
another one, so runs cannot wait for each other in a circle. The claim of a killed process is void at once, and an
answer that it had stored in its own ledger is fetched from there.

It is a convenience and never stands in the way of a run: where it cannot be read or written, the run says so and goes
on without it. An answer that a killed run had stored in its ledger alone is added when that run is resumed.

Not covered: refusals and malformed replies (bought again by another run), forgetting old answers (delete the file),
claims of requests that are sent in batches.
"""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from bridge_edge.budget import Ledger
from bridge_edge.errors import UserError
from bridge_edge.ledger_file import abandoned, owner
from bridge_edge.ledger_rows import Answer, InFlight
from bridge_edge.sqlite_file import Kind, SqliteFile

FILE = "answers.sqlite"
OFF = "none"
MARK = "cache"  # begins the origin of an answer that came from here

SCHEMA = (
    """CREATE TABLE answers (
    request_hash TEXT PRIMARY KEY, text TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    finish_reason TEXT NOT NULL, model TEXT NOT NULL, origin TEXT NOT NULL, stored REAL NOT NULL) WITHOUT ROWID""",
)
CLAIMS = (
    """CREATE TABLE claims (
    request_hash TEXT PRIMARY KEY, holder TEXT NOT NULL, ledger TEXT NOT NULL, started REAL NOT NULL,
    host TEXT NOT NULL, pid INTEGER NOT NULL, process_started REAL NOT NULL) WITHOUT ROWID""",
)
# NORMAL: a power cut may cost the newest entries; they are in their run's ledger too, which syncs every one.
KIND = Kind("cache of answers", 0x42454143, (SCHEMA, CLAIMS), "NORMAL")

Hit = tuple[Answer, str]
"""An answer and where it came from, in words."""
Result = TypeVar("Result")


def home() -> Path:
    """Where this user's own files lie: $BRIDGE_EDGE_HOME, else bridge-edge below the system's cache folder."""
    if own := os.environ.get("BRIDGE_EDGE_HOME"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bridge-edge"


class AnswerCache:
    """Answers by request hash in one file of `folder`; `run` names who stores them. Safe for threads and processes."""

    def __init__(self, folder: Path, run: str = "") -> None:
        self.path, self.run = folder / FILE, run
        self.trouble: UserError | None = None  # why it is not used any more
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # answers may be confidential
        except OSError as error:
            hint = f"choose another folder with --cache, or --cache {OFF}"
            raise UserError(f"cannot make the folder {str(folder)!r} of the cache: {error.strerror}", hint) from error
        self._file = SqliteFile(self.path, KIND)
        self._name = uuid.uuid4().hex

    def get(self, request_hash: str) -> Hit | None:
        """The answer to a request; None where there is none."""
        return self._tried(lambda db: _hit(db, request_hash), None)

    def claim(self, request_hashes: Sequence[str], ledger: Path) -> tuple[int, Hit | InFlight | None]:
        """Claim requests that are to be sent now and settled in `ledger`, in their order up to the first that must not
        be sent; returns how many were claimed and what there is in the place of the next."""

        everything: tuple[int, Hit | InFlight | None] = (len(request_hashes), None)

        def work(db: sqlite3.Connection) -> tuple[int, Hit | InFlight | None]:
            for count, request_hash in enumerate(request_hashes):
                if (known := _hit(db, request_hash) or self._elsewhere(db, request_hash)) is not None:
                    return count, known
                row = (request_hash, self._holder(), str(ledger.absolute()), time.time(), *owner(os.getpid()))
                db.execute("INSERT OR REPLACE INTO claims VALUES (?,?,?,?,?,?,?)", row)
            return everything

        return self._tried(work, everything)

    def release(self, request_hashes: Sequence[str] | None = None) -> None:
        """Let go of these claims, or of all that are held."""
        which, holder = "DELETE FROM claims WHERE holder = ?", self._holder()
        if request_hashes is None:
            self._tried(lambda db: db.execute(which, (holder,)), None)
        elif request_hashes:
            rows = [(holder, request_hash) for request_hash in request_hashes]
            self._tried(lambda db: db.executemany(f"{which} AND request_hash = ?", rows), None)

    def put(self, answers: Sequence[Answer]) -> None:
        """Keep good answers, which ends their claims; the first one of a request stays."""
        if good := [answer for answer in answers if answer.status == "ok"]:
            self._tried(lambda db: self._put(db, good, self.run), None)

    def _put(self, db: sqlite3.Connection, answers: Sequence[Answer], run: str) -> None:
        rows = [
            (a.request_hash, a.text, a.prompt_tokens, a.completion_tokens, a.finish_reason, a.model, run)
            for a in answers
        ]
        db.executemany(f"INSERT OR IGNORE INTO answers VALUES (?,?,?,?,?,?,?,{time.time()!r})", rows)
        db.executemany("DELETE FROM claims WHERE request_hash = ?", [row[:1] for row in rows])

    def _elsewhere(self, db: sqlite3.Connection, request_hash: str) -> Hit | InFlight | None:
        """What is known of a request that another run has claimed; None where it may be sent."""
        row = db.execute("SELECT * FROM claims WHERE request_hash = ?", (request_hash,)).fetchone()
        if row is None or row["holder"] == self._holder():
            return None
        if not abandoned(row):
            return InFlight(f"the request is in flight in process {row['pid']} on {row['host']}")
        ledger = Path(row["ledger"])
        if (answer := _left_behind(ledger, request_hash)) is None:
            return None
        self._put(db, [answer], ledger.parent.name)
        return _hit(db, request_hash)

    def _holder(self) -> str:
        """Who claims: this cache in this process, also after a fork."""
        return f"{self._name}-{os.getpid()}"

    def _tried(self, work: Callable[[sqlite3.Connection], Result], otherwise: Result) -> Result:
        """`work` in a transaction, perhaps one with those of other threads; `otherwise` where the cache fails."""
        if self.trouble is None:
            try:
                return self._file.commit(work)
            except UserError as error:
                self.trouble = error
        return otherwise

    def close(self) -> None:
        self._file.close()


class NoCache(AnswerCache):
    """Where there is none: nothing is known, and everything may be sent."""

    def __init__(self) -> None:
        self._name = ""

    def _tried(self, work: Callable[[sqlite3.Connection], Result], otherwise: Result) -> Result:
        return otherwise


def open_cache(choice: str | None, paid: bool, run: str) -> AnswerCache | UserError | None:
    """The cache by `--cache`: a folder, "none", or not given: the user's own one, for a teacher that sends a bill.

    The default one that cannot be opened is returned as its error, to be said and done without.
    """
    if choice == OFF or (choice is None and not paid):
        return None
    if choice is not None:
        return AnswerCache(Path(choice).expanduser(), run)
    try:
        return AnswerCache(home(), run)
    except UserError as error:
        return error


def _hit(db: sqlite3.Connection, request_hash: str) -> Hit | None:
    row = db.execute("SELECT * FROM answers WHERE request_hash = ?", (request_hash,)).fetchone()
    return None if row is None else (_answer(row), _origin(row))


def _left_behind(ledger: Path, request_hash: str) -> Answer | None:
    """The answer that a process had in its ledger when it was killed."""
    if not ledger.is_file():
        return None
    try:
        with closing(Ledger(ledger)) as books:
            return books.answer_for(request_hash)
    except UserError:  # its trouble is not ours
        return None


def _answer(row: sqlite3.Row) -> Answer:
    used = (row["prompt_tokens"], row["completion_tokens"])
    return Answer(row["request_hash"], "", "ok", row["text"], *used, row["finish_reason"], row["model"])


def _origin(row: sqlite3.Row) -> str:
    day = time.strftime("%Y-%m-%d", time.gmtime(row["stored"]))
    return f"{MARK}: bought by {row['origin'] or 'an unnamed run'}, stored {day}"
