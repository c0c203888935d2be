"""One attempt at one request, entered in the ledger whatever comes of it; and the handling of Ctrl-C around many."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bridge_edge.budget import Answer, Details, Ledger, Query, Reservation
from bridge_edge.ledger_entries import Entry, failed, settled
from bridge_edge.teacher.base import Reply, Request, Teacher, TeacherError, cost_of

Result = tuple[Reply | Exception, float]
"""What came of one call, and the seconds that it took."""
Landed = Callable[[Result], None]


def worst_case(teacher: Teacher, request_hash: str, request: Request) -> Query:
    """What is reserved for a request."""
    bounds = (teacher.prompt_tokens(request), request.max_tokens)
    return Query(request_hash, request.item_id, *bounds, cost_of(teacher, request))


def attempt(teacher: Teacher, ledger: Ledger, request: Request, reservation: Reservation) -> Answer | TeacherError:
    """Call the teacher once and settle; what is returned is on disk. Only what nobody expects is raised."""
    (got,) = enter_all(ledger, [(reservation, call(teacher, request))])
    if isinstance(got, (Answer, TeacherError)):
        return got
    raise got


def call(teacher: Teacher, request: Request) -> Result:
    start = time.monotonic()
    got: Reply | Exception
    try:
        got = teacher.ask(request)
    except Exception as error:
        got = error
    return got, time.monotonic() - start


def landing(request: Request, landed: Landed) -> Callable[[Reply | BaseException], None]:
    """Tells `landed` how a call ended that begins now; one that was given up may have been billed."""
    start = time.monotonic()

    def ended(got: Reply | BaseException) -> None:
        if not isinstance(got, (Reply, Exception)):
            got = TeacherError(f"item {request.item_id!r}: the call was given up", "given up")
        landed((got, time.monotonic() - start))

    return ended


def enter_all(ledger: Ledger, ended: Sequence[tuple[Reservation, Result]]) -> list[Answer | Exception]:
    """Enter in the ledger what came of some calls, in one write; what is returned is on disk. Other exceptions than
    TeacherError are of the ledger, or such as nobody expects."""
    made = [_entry(ledger, *end) for end in ended]
    troubles = ledger.enter_all([entry for entry, _ in made])
    return [trouble or got for (_, got), trouble in zip(made, troubles, strict=True)]


def _entry(ledger: Ledger, r: Reservation, result: Result) -> tuple[Entry, Answer | Exception]:
    """A reply; or a failed attempt: released, kept as possibly billed, or a useless reply that was paid for."""
    got, latency_s = result
    try:
        if isinstance(got, Reply):
            return _settled(ledger, r, got, latency_s)
        if isinstance(got, TeacherError) and got.billed == "yes":
            useless = got.reply or Reply("", None, None)
            return _settled(ledger, r, useless, latency_s, got.status, str(got))[0], got
    except Exception as error:  # a reply that cannot be kept must not take those with it that are entered beside it
        got = error
    if isinstance(got, TeacherError):
        return failed(r, got.status, str(got), False if got.billed == "no" else None, latency_s), got
    return failed(r, "crashed", type(got).__name__, latency_s=latency_s), got


def _settled(
    ledger: Ledger, r: Reservation, reply: Reply, latency_s: float, status: str = "ok", error: str = ""
) -> tuple[Entry, Answer]:
    details = Details(reply.finish_reason, reply.model, error, latency_s)
    return settled(r, ledger.price, reply.usage, reply.text, status, details)


@contextmanager
def first_interrupt(tell: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C calls `tell`, the next raises KeyboardInterrupt; outside the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen = False

    def handler(signum: int, frame: object) -> None:
        nonlocal seen
        if seen:
            raise KeyboardInterrupt
        seen = True
        tell()

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
