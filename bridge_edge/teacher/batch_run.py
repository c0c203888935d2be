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

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import islice

from bridge_edge.budget import Answer, BudgetExhausted, InFlight, Ledger, Query, Reservation
from bridge_edge.ledger_rows import good
from bridge_edge.teacher.base import Reply, Request, TeacherError
from bridge_edge.teacher.batch_api import BYTES, LINES, BatchTeacher, State
from bridge_edge.teacher.batch_record import FOLDER, Record, Records, from_row
from bridge_edge.teacher.batch_settle import OPEN, settle_lines
from bridge_edge.teacher.batch_steps import Patience, Steps
from bridge_edge.teacher.outcome import Failure, Outcome, Policy, Progress
from bridge_edge.teacher.prompt import sanitize

FINAL = {"filtered", "refused"}  # paid replies that asking again would only buy again
TOGETHER = 500  # reserved in one write


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
        self.steps = Steps(teacher, self.records, patience, say)
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
        for key, bought in self.ledger.replies([key for key in self.jobs if key not in self.answers]).items():
            last = bought[-1]
            if (answer := good(bought)) is not None:
                self.answers[key] = answer
            elif last.status in FINAL and key not in self.errors:
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
        lines = self._lines(wanted)
        room = True
        for start in range(0, len(lines), TOGETHER):
            room = room and self._hold(record, list(islice(lines, start, start + TOGETHER)))
        held = [lines[r.request_hash] for r in record.reservations()]
        if not held:
            self.records.save(record, "done")
            return None
        self.outcome.asked += len(held)
        self.records.write_input(record, held)
        self.records.save(record, "ready")
        return record

    def _lines(self, wanted: list[str]) -> dict[str, str]:
        """As many lines as fit into one file, by hash."""
        lines: dict[str, str] = {}
        size = 0
        for key in wanted:
            line = self.teacher.line(key, self.jobs[key][0]) + "\n"
            size += len(line)
            if len(lines) >= LINES or size > BYTES:
                break
            lines[key] = line
        return lines

    def _hold(self, record: Record, keys: list[str]) -> bool:
        """Reserve some requests in one write; False where a cap is reached."""
        asked = [self.jobs[key][0] for key in keys]
        bound = self.teacher.prompt_tokens
        queries = [Query(k, r.item_id, bound(r), r.max_tokens) for k, r in zip(keys, asked, strict=True)]
        for key, found in zip(keys, self.ledger.reserve_all(queries), strict=False):
            if isinstance(found, BudgetExhausted):
                self.outcome.stopped_by, self.outcome.message = found.cap, str(found)
                return False
            if isinstance(found, InFlight):
                self.errors[key] = TeacherError(str(found), "in flight elsewhere", scope="item")
            elif isinstance(found, Reservation):
                record.held.append(asdict(found))
                self.tries[key] += 1
        return True

    def _finish(self, record: Record) -> None:
        """Bring a batch from wherever it stands to its end."""
        if record.step in ("planned", "refused"):
            self._release(record, "not sent", "the batch was never submitted, or turned down")
            return
        try:
            self.steps.submit(record)
        except TeacherError as error:
            if record.step == "refused":
                self._release(record, error.status, str(error))
            raise
        self._settle(record, self.steps.wait(record, self._tell))

    def _release(self, record: Record, status: str, why: str) -> None:
        """Nothing was or will be executed: give the reservations back."""
        ours = set(record.hashes)
        for row in list(self.ledger.attempts()):
            if row["id"] > record.after and row["state"] in OPEN and row["request_hash"] in ours:
                self.ledger.fail(from_row(row), status, why, billed=False)
        self.records.save(record, "done")

    def _settle(self, record: Record, state: State) -> None:
        """Enter every line's result in the ledger and close the record."""
        rows = self.steps.results(state)
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
