"""What goes over the wire: bodies as clients of OpenAI's API send them, replies and chunks as they expect them.

Beyond the API: `reasoning_budget` bounds the tokens of reasoning, and a reply's `bridge_edge` holds the parsed answer
and rationale. Decoding is greedy, so `temperature`, `top_p`, `seed` and penalties are taken and change nothing; what
would change the shape of a reply (`n`, `logprobs`, `tools`, JSON formats) is refused. Not covered: conversations and
system messages, for which students are not trained: one user message a request.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from bridge_edge.errors import UserError
from bridge_edge.student import Bounds, Reply, Student, Writing

Count = Annotated[int, Field(ge=1, le=1 << 20)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
Nothing = Annotated[list[Any], Field(max_length=0)] | None
INVALID, CONTEXT, BUSY = "invalid_request_error", "context_length_exceeded", "rate_limit_exceeded"


class Part(BaseModel):
    """A piece of a message; students read text alone."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """The one message of a request."""

    role: Literal["user"]
    content: str | list[Part]

    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    """`include_usage` asks for the token counts behind a stream."""

    include_usage: bool = False


class Plain(BaseModel):
    """Of the response formats the one that there is."""

    type: Literal["text"]


class Body(BaseModel):
    """What both routes share."""

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    reasoning_budget: Count | None = None
    n: Literal[1] | None = None

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def usage_wanted(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatBody(Body):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: Literal[False] | None = None
    tools: Nothing = None
    functions: Nothing = None
    response_format: Plain | None = None

    def writing(self, student: Student) -> Writing:
        most = self.max_completion_tokens or self.max_tokens
        return student.write(self.messages[0].text(), self.reasoning_budget, most)


class CompletionBody(Body):
    """POST /v1/completions: the prompt as it stands, without the chat template and the card's frame."""

    prompt: Annotated[str, Field(min_length=1)]
    logprobs: None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None

    def writing(self, student: Student) -> Writing:
        bounds = Bounds(self.max_tokens, self.reasoning_budget)
        return Writing(student.runtime, student.runtime.encode(self.prompt), bounds)


def read(kind: type[ChatBody] | type[CompletionBody], raw: bytes) -> ChatBody | CompletionBody:
    """The body of a request; a UserError names the first thing that is wrong with it."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        hint = "students answer one user message, without a system message" if place.startswith("messages") else ""
        raise UserError(f"{place}: {first['msg']}", hint) from None


def until(pieces: Iterable[str], stops: list[str]) -> Iterator[str]:
    """The pieces up to the first stop text; what may yet become one is held back."""
    held = ""
    for piece in pieces:
        held += piece
        at = min((place for stop in stops if (place := held.find(stop)) >= 0), default=None)
        if at is not None:
            yield held[:at]
            return
        kept = max((k for stop in stops for k in range(1, len(stop)) if held.endswith(stop[:k])), default=0)
        ready, held = held[: len(held) - kept], held[len(held) - kept :]
        yield ready
    yield held


def error(message: str, code: str = INVALID) -> dict[str, Any]:
    """An error as the API words it."""
    return {"error": {"message": message, "type": INVALID, "param": None, "code": code}}


@dataclass
class Answer:
    """The objects that tell of one reply, whole or in chunks."""

    chat: bool
    model: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, reply: Reply) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish(reply)}
        return {**self._head(False), "choices": [choice], "usage": usage(reply), "bridge_edge": more(reply)}

    def piece(self, text: str | None = None, first: bool = False, reply: Reply | None = None) -> bytes:
        """A chunk with text, or the last one with the reason why it ended."""
        delta = {**({"role": "assistant"} if first else {}), **({} if text is None else {"content": text})}
        said = {"delta": delta} if self.chat else {"text": text or ""}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish(reply) if reply else None}
        return event({**self._head(True), "choices": [choice], **({"bridge_edge": more(reply)} if reply else {})})

    def usage(self, reply: Reply) -> bytes:
        return event({**self._head(True), "choices": [], "usage": usage(reply)})

    def _head(self, chunk: bool) -> dict[str, Any]:
        kind = f"chat.completion{'.chunk' if chunk else ''}" if self.chat else "text_completion"
        prefix = "chatcmpl" if self.chat else "cmpl"
        return {"id": f"{prefix}-{self.id}", "object": kind, "created": self.created, "model": self.model}


def finish(reply: Reply) -> str:
    return "stop" if reply.complete else "length"


def usage(reply: Reply) -> dict[str, Any]:
    told = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.tokens}
    thought = {} if reply.thought is None else {"completion_tokens_details": {"reasoning_tokens": reply.thought}}
    return {**told, "total_tokens": reply.prompt_tokens + reply.tokens, **thought}


def more(reply: Reply) -> dict[str, Any]:
    """What the API has no field for."""
    names = ("answer", "rationale", "thought", "closed", "ttft_s", "seconds")
    return {name: getattr(reply, name) for name in names}


def event(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()
