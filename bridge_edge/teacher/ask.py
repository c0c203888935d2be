"""The loop that asks a teacher within a budget: reserve, call, settle, retry, and stop cleanly.

One thread (the caller's) decides and reserves, in the order of the requests, so that the same money buys the same
items; `crew.py` makes one attempt each and settles it, so that a paid answer is on disk before anyone hears of it. What
the ledger already holds is taken from there without a call. Near a cap the loop waits for answers in flight, since they
nearly always cost less than was reserved, and stops only when nothing is in flight and the next worst case does not
fit. The first Ctrl-C sends nothing more and waits for the answers already paid for; the second gives them up (they stay
counted). Running the same thing again goes on where it stopped.

The text of a reply is kept in the ledger as it came and cleaned (`sanitize`) on its way out.

Not covered: adapting the concurrency to the rate limits of a server, and batch endpoints (`batch_run.py`).
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from queue import Empty, SimpleQueue

from bridge_edge.answer_cache import AnswerCache, Hit, NoCache
from bridge_edge.budget import AlreadyAnswered, Answer, BudgetExhausted, InFlight, Ledger, Reservation
from bridge_edge.errors import UserError
from bridge_edge.ledger_rows import good
from bridge_edge.teacher.attempt import first_interrupt, worst_case
from bridge_edge.teacher.base import Reply, Request, Teacher, TeacherError
from bridge_edge.teacher.crew import Crew
from bridge_edge.teacher.outcome import Event, Failure, Job, Outcome, Policy, Progress, announce, until
from bridge_edge.teacher.prompt import build_prompt, sanitize

__all__ = ["Failure", "Outcome", "Policy", "Progress", "ask_all", "build_prompt", "sanitize"]

FINAL = {"filtered", "refused"}  # paid replies that asking again would only buy again
POLL_S = 0.2
TELL_S = 0.1  # between two states of progress at the least: what they say is read from the ledger


def ask_all(
    teacher: Teacher,
    ledger: Ledger,
    requests: Sequence[Request],
    concurrency: int = 4,
    progress: Callable[[Progress], None] | None = None,
    policy: Policy | None = None,
    cache: AnswerCache | None = None,
) -> Outcome:
    """Ask every request that has no answer yet, within the ledger's caps; what `cache` holds is not asked for.

    Raises KeyboardInterrupt after Ctrl-C.
    """
    if ledger.price != teacher.price:
        raise ValueError(f"the ledger counts at {ledger.price}, the teacher {teacher.name} costs {teacher.price}")
    if concurrency < 1:
        raise ValueError("concurrency is at least 1")
    return _Asker(teacher, ledger, requests, concurrency, progress, policy or Policy(), cache).run()


class _Asker:
    def __init__(
        self, teacher: Teacher, ledger: Ledger, requests: Sequence[Request], concurrency: int,
        progress: Callable[[Progress], None] | None, policy: Policy, cache: AnswerCache | None,
    ) -> None:  # fmt: skip
        self.teacher, self.ledger, self.cache = teacher, ledger, cache or NoCache()
        self.progress, self.policy = progress, policy
        self.jobs: dict[str, Job] = {}
        for request in requests:
            key = teacher.request_hash(request)
            self.jobs.setdefault(key, Job(key, [])).requests.append(request)
        self.ready: deque[Job] = deque()
        self.later: list[tuple[float, int, Job]] = []  # a heap by due time
        self.flying: dict[str, Reservation] = {}
        self.events: SimpleQueue[Sequence[Event] | None] = SimpleQueue()  # None: Ctrl-C
        self.crew = Crew(teacher, ledger, self.cache, concurrency, self.events.put)
        self.width = concurrency + self.crew.ahead
        self.not_before = self.told = 0.0
        self.done = self.failed = self.failed_in_a_row = self.retries = 0
        self.interrupted = False
        self.crash: Exception | None = None
        self.outcome = Outcome()

    def run(self) -> Outcome:
        bought = self.ledger.replies(list(self.jobs))
        kept = [a for job in self.jobs.values() if (a := self._recall(job, bought.get(job.hash, []))) is not None]
        self.cache.put(kept)  # a killed run may have stored them in its ledger alone
        self._tell(now=True)
        try:
            with first_interrupt(lambda: self.events.put(None)):
                self._loop()
                self._tell(now=True)
        except KeyboardInterrupt:
            self._give_up()
            raise
        except BaseException:  # the ledger or the progress display failed: what is in flight is still paid for
            self._drain()
            raise
        finally:
            self.crew.dismiss()
            self.cache.release()
        if self.crash is not None:
            raise self.crash
        if self.interrupted:
            raise KeyboardInterrupt
        return self.outcome.collect(self.jobs.values())

    @property
    def halted(self) -> bool:
        return self.interrupted or self.crash is not None or self.outcome.stopped_by is not None

    def _recall(self, job: Job, bought: Sequence[Answer]) -> Answer | None:
        """Take what the ledger holds, or queue the job."""
        if (answer := good(bought)) is not None:
            self._from_ledger(job, answer)
            return answer
        if bought and bought[-1].status in FINAL:
            message = f"item {job.request.item_id!r}: {bought[-1].status} reply, bought before and not asked for again"
            self._end(job, TeacherError(message, bought[-1].status, scope="item"))
        else:
            self.ready.append(job)
        return None

    def _from_ledger(self, job: Job, answer: Answer) -> None:
        self._accept(job, answer)
        self.outcome.from_ledger += 1

    def _accept(self, job: Job, answer: Answer) -> None:
        used = (answer.prompt_tokens, answer.completion_tokens)
        self._end(job, Reply(sanitize(answer.text, self.policy.max_chars), *used, answer.finish_reason, answer.model))

    def _end(self, job: Job, result: Reply | TeacherError) -> None:
        job.result = result
        self.done += isinstance(result, Reply)
        self.failed += isinstance(result, TeacherError)

    def _loop(self) -> None:
        while True:
            now = time.monotonic()
            while self.later and self.later[0][0] <= now:
                self.ready.appendleft(heapq.heappop(self.later)[2])
            self._hold()
            while self.ready and len(self.flying) < self.width and now >= self.not_before and not self.halted:
                if not self._launch():
                    break
            if not self.flying and (self.halted or not (self.ready or self.later)):
                return
            with suppress(Empty):
                self._hear(self.events.get(timeout=self._patience()))
                while True:  # whatever else has come, so that the places it frees are reserved in one write
                    self._hear(self.events.get_nowait())

    def _patience(self) -> float:
        """How long to wait for an event before looking again whether something is due."""
        due = [] if self.halted else [when - time.monotonic() for when, _, _ in self.later[:1]]
        return max(0.001, min([POLL_S, *due]))

    def _launch(self) -> bool:
        """Hand the first ready jobs to workers or settle them otherwise; False where money is waited for or gone."""
        jobs = list(islice(self.ready, self.width - len(self.flying)))
        # Here and not when the jobs are queued: another run may have bought an answer, or asked, in the meantime.
        free, known = self.cache.claim([job.hash for job in jobs], self.ledger.path)
        if free == 0 and known is not None:
            return self._known(jobs[0], known)
        enough = self._reserve(jobs[:free])
        self.cache.release([job.hash for job in jobs[:free] if job.hash not in self.flying])
        return enough

    def _reserve(self, jobs: Sequence[Job]) -> bool:
        queries = [worst_case(self.teacher, job.hash, job.request) for job in jobs]
        for job, found in zip(jobs, self.ledger.reserve_all(queries), strict=False):
            if isinstance(found, BudgetExhausted):
                return self._no_money(found)
            self.ready.popleft()
            if isinstance(found, AlreadyAnswered):
                self._from_ledger(job, found.answer)
            elif isinstance(found, InFlight):
                self._wait_for_other(job, str(found))
            else:
                self.retries += job.tries > 0
                job.tries += 1
                self.flying[job.hash] = found
                self.crew.send(job, found)
                self.outcome.asked += 1
        return True

    def _no_money(self, error: BudgetExhausted) -> bool:
        if not self.flying:  # an answer in flight may yet turn out cheaper than what is reserved for it
            self.outcome.stopped_by, self.outcome.message = error.cap, str(error)
        return False

    def _known(self, job: Job, known: Hit | InFlight) -> bool:
        """What the cache says of a job: another run has its answer, or is asking for it."""
        try:
            if isinstance(known, InFlight):
                raise known
            self._accept(job, self.ledger.adopt(known[0], job.request.item_id, known[1]))
            self.outcome.from_cache += 1
        except AlreadyAnswered as found:
            self._from_ledger(job, found.answer)
        except InFlight as elsewhere:
            self._wait_for_other(job, str(elsewhere))
        except BudgetExhausted as error:
            return self._no_money(error)
        self.ready.popleft()
        self._tell()
        return True

    def _hold(self) -> None:
        """Where nothing may be sent now, give back what was reserved ahead."""
        if self.halted or time.monotonic() < self.not_before:
            self._call_back()

    def _call_back(self) -> None:
        back = self.crew.call_back()
        self.cache.release([job.hash for job, _ in back])
        for job, _ in reversed(back):
            del self.flying[job.hash]
            job.tries -= 1
            self.retries -= job.tries > 0
            self.outcome.asked -= 1
            self.ready.appendleft(job)
        for _, reservation in back:  # once none of them is waited for any more: the disk may be full
            self.ledger.fail(reservation, "not sent", billed=False)

    def _wait_for_other(self, job: Job, who: str) -> None:
        now = time.monotonic()
        job.waiting_since = now if job.waiting_since is None else job.waiting_since
        if now - job.waiting_since > self.policy.elsewhere_s:
            self._end(job, TeacherError(f"{who}; it gave no answer in time", "in flight elsewhere", scope="item"))
        else:
            heapq.heappush(self.later, (now + POLL_S, id(job), job))

    def _hear(self, events: Sequence[Event] | None) -> None:
        if events is None:
            self.interrupted = True
        for event in events or ():  # all of them first: if one makes the run fail, none is waited for
            del self.flying[event.job.hash]
        for event in events or ():
            self._end_of(event)
        self._tell()

    def _end_of(self, event: Event) -> None:
        if isinstance(event.result, Answer):
            self._accept(event.job, event.result)
            self.failed_in_a_row = 0
        else:
            if isinstance(event.result, TeacherError):
                self._missed(event.job, event.result)
            else:
                self.crash = event.result
            self._hold()
            self.crew.go_on()

    def _missed(self, job: Job, error: TeacherError) -> None:
        """Retry, give up on the item, or stop."""
        policy, pause = self.policy, error.retry_after or 0.0
        if error.retryable and pause > policy.longest_pause_s:
            self._end(job, error)
            self._stop(f"the teacher asks to wait {until(pause)}; run the same command again after that")
        elif error.retryable and job.tries <= policy.retries:
            due = time.monotonic() + max(pause, policy.wait(job.tries))
            if pause:  # meant for all of us, not for this request alone
                if pause > policy.quiet_pause_s and due > self.not_before + 1:
                    announce(pause)
                self.not_before = max(self.not_before, due)
            heapq.heappush(self.later, (due, id(job), job))
        else:
            self._end(job, error)
            self.failed_in_a_row += error.scope != "item"
            if error.scope == "all":
                self._stop(str(error))
            elif self.failed_in_a_row >= policy.failures_in_a_row:
                self._stop(f"{self.failed_in_a_row} items in a row failed, the last one: {error}")

    def _stop(self, message: str) -> None:
        if self.outcome.stopped_by is None:
            self.outcome.stopped_by, self.outcome.message = "teacher", message

    def _drain(self) -> None:
        with suppress(UserError):  # a disk that is full: then it stays counted
            self._call_back()
        while self.flying:
            for event in self.events.get() or ():
                self.flying.pop(event.job.hash, None)

    def _give_up(self) -> None:
        """The second Ctrl-C: what is in flight stays counted; a thread that still gets its answer may settle it."""
        self._call_back()
        for reservation in self.flying.values():
            with suppress(ValueError):  # a worker was quicker
                self.ledger.fail(reservation, "interrupted", "given up by the user")

    def _tell(self, now: bool = False) -> None:
        if self.progress is not None and (now or time.monotonic() - self.told >= TELL_S):
            self.progress(Progress(self.done, self.failed, len(self.jobs), self.ledger.totals(), self.retries))
            self.told = time.monotonic()
