"""The threads behind the asking loop: some wait for the teacher, others enter what came in the ledger.

A thread that has its reply takes the next question at once, while the reply is being written and flushed to the disk by
another thread. So the rate of asking is bounded by the teacher and not by the disk. For this a few questions are
reserved ahead of their turn (`ahead`); what was reserved and not sent can be called back and costs nothing. After a
call that failed none of these is sent before `go_on`: the failure may be one that concerns all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from bridge_edge.answer_cache import AnswerCache
from bridge_edge.budget import Answer, Ledger, Reservation
from bridge_edge.teacher.attempt import Result, call, enter
from bridge_edge.teacher.base import Reply, Teacher, TeacherError
from bridge_edge.teacher.outcome import Event, Job

Task = tuple[Job, Reservation]


class Crew:
    """`concurrency` calls at once; `hear` is told of the end of each, once that end is on disk."""

    def __init__(
        self,
        teacher: Teacher,
        ledger: Ledger,
        cache: AnswerCache,
        concurrency: int,
        hear: Callable[[Event], None],
    ) -> None:
        self._teacher, self._ledger, self._cache, self._hear = teacher, ledger, cache, hear
        self._concurrency = concurrency
        self.ahead = concurrency // 4
        self._work: SimpleQueue[Task | None] = SimpleQueue()
        self._landed: SimpleQueue[tuple[Task, Result] | None] = SimpleQueue()
        self._askers = self._clerks = 0
        self._lock = threading.Lock()
        self._calm = threading.Event()
        self._calm.set()

    def start(self, jobs: int) -> None:
        """No more threads than there are jobs. They are daemons: an answer that the user gave up on must not hold up
        the end of the program."""
        self._askers = min(self._concurrency, jobs)
        self._clerks = min(self.ahead + 1, jobs)  # several, so that one flush of the disk serves them together
        for work in [self._ask] * self._askers + [self._enter] * self._clerks:
            threading.Thread(target=work, daemon=True).start()

    def send(self, job: Job, reservation: Reservation) -> None:
        self._work.put((job, reservation))

    def call_back(self) -> list[Task]:
        """What no thread has taken yet, and none will."""
        found: list[Task] = []
        while True:
            try:
                task = self._work.get_nowait()
            except Empty:
                return found
            if task is not None:
                found.append(task)

    def go_on(self) -> None:
        """The failure was heard of."""
        self._calm.set()

    def dismiss(self) -> None:
        self._calm.set()
        for _ in range(self._askers):
            self._work.put(None)

    def _ask(self) -> None:
        while self._calm.wait() and (task := self._work.get()) is not None:
            result = call(self._teacher, task[0].request)
            if not isinstance(result[0], Reply):
                self._calm.clear()
            self._landed.put((task, result))
        with self._lock:
            self._askers -= 1
            if self._askers == 0:  # nothing more will land
                for _ in range(self._clerks):
                    self._landed.put(None)

    def _enter(self) -> None:
        while (landed := self._landed.get()) is not None:
            (job, reservation), result = landed
            got: Answer | TeacherError | Exception
            try:
                got = enter(self._ledger, reservation, result)
            except Exception as error:
                got = error
            if isinstance(got, Answer):
                self._cache.put([got])
            else:
                self._cache.release([job.hash])
            self._hear(Event(job, got))
