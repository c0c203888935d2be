"""The nouns of the ledger (reservation, answer, what stands in the way of a query) and how they are read from rows."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from bridge_edge.errors import UserError
from bridge_edge.ledger_file import RESERVED, SETTLED, abandoned, interrupt, storable
from bridge_edge.prices import Price, Usage


@dataclass(frozen=True)
class Query:
    """One request and the bounds of what it may cost; `nano` is its cost where that is known, whatever its tokens."""

    request_hash: str
    item_id: str
    prompt_tokens: int
    completion_tokens: int
    nano: int | None = None

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Reservation:
    """Leave to send one query; hand it back to `Ledger.settle` or `Ledger.fail`."""

    id: int
    request_hash: str
    item_id: str
    attempt: int
    prompt_tokens: int
    completion_tokens: int
    nano: int
    fixed: bool = False  # `nano` is the cost, not a bound


@dataclass(frozen=True)
class Answer:
    """A stored reply; the tokens are those that were counted."""

    request_hash: str
    item_id: str
    status: str
    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    model: str


@dataclass(frozen=True)
class Details:
    """What else is worth keeping of a reply; none of it is counted."""

    finish_reason: str = ""
    model: str = ""
    error: str = ""
    latency_s: float | None = None


class BudgetExhausted(UserError):
    """A cap leaves no room for the worst case of the next query; `cap` is "queries", "tokens" or "usd"."""

    def __init__(self, cap: str, limit: str, counted: str, needed: str) -> None:
        super().__init__(
            f"the cap budget.{cap}={limit} leaves no room: {counted} counted, the next query may need {needed}",
            f"everything is saved; raise budget.{cap} and run the same command again to go on",
        )
        self.cap = cap


class AlreadyAnswered(Exception):
    """The request was answered before: take `answer` instead of sending it again."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"request {answer.request_hash[:12]} has an answer")
        self.answer = answer


class InFlight(Exception):
    """Another thread or process that is still alive has sent this very request."""


def plausible(usage: Usage, reservation: Reservation, text: str) -> bool:
    """Whether reported usage can be believed.

    A little over the bounds is (servers add template tokens); nothing at all, negative or boundless counts are not.
    """
    bounds = (reservation.prompt_tokens, reservation.completion_tokens)
    for count, bound in zip((usage.prompt_tokens, usage.completion_tokens), bounds, strict=True):
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 10 * bound + 1000:
            return False
    return (usage.prompt_tokens > 0 or bounds[0] == 0) and (usage.completion_tokens > 0 or not text)


def counted(usage: Usage, price: Price, nano: int | None = None) -> dict[str, int]:
    """The columns of what an answer has cost, by the price or as given."""
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    nano = price.nano(prompt, completion) if nano is None else nano
    used = {"used_prompt": prompt, "used_completion": completion, "used_nano": nano}
    return {**used, "queries": 1, "tokens": prompt + completion, "nano": nano}


def stored(request_hash: str, item_id: str, status: str, text: str, usage: Usage, details: Details) -> Answer:
    """A reply as the ledger keeps it."""
    known = (usage.prompt_tokens, usage.completion_tokens, storable(details.finish_reason), storable(details.model))
    return Answer(request_hash, item_id, status, text, *known)


def reply_columns(answer: Answer) -> dict[str, str]:
    """The columns that hold what came back."""
    return {
        "finish_reason": answer.finish_reason,
        "model": answer.model,
        "response_sha256": hashlib.sha256(answer.text.encode()).hexdigest(),
        "response": answer.text,
    }


def next_attempt(db: sqlite3.Connection, request_hash: str) -> int:
    """The number of the next attempt of a request that may be sent; raises where it may not."""
    rows = db.execute("SELECT * FROM attempts WHERE request_hash = ? ORDER BY id", (request_hash,)).fetchall()
    for row in rows:
        if row["state"] == SETTLED and row["status"] == "ok":
            raise AlreadyAnswered(answer_in(row))
    for row in rows:
        if row["state"] == RESERVED:
            if not abandoned(row):
                raise InFlight(f"item {row['item_id']!r} is in flight in process {row['pid']} on {row['host']}")
            interrupt(db, row["id"])
    return len(rows) + 1


def find_replies(db: sqlite3.Connection, request_hashes: Sequence[str]) -> list[Answer]:
    """The paid replies of some requests, in the order they came."""
    among = f"request_hash IN ({', '.join('?' * len(request_hashes))})"
    which = f"state = '{SETTLED}' AND response IS NOT NULL AND {among} ORDER BY id"
    return [answer_in(row) for row in db.execute(f"SELECT * FROM attempts WHERE {which}", request_hashes)]


def good(replies: Sequence[Answer]) -> Answer | None:
    """The answer among the replies to one request."""
    return next((reply for reply in replies if reply.status == "ok"), None)


def answer_in(row: sqlite3.Row) -> Answer:
    used = (row["used_prompt"], row["used_completion"])
    known = (row["status"], row["response"], *used, row["finish_reason"], row["model"])
    return Answer(row["request_hash"], row["item_id"], *known)
