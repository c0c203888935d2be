"""Recorded or human-written answers as a teacher: a JSON Lines file, one record a line.

    {"id": "..." or "prompt": "...", "rationale": "...", "answer": "..."}      or
    {"id": "..." or "prompt": "...", "text": "...\\nAnswer: X"}

Optional: `prompt_tokens` and `completion_tokens`, the counts of the recording (estimated otherwise), and `usd`, what
the answer cost: it counts against the budget as it stands, since people are not paid by the token. Without it the price
per token holds. Several records of one item are its samples, in the order of the file. A record's text is part of the
request hash, so an edited file is read anew while the rest still comes from the ledger. Other keys are not used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import ROUND_CEILING
from pathlib import Path
from typing import Any

from bridge_edge.data.card import completion
from bridge_edge.data.samples import prompt_id
from bridge_edge.errors import UserError
from bridge_edge.prices import NANO, Price, dollars
from bridge_edge.teacher.base import Reply, Request, TeacherError, count_messages, digest, quarter


@dataclass(frozen=True)
class Record:
    """An answer of the file; `nano` is what it cost, where the file says so."""

    reply: Reply
    nano: int | None = None


class ReplayTeacher:
    """Answers by item id from a file."""

    def __init__(self, path: Path | str, price: Price | None = None) -> None:
        self.path = Path(path)
        self.price = price or Price()
        self.name = f"replay:{self.path.name}"
        self._records = _load(self.path)
        self.records = {item: [record.reply for record in found] for item, found in self._records.items()}

    def count_tokens(self, text: str) -> int:
        return quarter(text)

    def prompt_tokens(self, request: Request) -> int:
        record = self._find(request)
        recorded = record.prompt_tokens if record else None
        return count_messages(request, quarter) if recorded is None else recorded

    def cost(self, request: Request) -> int | None:
        """What the record says that its answer cost."""
        samples = self._records.get(request.item_id, [])
        return samples[request.sample].nano if 0 <= request.sample < len(samples) else None

    def request_hash(self, request: Request) -> str:
        record = self._find(request)
        extra = {"item": request.item_id, "text": None if record is None else record.text}
        return digest("replay", "", self.name, request, extra)

    def ask(self, request: Request) -> Reply:
        record = self._find(request)
        if record is None:
            count = len(self.records.get(request.item_id, ()))
            message = (
                f"{self.path.name} has {count} answers for item {request.item_id!r}, number {request.sample} asked"
            )
            raise TeacherError(message, "not recorded", billed="no", scope="item")
        if (record.completion_tokens or 0) > request.max_tokens:  # a cap counted on max_tokens at most
            message = f"the answer to item {request.item_id!r} has {record.completion_tokens} tokens"
            message += f", more than teacher.max_tokens={request.max_tokens}"
            raise TeacherError(message, "too long", billed="no", scope="item")
        return Reply(record.text, self.prompt_tokens(request), record.completion_tokens, "stop", self.name)

    def _find(self, request: Request) -> Reply | None:
        records = self.records.get(request.item_id, [])
        return records[request.sample] if 0 <= request.sample < len(records) else None


def _load(path: Path) -> dict[str, list[Record]]:
    """Records by item id; UserError naming the line of the first bad one."""
    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r} to replay", "set teacher.path to a JSON Lines file")
    records: dict[str, list[Record]] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line.strip():
            try:
                item, record = _record(json.loads(line.decode("utf-8-sig")))
            except (ValueError, UserError) as error:
                raise UserError(f"{path.name}, line {number}: {_said(error)}", _FORM) from None
            records.setdefault(item, []).append(record)
    if not records:
        raise UserError(f"{path.name} holds no records", _FORM)
    return records


def _said(error: Exception) -> str:
    """What is wrong with a line, without the places that Python's decoders count within it alone."""
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return f"no JSON ({error.msg} at column {error.colno})" if isinstance(error, json.JSONDecodeError) else str(error)


_FORM = 'a record needs "id" or "prompt", and "answer" (with "rationale") or "text"'


def _record(row: Any) -> tuple[str, Record]:
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    for key in ("id", "prompt", "rationale", "answer", "text"):
        if row.get(key) is not None and not isinstance(row[key], str):
            raise ValueError(f"{key!r} is {row[key]!r}, not a string")
    for key in ("prompt_tokens", "completion_tokens"):
        value = row.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise ValueError(f"{key!r} is {value!r}, not a count")
    item = row.get("id") or (prompt_id(row["prompt"]) if row.get("prompt") else None)
    text = row.get("text") or (completion(row.get("rationale"), row["answer"]) if row.get("answer") else None)
    if item is None or not text:
        raise ValueError("it lacks " + ("an id or a prompt" if item is None else "an answer or a text"))
    count = row.get("completion_tokens")
    reply = Reply(text, row.get("prompt_tokens"), quarter(text) if count is None else count)
    if row.get("usd") is None:
        return item, Record(reply)
    return item, Record(reply, int((dollars(row["usd"], "'usd'") * NANO).to_integral_value(ROUND_CEILING)))
