"""The steps of one batch at the service: upload, create, wait, download; each is taken once, through any restart.

A step that costs nothing is repeated until it succeeds or the patience ends. The one that costs money, the creation,
is not: after an attempt whose end is unknown, the batch that it may have left is looked for first, and for a while,
since a new batch may be listed with a delay. Nothing here knows of the ledger; `batch_run.py` has the whole order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from bridge_edge.teacher.base import TeacherError
from bridge_edge.teacher.batch_api import BatchTeacher, State, parse_lines
from bridge_edge.teacher.batch_record import Record, Records
from bridge_edge.teacher.outcome import Policy, announce, until

POLICY = Policy()
GONE = "http 404"  # a service keeps batches and files for some weeks
Got = TypeVar("Got")


@dataclass(frozen=True)
class Patience:
    """Seconds between two looks at a batch (growing by half), tries of one HTTP call, the wait for a listing, and how
    often a request is put into a batch."""

    first_s: float = 2.0
    most_s: float = 60.0
    tries: int = 8
    grace_s: float = 30.0
    rounds: int = 3

    def wait(self, number: int) -> float:
        return min(self.most_s, self.first_s * 2.0**number)


class Steps:
    """Brings a batch from wherever its record stands to its results."""

    def __init__(self, teacher: BatchTeacher, records: Records, patience: Patience, say: Callable[[str], None]) -> None:
        self.teacher, self.records, self.patience, self.say = teacher, records, patience, say

    def submit(self, record: Record) -> None:
        """Upload the input file and create the batch, whichever is not done yet.

        Raises TeacherError; the record's step is then "refused" where the service turned the batch down for good.
        """
        if record.step == "ready":
            self._upload(record)
        if record.step in ("uploaded", "creating"):
            self._create(record)

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
            time.sleep(self.patience.wait(number))
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

    def wait(self, record: Record, tell: Callable[[], None]) -> State:
        """The last state of the batch; `tell` is called after every look before that."""
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
            tell()
            time.sleep(pause)
            pause = min(self.patience.most_s, 1.5 * pause)

    def results(self, state: State) -> dict[str, dict[str, Any]]:
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
        pause = error.retry_after or 0.0
        if pause > POLICY.longest_pause_s:
            raise TeacherError(f"the service asks to wait {until(pause)}; run the same command again after that")
        if pause > POLICY.quiet_pause_s:
            announce(pause)
        time.sleep(max(pause, self.patience.wait(number)))
