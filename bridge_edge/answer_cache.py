"""The shared cache: answers that any run of this user has bought, so that no run buys the same one again.

A ledger belongs to one run and keeps accounts; the cache belongs to the user and keeps none. It holds good answers by
the hash of their request (endpoint, model, messages, parameters and sample index, never the key). An answer taken from
it is entered in the run's ledger with its origin: it uses up one query of `budget.queries`, so that a budget means the
same number of lessons with and without a cache, and no tokens and no money.

It is a convenience and never stands in the way of a run: where it cannot be read or written, the run says so and goes
on without it. An answer that a killed run had stored in its ledger alone is added when that run is resumed.

Not covered: refusals and malformed replies (bought again by another run), forgetting old answers (delete the file).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from bridge_edge.errors import UserError
from bridge_edge.ledger_rows import Answer
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
# NORMAL: a power cut may cost the newest entries; they are in their run's ledger too, which syncs every one.
KIND = Kind("cache of answers", 0x42454143, (SCHEMA,), "NORMAL")


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

    def get(self, request_hash: str) -> tuple[Answer, str] | None:
        """The answer to a request and where it came from, in words; None where there is none."""
        if self.trouble is not None:
            return None
        try:
            with self._file.read() as db:
                row = db.execute("SELECT * FROM answers WHERE request_hash = ?", (request_hash,)).fetchone()
        except UserError as error:
            self.trouble = error
            return None
        return None if row is None else (_answer(row), _origin(row))

    def put(self, answers: Sequence[Answer]) -> None:
        """Keep good answers; the first one of a request stays."""
        now = time.time()
        rows = [
            (a.request_hash, a.text, a.prompt_tokens, a.completion_tokens, a.finish_reason, a.model, self.run, now)
            for a in answers
            if a.status == "ok"
        ]
        if self.trouble is not None or not rows:
            return
        try:
            with self._file.write() as db:
                db.executemany("INSERT OR IGNORE INTO answers VALUES (?,?,?,?,?,?,?,?)", rows)
        except UserError as error:
            self.trouble = error

    def close(self) -> None:
        self._file.close()


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


def _answer(row: sqlite3.Row) -> Answer:
    used = (row["prompt_tokens"], row["completion_tokens"])
    return Answer(row["request_hash"], "", "ok", row["text"], *used, row["finish_reason"], row["model"])


def _origin(row: sqlite3.Row) -> str:
    day = time.strftime("%Y-%m-%d", time.gmtime(row["stored"]))
    return f"{MARK}: bought by {row['origin'] or 'an unnamed run'}, stored {day}"
