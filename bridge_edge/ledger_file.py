"""The tables of the ledger and the statements on them; and who made a reservation.

Triggers keep the running sums in the same transaction as the rows, so the two cannot drift apart. How the file survives
being killed, shared and forked is in `sqlite_file.py`.
"""

from __future__ import annotations

import functools
import socket
import sqlite3
import time
from typing import Any

import psutil

from bridge_edge.sqlite_file import Kind

LEASE_S = 3600.0  # a reservation made on another machine is taken for lost after this long
APART_S = 2.0  # two readings of a process's start, since the start of the machine is known to a second
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
)

# where an answer that was not asked for came from: another run, or the shared cache
ORIGIN = ("ALTER TABLE attempts ADD COLUMN origin TEXT NOT NULL DEFAULT ''",)
LEDGER = Kind("ledger", 0x42454C47, (SCHEMA, ORIGIN))


@functools.lru_cache(maxsize=4)
def owner(pid: int) -> tuple[str, int, float]:
    """Host, process id and start of a process: who made a reservation. A process id alone would be used again."""
    return socket.gethostname(), pid, _born(psutil.Process(pid))


def _born(process: psutil.Process) -> float:
    """Seconds from the start of the machine to that of a process: setting the clock does not change them."""
    return float(process.create_time() - psutil.boot_time())


def abandoned(row: sqlite3.Row | dict[str, Any]) -> bool:
    """Whether the process that made a reservation is gone, so that its query cannot come back any more."""
    host, pid, started = row["host"], row["pid"], row["process_started"]
    if host != socket.gethostname():
        return bool(time.time() - row["started"] > LEASE_S)
    try:
        process = psutil.Process(pid)
        alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return not alive or abs(_born(process) - started) > APART_S
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
