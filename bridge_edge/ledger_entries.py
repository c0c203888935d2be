"""How an attempt ends, as the row that the ledger writes for it."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from bridge_edge.ledger_file import RELEASED, RESERVED, SETTLED, UNKNOWN, storable, update
from bridge_edge.ledger_rows import Answer, Details, Reservation, counted, plausible, reply_columns, stored
from bridge_edge.prices import Price, Usage


@dataclass(frozen=True)
class Entry:
    """The end of one attempt."""

    reservation: Reservation
    values: dict[str, Any]

    def write(self, db: sqlite3.Connection) -> None:
        """Raises ValueError where the attempt is already closed."""
        # A settled attempt is final; a lost one may still be settled by the process that was taken for dead.
        r = self.reservation
        if not update(db, r.id, self.values, (RESERVED, UNKNOWN)):
            raise ValueError(f"attempt {r.id} of item {r.item_id!r} is already closed")


def settled(
    reservation: Reservation,
    price: Price,
    usage: Usage | None,
    response_text: str,
    status: str = "ok",
    details: Details | None = None,
) -> tuple[Entry, Answer]:
    """The teacher answered: keep its text and count what it billed (the worst case where `usage` is no use).

    Only `status="ok"` makes it the answer of its request; any other status keeps a useless but paid reply.
    """
    r, text, details = reservation, storable(response_text), details or Details()
    error = details.error
    if usage is None or not plausible(usage, r, text):
        if usage is not None:
            error = "; ".join(filter(None, (error, f"{usage!r:.120} is not plausible: worst case counted")))
        usage = Usage(r.prompt_tokens, r.completion_tokens)
    answer = stored(r.request_hash, r.item_id, status, text, usage, details)
    values = {**counted(usage, price, r.nano if r.fixed else None), **reply_columns(answer)}
    return Entry(r, {**values, **_ending(SETTLED, status, error, details.latency_s)}), answer


def failed(
    reservation: Reservation,
    status: str,
    error: str = "",
    billed: bool | None = None,
    latency_s: float | None = None,
) -> Entry:
    """No answer came. `billed=False`: surely not billed, released; otherwise it stays counted at its worst case."""
    free = {"queries": 0, "tokens": 0, "nano": 0} if billed is False else {}
    state = RELEASED if billed is False else UNKNOWN
    return Entry(reservation, {**free, **_ending(state, status, error, latency_s)})


def _ending(state: str, status: str, error: str, latency_s: float | None) -> dict[str, Any]:
    known = {"state": state, "status": status, "error": storable(error)[:2000], "finished": time.time()}
    return {**known, "latency_s": latency_s}
