"""What every teacher is: something that answers one request once, names its price, and says what went wrong.

A teacher never retries and never keeps accounts: one `ask` is one attempt, so that each attempt can be reserved in the
ledger before it is made. `ask.py` holds the loop that reserves, asks, settles and retries.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from bridge_edge.prices import Price, Usage

Message = dict[str, str]  # {"role": ..., "content": ...}
Billed = Literal["no", "unknown", "yes"]


@dataclass(frozen=True)
class Request:
    """One question to a teacher. `sample` tells several answers to one item apart; `temperature` None leaves the
    choice to the teacher."""

    item_id: str
    messages: tuple[Message, ...]
    max_tokens: int = 512
    temperature: float | None = None
    sample: int = 0

    @staticmethod
    def of(
        item_id: str,
        prompt: str | Sequence[Message],
        max_tokens: int = 512,
        temperature: float | None = None,
        sample: int = 0,
    ) -> Request:
        """A request from a plain prompt or from messages."""
        messages = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else tuple(prompt)
        return Request(item_id, messages, max_tokens, temperature, sample)


@dataclass(frozen=True)
class Reply:
    """An answer. Token counts are None where the teacher did not report them."""

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str = "stop"
    model: str = ""

    @property
    def usage(self) -> Usage | None:
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return Usage(self.prompt_tokens, self.completion_tokens)


class TeacherError(Exception):
    """One attempt gave no usable answer.

    `status` is a short word for the ledger; `billed` is "no" (surely not), "yes" (a useless reply, `reply` holds what
    came) or "unknown". `retryable` attempts may be made again after `retry_after` seconds. `scope` says whom the
    trouble concerns: this "item" alone (a content filter), the "teacher" (an overloaded server), or "all" requests to
    come (a wrong key, an empty account), which stops the run.
    """

    def __init__(
        self,
        message: str,
        status: str = "error",
        *,
        retryable: bool = False,
        billed: Billed = "unknown",
        retry_after: float | None = None,
        reply: Reply | None = None,
        scope: Literal["item", "teacher", "all"] = "teacher",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable
        self.billed = billed
        self.retry_after = retry_after
        self.reply = reply
        self.scope = scope


class Teacher(Protocol):
    """A metered source of answers; `ask` may be called from several threads at once."""

    name: str
    price: Price

    def count_tokens(self, text: str) -> int:
        """An upper bound on the tokens of `text`."""

    def prompt_tokens(self, request: Request) -> int:
        """An upper bound on the prompt tokens that this teacher bills for the request, its chat template included."""

    def request_hash(self, request: Request) -> str:
        """What makes two requests the same; covers all that shapes the answer and never the key."""

    def ask(self, request: Request) -> Reply:
        """One attempt; raises TeacherError."""


class FixedCost(Protocol):
    """A teacher whose answers have prices of their own, such as rationales that people were paid for."""

    def cost(self, request: Request) -> int | None:
        """What the answer costs in nano-dollars, or None: by its tokens and the teacher's price."""


def cost_of(teacher: Teacher | FixedCost, request: Request) -> int | None:
    """The cost of an answer where the teacher knows it beforehand; most do not."""
    known = getattr(teacher, "cost", None)
    return None if known is None else known(request)


def digest(kind: str, base_url: str, model: str, request: Request, extra: Mapping[str, Any] | None = None) -> str:
    """SHA-256 of the canonical JSON of a request; the item id is left out, so equal questions are asked once."""
    body = {
        "kind": kind,
        "base_url": base_url,
        "model": model,
        "messages": list(request.messages),
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "sample": request.sample,
        "extra": dict(extra or {}),
    }
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def quarter(text: str) -> int:
    """The estimate that the embedded and replayed teachers bill by: one token for four characters, rounded up."""
    return math.ceil(len(text) / 4)


def count_messages(request: Request, count: Callable[[str], int]) -> int:
    return sum(count(message["content"]) for message in request.messages)
