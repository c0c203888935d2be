"""Answers that need not be bought: those of other runs in the same folder, and those in the user's shared cache.

The two are counted differently. Runs in one folder are one piece of work that grows, say from 100 to 200 queries, so
what the former run paid for the same requests counts against the caps of the latter: a cap means the whole, at the
prices that were paid, and with what was lost. The cache holds what other work paid for; an answer from it takes up a
query, but no tokens and no money.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from bridge_edge.answer_cache import AnswerCache, open_cache
from bridge_edge.budget import AlreadyAnswered, BudgetExhausted, InFlight, Ledger
from bridge_edge.errors import UserError
from bridge_edge.ledger_file import RESERVED, SETTLED, UNKNOWN, abandoned
from bridge_edge.progress import say
from bridge_edge.teacher.base import Request, Teacher


def take_over(ledger: Ledger, teacher: Teacher, requests: Sequence[Request], others: Sequence[Path]) -> int:
    """Enter what other runs have paid for these requests, answered or not, with what it cost then; returns how many
    answers came."""
    items = {teacher.request_hash(r): r.item_id for r in reversed(requests)}  # the first item of equal requests
    place = {key: number for number, key in enumerate(reversed(items))}
    taken: set[str] = set()  # of requests: several neighbours may have an answer of one another
    for path in others:
        try:
            with closing(Ledger(path)) as other:
                rows = [found for row in other.attempts() if row["request_hash"] in items and (found := _paid(row))]
        except UserError as error:  # a damaged neighbour is not this run's trouble
            say(f"  note: cannot look for answers in {path}: {error.message}")
            continue
        # Losses first, since they are counted in any case; then the answers in the order in which they are worth it.
        for row in sorted(rows, key=lambda row: (row["status"] == "ok", place[row["request_hash"]], row["id"])):
            try:
                ledger.carry(row, items[row["request_hash"]], f"taken over from {path.parent.name}")
            except BudgetExhausted:
                return len(taken)
            except (AlreadyAnswered, InFlight):
                continue
            if row["status"] == "ok":
                taken.add(row["request_hash"])
    return len(taken)


def _paid(row: dict[str, Any]) -> dict[str, Any] | None:
    """An attempt that cost money or may have; None for one that did not, or that is still on its way."""
    if row["state"] == RESERVED and abandoned(row):
        return {**row, "state": UNKNOWN, "status": "interrupted"}
    return row if row["state"] in (SETTLED, UNKNOWN) else None


@contextmanager
def shared_cache(choice: str | None, paid: bool, run: str) -> Iterator[AnswerCache | None]:
    """The cache by `--cache` (see `open_cache`); says so where a run has to do without it."""
    found = open_cache(choice, paid, run)
    if isinstance(found, UserError):
        say(f"  note: going on without the cache of answers: {found}")
        found = None
    try:
        yield found
    finally:
        if found is not None:
            if found.trouble is not None:
                say(f"  note: the cache of answers was left aside: {found.trouble}")
            found.close()


def recall(cache: AnswerCache, ledger: Ledger, teacher: Teacher, requests: Sequence[Request]) -> None:
    """Enter in the ledger what the cache holds, in the order of the requests, until a cap is reached.

    For a teacher that answers in batches; `ask_all` looks the requests up one by one as it comes to them.
    """
    for request in requests:
        if (found := cache.get(teacher.request_hash(request))) is not None:
            answer, origin = found
            try:
                ledger.adopt(answer, request.item_id, origin)
            except BudgetExhausted:
                return
            except (AlreadyAnswered, InFlight):
                continue


def keep(cache: AnswerCache, ledger: Ledger, teacher: Teacher, requests: Sequence[Request]) -> None:
    """Put into the cache what the ledger holds of these requests."""
    found = (ledger.answer_for(teacher.request_hash(request)) for request in requests)
    cache.put([answer for answer in found if answer is not None])
