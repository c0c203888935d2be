"""One attempt at one request, entered in the ledger whatever comes of it; and the handling of Ctrl-C around many."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bridge_edge.budget import Answer, Details, Ledger, Query, Reservation
from bridge_edge.teacher.base import Reply, Request, Teacher, TeacherError, cost_of

Result = tuple[Reply | Exception, float]
"""What came of one call, and the seconds that it took."""


def worst_case(teacher: Teacher, request_hash: str, request: Request) -> Query:
    """What is reserved for a request."""
    bounds = (teacher.prompt_tokens(request), request.max_tokens)
    return Query(request_hash, request.item_id, *bounds, cost_of(teacher, request))


def attempt(teacher: Teacher, ledger: Ledger, request: Request, reservation: Reservation) -> Answer | TeacherError:
    """Call the teacher once and settle; what is returned is on disk. Only what nobody expects is raised."""
    return enter(ledger, reservation, call(teacher, request))


def call(teacher: Teacher, request: Request) -> Result:
    start = time.monotonic()
    got: Reply | Exception
    try:
        got = teacher.ask(request)
    except Exception as error:
        got = error
    return got, time.monotonic() - start


def enter(ledger: Ledger, reservation: Reservation, result: Result) -> Answer | TeacherError:
    """Enter in the ledger what came of a call."""
    got, latency_s = result
    if isinstance(got, Reply):
        return _settle(ledger, reservation, got, latency_s)
    if isinstance(got, TeacherError):
        _enter_error(ledger, reservation, got, latency_s)
        return got
    ledger.fail(reservation, "crashed", type(got).__name__, latency_s=latency_s)
    raise got


def _enter_error(ledger: Ledger, reservation: Reservation, error: TeacherError, latency_s: float) -> None:
    """A failed attempt: released, kept as possibly billed, or settled as a useless reply that was paid for."""
    if error.billed == "yes":
        reply = error.reply or Reply("", None, None)
        _settle(ledger, reservation, reply, latency_s, error.status, str(error))
    else:
        ledger.fail(reservation, error.status, str(error), False if error.billed == "no" else None, latency_s)


def _settle(
    ledger: Ledger, reservation: Reservation, reply: Reply, latency_s: float, status: str = "ok", error: str = ""
) -> Answer:
    details = Details(reply.finish_reason, reply.model, error, latency_s)
    return ledger.settle(reservation, reply.usage, reply.text, status, details)


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
