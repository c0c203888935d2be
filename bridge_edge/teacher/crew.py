"""The calls that are under way behind the asking loop, and the clerk that enters what comes of them in the ledger.

A place that a reply leaves is taken by the next question at once, while the reply is being written and flushed to the
disk. So the rate of asking is bounded by the teacher and not by the disk. For this a few questions are reserved ahead
of their turn (`ahead`); what was reserved and not sent can be called back and costs nothing. After a call that failed
none of these is sent before `go_on`: the failure may be one that concerns all.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Protocol

from bridge_edge.answer_cache import AnswerCache
from bridge_edge.budget import Answer, Ledger, Reservation
from bridge_edge.errors import UserError
from bridge_edge.teacher.attempt import Landed, Result, call, enter_all
from bridge_edge.teacher.base import Reply, Request, Teacher
from bridge_edge.teacher.outcome import Event, Job

GATHER_S = 0.004  # how long the first reply waits for others to be written with it
Task = tuple[Job, Reservation]


class Begins(Protocol):
    """A teacher that needs no thread for each call under way."""

    def begin(self, request: Request, landed: Landed) -> None:
        """Start one attempt and return; `landed` hears of its end, perhaps in another thread."""


class Threads:
    """Begins calls of a teacher that has `ask` alone: each waits in a thread, of which there are never more than calls
    under way. They are daemons: an answer that the user gave up on must not hold up the end of the program."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher, self._free = teacher, 0
        self._work: SimpleQueue[tuple[Request, Landed]] = SimpleQueue()
        self._lock = threading.Lock()

    def begin(self, request: Request, landed: Landed) -> None:
        with self._lock:
            if self._free > 0:
                self._free -= 1
                self._work.put((request, landed))
                return
        try:
            threading.Thread(target=self._ask, args=(request, landed), daemon=True).start()
        except RuntimeError as error:
            raise UserError(f"no more threads for calls to the teacher: {error}", "use a lower --concurrency") from None

    def _ask(self, request: Request, landed: Landed) -> None:
        while True:
            result = call(self._teacher, request)
            with self._lock:
                self._free += 1
            landed(result)
            request, landed = self._work.get()


class Crew:
    """`concurrency` calls at once; `hear` is told of the end of each, once that end is on disk."""

    def __init__(
        self,
        teacher: Teacher | Begins,
        ledger: Ledger,
        cache: AnswerCache,
        concurrency: int,
        hear: Callable[[Sequence[Event]], None],
    ) -> None:
        self._begin = teacher.begin if hasattr(teacher, "begin") else Threads(teacher).begin
        self._ledger, self._cache, self._hear = ledger, cache, hear
        self._concurrency = concurrency
        self.ahead = concurrency // 2
        self._work: deque[Task] = deque()
        self._landed: SimpleQueue[tuple[Task, Result] | None] = SimpleQueue()
        self._flying = 0
        self._lock = threading.Lock()
        self._unheard = 0  # failures that the asking loop does not know of yet
        self._dismissed = False
        self._clerk = threading.Thread(target=self._enter, daemon=True)

    def send(self, job: Job, reservation: Reservation) -> None:
        self._work.append((job, reservation))
        if self._clerk.ident is None:
            self._clerk.start()
        self._fill()

    def call_back(self) -> list[Task]:
        """What was not sent yet, and will not be."""
        with self._lock:
            found = list(self._work)
            self._work.clear()
        return found

    def go_on(self) -> None:
        """One failure was heard of."""
        with self._lock:
            self._unheard = max(0, self._unheard - 1)
        self._fill()

    def dismiss(self) -> None:
        """The clerk goes when nothing is under way any more."""
        with self._lock:
            self._dismissed = True
        self._fill()

    def _fill(self) -> None:
        """Begin what there is room for."""
        while True:
            with self._lock:
                if not (self._work and not self._unheard and self._flying < self._concurrency):
                    if self._dismissed and not self._flying:
                        self._landed.put(None)
                    return
                task = self._work.popleft()
                self._flying += 1
            try:
                self._begin(task[0].request, partial(self._land, task))
            except Exception as error:  # it was not begun; whoever waits for its end must hear of it
                self._land(task, (error, 0.0))

    def _land(self, task: Task, result: Result) -> None:
        with self._lock:
            self._flying -= 1
            self._unheard += not isinstance(result[0], Reply)
            self._landed.put((task, result))  # before anyone can see that nothing is under way, and end the clerk
        self._fill()

    def _enter(self) -> None:
        """The clerk: all that has landed meanwhile is entered in one write."""
        while (landed := self._landed.get()) is not None:
            batch = [landed]
            time.sleep(GATHER_S)
            with suppress(Empty):
                while (landed := self._landed.get_nowait()) is not None:
                    batch.append(landed)
                self._landed.put(None)  # the end, which was taken along
            self._hear(self._entered(batch))

    def _entered(self, batch: Sequence[tuple[Task, Result]]) -> list[Event]:
        try:
            results = enter_all(self._ledger, [(reservation, result) for (_, reservation), result in batch])
            events = [Event(job, got) for ((job, _), _), got in zip(batch, results, strict=True)]
            self._cache.put([event.result for event in events if isinstance(event.result, Answer)])
            self._cache.release([event.job.hash for event in events if not isinstance(event.result, Answer)])
        except Exception as error:  # of the cache, too: what is in the ledger is safe
            return [Event(job, error) for (job, _), _ in batch]
        return events
