"""Entering the results of a batch in the ledger, line by line.

Nothing is lost by a kill in between: the files stay at the service, and a restart reads them again and skips what is
settled. A line that is missing from the files of a batch stays counted as possibly billed, unless the batch failed its
validation, after which nothing of it is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bridge_edge.budget import Answer, Ledger
from bridge_edge.teacher.attempt import attempt
from bridge_edge.teacher.base import Billed, Reply, Request, TeacherError
from bridge_edge.teacher.batch_api import BatchTeacher, State
from bridge_edge.teacher.batch_record import Record

OPEN = {"reserved", "unknown"}

Rows = Mapping[str, dict[str, Any]]


class _Known:
    """A result that is already here, as a teacher: so a line of a batch is entered in the ledger as a call is."""

    def __init__(self, teacher: BatchTeacher, result: Callable[[Request], Reply]) -> None:
        self.name, self.price, self._result = teacher.name, teacher.price, result
        self.count_tokens, self.prompt_tokens = teacher.count_tokens, teacher.prompt_tokens
        self.request_hash = teacher.request_hash

    def ask(self, request: Request) -> Reply:
        return self._result(request)


def settle_lines(
    teacher: BatchTeacher, ledger: Ledger, record: Record, state: State, rows: Rows
) -> Iterator[tuple[str, Answer | TeacherError]]:
    """Settle each open reservation of `record` by its line in `rows` (by custom_id); yields what came of it."""
    is_open = {row["id"] for row in ledger.attempts() if row["state"] in OPEN}
    for held in record.reservations():
        if held.id not in is_open:
            continue
        row = rows.get(held.request_hash)

        def result(request: Request, row: dict[str, Any] | None = row) -> Reply:
            if row is not None:
                return teacher.result(row, request.item_id)
            message = f"item {request.item_id!r}: no line in the files of batch {state.id} ({state.status})"
            billed: Billed = "no" if state.status == "failed" else "unknown"
            raise TeacherError(message, "missing", billed=billed, scope="item")

        request = Request.of(held.item_id, "", held.completion_tokens)
        yield held.request_hash, attempt(_Known(teacher, result), ledger, request, held)
