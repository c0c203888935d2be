"""The ledger: every paid query is reserved before it is sent, and settled or released after.

A cap that is checked after the answer has come is no cap. So the worst case of a query (the bound on its prompt tokens
and all the completion tokens it may use) is counted against every cap in one transaction, before anything is sent:

    reserved  counted at its worst case, in flight
    settled   counted at what the teacher says it billed (at the worst case where it does not say)
    unknown   counted at its worst case: it may have been billed and the answer was lost (a timeout, a killed process)
    released  counted as nothing: it was surely not billed

Each attempt has its own row with the text that came back, so a paid answer is never bought twice. Threads and processes
of one machine may share a ledger (see `sqlite_file.py` for how it survives being killed).

Not covered: a teacher that bills more than the bounds it was asked to keep. The ledger then counts what was billed,
even past the cap, and reserves nothing more.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bridge_edge.errors import UserError
from bridge_edge.ledger_entries import Entry, failed, settled
from bridge_edge.ledger_file import (
    LEDGER,
    RELEASED,
    RESERVED,
    SETTLED,
    UNKNOWN,
    abandoned,
    interrupt,
    owner,
    spend,
    storable,
    sums,
    update,
)
from bridge_edge.ledger_rows import (
    AlreadyAnswered,
    Answer,
    BudgetExhausted,
    Details,
    InFlight,
    Query,
    Reservation,
    counted,
    find_replies,
    good,
    next_attempt,
    reply_columns,
)
from bridge_edge.prices import MOST, MOST_TOKENS, Caps, Price, Totals, Usage, show_usd, to_usd
from bridge_edge.sqlite_file import SqliteFile

__all__ = [
    "AlreadyAnswered", "Answer", "BudgetExhausted", "Caps", "Details", "InFlight", "Ledger", "Price", "Query",
    "Reservation", "Totals", "Usage", "show_usd", "to_usd",
]  # fmt: skip

TOGETHER = 500  # rows or requests looked at in one transaction


class Ledger:
    """One ledger file with the caps and the price of this run; raise the caps later by opening it with larger ones."""

    def __init__(self, path: Path | str, caps: Caps | None = None, price: Price | None = None) -> None:
        self.path = Path(path)
        self.caps = caps or Caps()
        self.price = price or Price()
        self._file = SqliteFile(self.path, LEDGER)

    def reserve(self, request_hash: str, item_id: str, prompt_tokens: int, max_completion_tokens: int) -> Reservation:
        """Count the worst case of one query against all caps, or raise BudgetExhausted naming the first in the way.

        Raises AlreadyAnswered or InFlight where the same request must not be sent again.
        """
        found = self.reserve_all([Query(request_hash, item_id, prompt_tokens, max_completion_tokens)])[0]
        if isinstance(found, Reservation):
            return found
        raise found

    def reserve_all(self, queries: Sequence[Query]) -> list[Reservation | AlreadyAnswered | InFlight | BudgetExhausted]:
        """Reserve several queries in their order and in one write; the list ends with the first that does not fit."""
        worst = [self._worst(query) for query in queries]

        def work(db: sqlite3.Connection) -> list[Reservation | AlreadyAnswered | InFlight | BudgetExhausted]:
            found: list[Reservation | AlreadyAnswered | InFlight | BudgetExhausted] = []
            for query, nano in zip(queries, worst, strict=True):
                try:
                    found.append(self._reserve(db, query, nano))
                except (AlreadyAnswered, InFlight) as other:
                    found.append(other)
                except BudgetExhausted as exhausted:
                    return [*found, exhausted]
            return found

        return self._file.commit(work)

    def _worst(self, query: Query) -> int:
        if query.prompt_tokens < 0 or query.completion_tokens < 0:
            raise ValueError("token bounds are not negative")
        if query.tokens > MOST_TOKENS:
            problem = f"item {query.item_id!r}: a query of {query.tokens} tokens is too large to count"
            raise UserError(problem, "shorten the prompt")
        return self.price.nano(query.prompt_tokens, query.completion_tokens) if query.nano is None else query.nano

    def _reserve(self, db: sqlite3.Connection, query: Query, nano: int) -> Reservation:
        attempt = next_attempt(db, query.request_hash)
        self._fits(db, query.tokens, nano)
        bounds = (query.prompt_tokens, query.completion_tokens, nano)
        row = (query.request_hash, attempt, storable(query.item_id), RESERVED, "sent", *bounds)
        new = db.execute(
            "INSERT INTO attempts (request_hash, attempt, item_id, state, status, reserved_prompt,"
            " reserved_completion, reserved_nano, queries, tokens, nano, started, host, pid, process_started)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (*row, 1, query.tokens, nano, time.time(), *owner(os.getpid())),
        ).lastrowid
        fixed = query.nano is not None
        return Reservation(int(new or 0), query.request_hash, query.item_id, attempt, *bounds, fixed)

    def settle(
        self,
        reservation: Reservation,
        usage: Usage | None,
        response_text: str,
        status: str = "ok",
        details: Details | None = None,
    ) -> Answer:
        """The teacher answered; see `ledger_entries.settled`."""
        entry, answer = settled(reservation, self.price, usage, response_text, status, details)
        self._file.commit(entry.write)
        return answer

    def adopt(self, answer: Answer, item_id: str, origin: str) -> Answer:
        """Enter an answer of the shared cache in one step: nothing is sent, so nothing is ever in doubt.

        It counts as one query, and as no tokens and no money. Raises what `reserve` raises.
        """
        used, now = Usage(answer.prompt_tokens, answer.completion_tokens), time.time()
        values = {**counted(used, self.price), "tokens": 0, "nano": 0}
        values |= {f"reserved_{name}": values[f"used_{name}"] for name in ("prompt", "completion", "nano")}
        host, pid, since = owner(os.getpid())
        row = {
            "request_hash": answer.request_hash, "state": SETTLED, "status": "ok", **values, **reply_columns(answer),
            "started": now, "finished": now, "host": host, "pid": pid, "process_started": since,
        }  # fmt: skip
        self.carry(row, item_id, origin)
        return replace(answer, item_id=item_id)

    def carry(self, row: Mapping[str, Any], item_id: str, origin: str) -> None:
        """Enter an attempt that was made elsewhere, with what it counted there; one that is here already is left.

        An answer must fit into the caps like a new one (raises what `reserve` raises). Money that went without an
        answer is gone, and counts whatever the caps.
        """

        def work(db: sqlite3.Connection) -> None:
            same = (row["request_hash"], row["started"])
            if db.execute("SELECT 1 FROM attempts WHERE request_hash = ? AND started = ?", same).fetchone():
                return
            attempt = next_attempt(db, row["request_hash"])
            if row["status"] == "ok":
                self._fits(db, row["tokens"], row["nano"])
            known = {"attempt": attempt, "item_id": storable(item_id), "origin": row.get("origin") or storable(origin)}
            new = {**row, **known}
            new.pop("id", None)
            columns, marks = ", ".join(new), ",".join("?" * len(new))  # names of our own columns
            db.execute(f"INSERT INTO attempts ({columns}) VALUES ({marks})", tuple(new.values()))

        self._file.commit(work)

    def fail(
        self,
        reservation: Reservation,
        status: str,
        error: str = "",
        billed: bool | None = None,
        latency_s: float | None = None,
    ) -> None:
        """No answer came; see `ledger_entries.failed`."""
        self._file.commit(failed(reservation, status, error, billed, latency_s).write)

    def enter_all(self, entries: Sequence[Entry]) -> list[Exception | None]:
        """Write the ends of several attempts at once; for each None, or what is wrong with it."""
        return [error for _, error in self._file.commit_all([entry.write for entry in entries])]

    def resolve(self, attempt_id: int, usage: Usage | None) -> None:
        """Close an unknown attempt by the provider's own bill: what it charged, or None for nothing."""
        values: dict[str, Any] = {"queries": 0, "tokens": 0, "nano": 0}
        if usage is not None:
            values = counted(usage, self.price)
        with self._file.write() as db:
            values["state"] = SETTLED if usage else RELEASED
            if not update(db, attempt_id, values, (UNKNOWN,)):
                raise UserError(f"attempt {attempt_id} is not an unresolved one", "Ledger.unresolved() lists them")

    def answer_for(self, request_hash: str) -> Answer | None:
        """The stored answer of a request, or None where it was never answered."""
        return good(self.replies([request_hash]).get(request_hash, []))

    def replies(self, request_hashes: Sequence[str]) -> dict[str, list[Answer]]:
        """Every paid reply of these requests in the order they came, useful or not (see the `status` of each)."""
        found: dict[str, list[Answer]] = {}
        for start in range(0, len(request_hashes), TOGETHER):
            with self._file.read() as db:
                for answer in find_replies(db, request_hashes[start : start + TOGETHER]):
                    found.setdefault(answer.request_hash, []).append(answer)
        return found

    def totals(self) -> Totals:
        """What counts against the caps now, from one consistent view of the file."""
        with self._file.read() as db:
            open_ = sums(db, f"WHERE state IN ('{RESERVED}', '{UNKNOWN}')")
            return Totals(*spend(db), *open_, sums(db, f"WHERE state = '{UNKNOWN}'")[2])

    def entered(self, mark: str) -> tuple[int, int]:
        """How many answers have an origin that begins with `mark`, and what they had cost at this price."""
        with self._file.read() as db:
            which = "FROM attempts WHERE substr(origin, 1, ?) = ?"
            found = db.execute(f"SELECT COUNT(*), IFNULL(SUM(used_nano), 0) {which}", (len(mark), mark)).fetchone()
        return found[0], found[1]

    def attempts(self) -> Iterator[dict[str, Any]]:
        """Every attempt in the order they were reserved, one dict of its columns each."""
        after = 0
        while True:  # in pages, so that a slow reader holds no transaction open
            with self._file.read() as db:
                page = db.execute(
                    "SELECT * FROM attempts WHERE id > ? ORDER BY id LIMIT ?", (after, TOGETHER)
                ).fetchall()
            if not page:
                return
            yield from (dict(row) for row in page)
            after = page[-1]["id"]

    def unresolved(self) -> list[dict[str, Any]]:
        """Attempts that may or may not have been billed; reservations of dead processes are found first."""
        with self._file.write() as db:
            for row in db.execute("SELECT * FROM attempts WHERE state = ?", (RESERVED,)).fetchall():
                if abandoned(row):
                    interrupt(db, row["id"])
            rows = db.execute("SELECT * FROM attempts WHERE state = ? ORDER BY id", (UNKNOWN,)).fetchall()
        return [dict(row) for row in rows]

    def verify(self) -> None:
        """Check the file and its sums; raise UserError where they do not hold."""
        with self._file.read() as db:
            state = db.execute("PRAGMA integrity_check").fetchone()[0]
            if state != "ok" or sums(db) != spend(db):
                raise UserError(f"the ledger {str(self.path)!r} is damaged: {state}", "restore it from a copy")

    def close(self) -> None:
        """Close this process's connection; the ledger opens it again when it is used again."""
        self._file.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fits(self, db: sqlite3.Connection, tokens: int, nano: int) -> None:
        queries_now, tokens_now, nano_now = spend(db)
        if self.caps.queries is not None and queries_now + 1 > self.caps.queries:
            raise BudgetExhausted("queries", str(self.caps.queries), str(queries_now), "1")
        if self.caps.tokens is not None and tokens_now + tokens > self.caps.tokens:
            raise BudgetExhausted("tokens", str(self.caps.tokens), str(tokens_now), str(tokens))
        if (cap := self.caps.nano) is not None and nano_now + nano > cap:
            raise BudgetExhausted("usd", str(self.caps.usd), show_usd(nano_now), show_usd(nano))
        if max(nano_now + nano, tokens_now + tokens) > MOST:
            raise BudgetExhausted("usd", show_usd(MOST), show_usd(nano_now), show_usd(nano))
