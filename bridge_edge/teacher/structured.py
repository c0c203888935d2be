"""JSON answers: the schema that an endpoint is asked to keep to, and the strict reading of what comes back.

A schema with the answers as an enumeration rules out most replies that could not be read, which are billed like the
others. Reading stays strict all the same: exactly the two fields, both texts, the answer among the choices. What was
read becomes the same rationale and answer as a plain reply, so nothing after this module knows the difference.

Not covered: endpoints that know "json_object" only; they are asked for plain text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from bridge_edge.data.card import ANSWER, Parsed, normal, parse
from bridge_edge.teacher.lengths import field_of, fields, join
from bridge_edge.teacher.prompt import sanitize

REFUSALS = ("response_format", "json_schema")  # what an error names where an endpoint cannot do it


def response_format(answers: Sequence[str], budgets: Iterable[int] = ()) -> dict[str, Any]:
    """The request field that asks for a rationale, the same at these budgets of tokens, and then one of `answers` (any
    text where there are none)."""
    answer: dict[str, Any] = {"type": "string", "description": "the answer alone"}
    if answers:
        answer["enum"] = list(answers)
    wanted = {
        "rationale": {"type": "string", "description": "the reasoning, without the answer line"},
        **fields(budgets),
        "answer": answer,
    }
    schema = {"type": "object", "properties": wanted, "required": list(wanted), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "explained_answer", "strict": True, "schema": schema}}


def is_refused(code: int, said: str) -> bool:
    """Whether an HTTP error says that the endpoint does not take the schema."""
    return code in (400, 422) and any(word in said for word in REFUSALS)


def read_reply(text: str, answers: tuple[str, ...], structured: bool, budgets: Iterable[int] = ()) -> Parsed:
    """Rationale and answer of a reply; `structured` says that JSON was asked for (plain text is still understood,
    for an endpoint may not have offered it). Rationales at `budgets` stand in the rationale as in a plain reply."""
    if not structured or not text.lstrip().startswith("{"):
        return parse(sanitize(text), answers)
    unread = Parsed(sanitize(text), None)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return unread
    if not isinstance(data, dict) or set(data) != {"rationale", "answer", *map(field_of, budgets)}:
        return unread
    if not all(isinstance(value, str) for value in data.values()):
        return unread
    # Escapes such as \u003c hide special tokens from a cleaning of the raw text, so the decoded texts are cleaned.
    rationale, given = sanitize(data["rationale"]), sanitize(data["answer"])
    answer = parse(f"{ANSWER} {given}", answers).answer if "\n" not in given else None
    head, marker, tail = rationale.rpartition(ANSWER)
    if marker and "\n" not in tail.strip():  # the line that plain replies end with
        if answer is not None and normal(tail) != normal(answer):
            return Parsed(rationale, None)  # two answers that differ are none
        rationale = head.strip()
    return Parsed(join(rationale, {b: sanitize(data[field_of(b)]) for b in budgets}), answer)
