"""Asking in batches within a budget: reserve all, submit once, wait, settle each, through any number of restarts.

Each batch has a record beside the ledger, `batches/<tag>.json`, written and flushed before the step that it names:

    planned    requests are being reserved in the ledger; nothing was sent
    ready      all reserved; the input file is on disk (`<tag>.jsonl`); an upload may exist, known by its file name
    uploaded   the service's id of the file is known
    creating   a batch may exist, known by its metadata and its input file; looked for before another is made
    refused    the service turned the batch down; the reservations are given back
    created    the id of the batch is known
    done       every line is settled, released or kept as possibly billed

A restart takes up each record that is not done. Since a batch may be listed with a delay, one that was perhaps created
is looked for over `grace_s` before another is created from the same file. What a batch leaves unbilled is put into
the next one, a few times at most. Ctrl-C leaves the batch to the service; the same command collects it.

Not covered: cancelling a batch (the provider's console does), batches of several runs for the same question at once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

from bridge_edge.budget import AlreadyAnswered, Answer, BudgetExhausted, InFlight, Ledger
from bridge_edge.teacher.base import Reply, Request, TeacherError
from bridge_edge.teacher.batch_api import BYTES, LINES, BatchTeacher, State, parse_lines
from bridge_edge.teacher.batch_record import FOLDER, Record, Records, from_row
from bridge_edge.teacher.batch_settle import OPEN, settle_lines
from bridge_edge.teacher.outcome import Failure, Outcome, Policy, Progress
from bridge_edge.teacher.prompt import sanitize

FINAL = {"filtered", "refused"}  # paid replies that asking again would only buy again
GONE = "http 404"  # a service keeps batches and files for some weeks
Got = TypeVar("Got")


@dataclass(frozen=True)
class Patience:
    """Seconds between two looks at a batch (growing by half), tries of one HTTP call, and the wait for a listing."""

    first_s: float = 2.0
    most_s: float = 60.0
    tries: int = 8
    grace_s: float = 30.0
    rounds: int = 3


def ask_in_batches(
    teacher: BatchTeacher,
    ledger: Ledger,
    requests: Sequence[Request],
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
    policy: Policy | None = None,
    patience: Patience | None = None,
) -> Outcome:
    """Ask every request that has no answer yet, within the ledger's caps; the batch counterpart of `ask_all`."""
    if ledger.price != teacher.price:
        raise ValueError(f"the ledger counts at {ledger.price}, the teacher {teacher.name} costs {teacher.price}")
    return _Batches(teacher, ledger, requests, progress, say, policy or Policy(), patience or Patience()).run()


class _Batches:
    def __init__(
        self,
        teacher: BatchTeacher,
        ledger: Ledger,
        requests: Sequence[Request],
        progress: Callable[[Progress], None] | None,
        say: Callable[[str], None],
        policy: Policy,
        patience: Patience,
    ) -> None:
        self.teacher, self.ledger, self.progress, self.say = teacher, ledger, progress, say
        self.policy, self.patience = policy, patience
        self.jobs: dict[str, list[Request]] = {}
        for request in requests:
            self.jobs.setdefault(teacher.request_hash(request), []).append(request)
        self.records = Records(ledger.path.parent / FOLDER)
        self.tries: Counter[str] = Counter()
        self.errors: dict[str, TeacherError] = {}
        self.answers: dict[str, Answer] = {}
        self.outcome = Outcome()

    def run(self) -> Outcome:
        try:
            for record in self.records.unfinished():
                self.say(f"  taking up batch {record.batch_id or record.tag} ({record.step})")
                self._finish(record)
            self._recall()
            self.outcome.from_ledger = len(self.answers)
            while (wanted := self._wanted()) and (batch := self._reserve(wanted)) is not None:
                self._finish(batch)
                self._recall()
        except TeacherError as error:
            self._stop(str(error))
        return self._collect()

    def _recall(self) -> None:
        """Take what the ledger holds."""
        for key in self.jobs:
            if key in self.answers:
                continue
            if (answer := self.ledger.answer_for(key)) is not None:
                self.answers[key] = answer
                continue
            last = self.ledger.last_reply(key)
            if last is not None and last.status in FINAL and key not in self.errors:
                message = f"item {last.item_id!r}: {last.status} reply, bought before and not asked for again"
                self.errors[key] = TeacherError(message, last.status, scope="item")
        self._tell()

    def _wanted(self) -> list[str]:
        """What may go into the next batch: neither answered nor failed for good."""

        def open_to(key: str) -> bool:
            failed = self.errors.get(key)
            return failed is None or (failed.retryable and self.tries[key] < self.patience.rounds)

        return [key for key in self.jobs if key not in self.answers and open_to(key)]

    def _reserve(self, wanted: list[str]) -> Record | None:
        """Reserve the worst case of as many requests as fit into the caps and one file; None where none does."""
        record = self.records.new(wanted, max((row["id"] for row in self.ledger.attempts()), default=0))
        self.outcome.stopped_by, self.outcome.message = None, ""
        lines: list[str] = []
        size = 0
        for key in wanted:
            request = self.jobs[key][0]
            line = self.teacher.line(key, request) + "\n"
            if len(lines) >= LINES or size + len(line) > BYTES:
                break
            try:
                bound = self.teacher.prompt_tokens(request)
                held = self.ledger.reserve(key, request.item_id, bound, request.max_tokens)
            except BudgetExhausted as error:
                self.outcome.stopped_by, self.outcome.message = error.cap, str(error)
                break
            except AlreadyAnswered:
                continue
            except InFlight as error:
                self.errors[key] = TeacherError(str(error), "in flight elsewhere", scope="item")
                continue
            record.held.append(asdict(held))
            self.tries[key] += 1
            lines.append(line)
            size += len(line)
        if not lines:
            self.records.save(record, "done")
            return None
        self.outcome.asked += len(lines)
        self.records.write_input(record, lines)
        self.records.save(record, "ready")
        return record

    def _finish(self, record: Record) -> None:
        """Bring a batch from wherever it stands to its end."""
        if record.step in ("planned", "refused"):
            self._release(record, "not sent", "the batch was never submitted, or turned down")
            return
        if record.step == "ready":
            self._upload(record)
        if record.step in ("uploaded", "creating"):
            self._create(record)
        state = self._wait(record)
        self._settle(record, state)

    def _release(self, record: Record, status: str, why: str) -> None:
        """Nothing was or will be executed: give the reservations back."""
        ours = set(record.hashes)
        for row in list(self.ledger.attempts()):
            if row["id"] > record.after and row["state"] in OPEN and row["request_hash"] in ours:
                self.ledger.fail(from_row(row), status, why, billed=False)
        self.records.save(record, "done")

    def _upload(self, record: Record) -> None:
        name = record.file_name
        found = self._patiently(lambda: self.teacher.find_upload(name)) if record.tried_at else None
        if found is None:
            record.tried_at = time.time()
            self.records.save(record, "ready")
            content = self.records.input(record).read_bytes()
            found = self._patiently(lambda: self.teacher.upload(name, content))
        record.file_id, record.tried_at = found, 0.0
        self.records.save(record, "uploaded")

    def _create(self, record: Record) -> None:
        """Create the batch, at most once: after an attempt whose end is unknown, first look for what it left."""
        found: str | None = None
        for number in range(self.patience.tries):
            if record.step == "creating":
                found = self._look_for(record)
            if found is None:
                found = self._try_to_create(record, last=number + 1 == self.patience.tries)
            if found is not None:
                break
            time.sleep(min(self.patience.most_s, self.patience.first_s * 2.0**number))
        record.batch_id = found or ""
        self.records.save(record, "created")
        count = len(record.held)
        self.say(f"  batch {found}: {count} requests submitted; Ctrl-C leaves it running, the same command collects it")

    def _try_to_create(self, record: Record, last: bool) -> str | None:
        record.tried_at = time.time()
        self.records.save(record, "creating")
        try:
            return self.teacher.create(record.file_id, record.tag)
        except TeacherError as error:
            if error.billed == "no":  # refused, so there is none; for good, or for the moment
                self.records.save(record, "uploaded" if error.retryable else "refused")
            if record.step == "refused":
                self._release(record, error.status, str(error))
            if last or not error.retryable:
                raise
            self._pause(error, 0)
        return None

    def _look_for(self, record: Record) -> str | None:
        while True:
            found = self._patiently(lambda: self.teacher.find_batch(record.file_id, record.tag))
            left = record.tried_at + self.patience.grace_s - time.time()
            if found or left <= 0:
                return found
            time.sleep(min(left, self.patience.first_s))

    def _wait(self, record: Record) -> State:
        pause, shown = self.patience.first_s, ""
        while True:
            try:
                state = self._patiently(lambda: self.teacher.look(record.batch_id))
            except TeacherError as error:
                if error.status != GONE:
                    raise
                self.say(f"  note: {error}; what it held stays counted as paid")
                return State(record.batch_id, "gone")
            if state.over:
                return state
            text = f"  batch {state.id}: {state.status}, {state.done} of {state.total or len(record.held)} done"
            if text != shown:
                self.say(text)
            shown = text
            self._tell()
            time.sleep(pause)
            pause = min(self.patience.most_s, 1.5 * pause)

    def _settle(self, record: Record, state: State) -> None:
        """Enter every line's result in the ledger and close the record."""
        rows = self._lines(state)
        for key, result in settle_lines(self.teacher, self.ledger, record, state, rows):
            if isinstance(result, TeacherError):
                self.errors[key] = result
            else:
                self.answers[key] = result
            self._tell()
        record.status = state.status
        self.records.save(record, "done")
        if state.status == "failed":  # its input was found wrong, or a limit is reached: another try ends alike
            raise TeacherError(f"batch {state.id} failed: {state.problem or 'no reason given'}", "batch failed")

    def _lines(self, state: State) -> dict[str, dict[str, Any]]:
        """The lines of the output file and then of the error file, by custom_id; the first one of each counts."""
        rows: dict[str, dict[str, Any]] = {}
        for file_id in state.files:
            try:
                text = self._patiently(partial(self.teacher.download, file_id))
            except TeacherError as error:
                if error.status != GONE:
                    raise
                self.say(f"  note: {error}; what it held stays counted as paid")
                continue
            for row in parse_lines(text):
                rows.setdefault(str(row.get("custom_id")), row)
        return rows

    def _patiently(self, call: Callable[[], Got]) -> Got:
        """A call that may be repeated without cost, until it succeeds or the patience ends."""
        for number in range(self.patience.tries):
            try:
                return call()
            except TeacherError as error:
                if not error.retryable or number + 1 == self.patience.tries:
                    raise
                self._pause(error, number)
        raise AssertionError("unreachable: the last try returns or raises")

    def _pause(self, error: TeacherError, number: int) -> None:
        wait = max(error.retry_after or 0.0, min(self.patience.most_s, self.patience.first_s * 2.0**number))
        if wait > max(self.policy.longest_pause_s, self.patience.most_s):
            raise TeacherError(f"the service asks to wait {wait:.0f} s; run the same command again after that")
        time.sleep(wait)

    def _stop(self, message: str) -> None:
        self.outcome.stopped_by, self.outcome.message = "teacher", message

    def _tell(self) -> None:
        if self.progress is not None:
            failed = len(set(self.errors) - set(self.answers))
            self.progress(Progress(len(self.answers), failed, len(self.jobs), self.ledger.totals()))

    def _collect(self) -> Outcome:
        self._recall()
        for key, requests in self.jobs.items():
            answer, error = self.answers.get(key), self.errors.get(key)
            for request in requests:
                if answer is not None:
                    used = (answer.prompt_tokens, answer.completion_tokens)
                    text = sanitize(answer.text, self.policy.max_chars)
                    reply = Reply(text, *used, answer.finish_reason, answer.model)
                    self.outcome.replies.setdefault(request.item_id, []).append(reply)
                elif error is not None:
                    failure = Failure(request.item_id, request.sample, error.status, str(error))
                    self.outcome.failures.append(failure)
                else:
                    self.outcome.left += 1
        return self.outcome
