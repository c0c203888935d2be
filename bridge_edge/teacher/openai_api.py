"""Any OpenAI-compatible endpoint as a teacher, through the official client: one `ask` is one HTTP request.

The client's own retries are off, since each attempt must be reserved first, and so are redirects: a key and a bill stay
with the address the user gave. The reply is read here and not by the client, so that a page of HTML with status 200, a
broken body or nonsense usage is a recorded failure of one item and not a crash. The key comes from the environment
variable that the recipe names (`keys.py`) and is cut out of every text of the server before that is stored or shown.

Tokens of a prompt are bounded by its UTF-8 bytes (no byte-level tokenizer makes more) plus an allowance for the chat
template, unless a tokenizer's count is given, which lets more queries fit near the end of a budget.

Not covered: streaming, tools, images; a server that sends its reply drop by drop (the timeout is between two pieces).
"""

from __future__ import annotations

import email.utils
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from bridge_edge.errors import UserError
from bridge_edge.prices import Price
from bridge_edge.teacher.base import Billed, Reply, Request, TeacherError, count_messages, digest
from bridge_edge.teacher.keys import take_key
from bridge_edge.teacher.prompt import sanitize
from bridge_edge.teacher.structured import is_refused, response_format

TEMPLATE_TOKENS = 128  # a default system prompt that some servers add
MESSAGE_TOKENS = 16  # role names and separators
STORED_CHARS = 1_000_000
RETRIED = {408, 409, 429}
NEVER_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError"}
OUT_OF_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
# What the client would tell every server about this machine, and its libraries' logs of whatever headers come back.
UNSAID = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
LOGS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")
FILTERED = {"content_filter", "content_policy_violation"}
CONTROLLED = {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "n", "stream"}


@dataclass(frozen=True)
class Endpoint:
    """Where and what to ask. `key_env` names the variable that holds the key, empty where none is needed; `extra` goes
    into the request body as it is (for instance `reasoning_effort`); `structured` asks for JSON with one of `answers`,
    "auto" only until the endpoint says that it cannot."""

    model: str
    base_url: str = "https://api.openai.com/v1"
    key_env: str = "OPENAI_API_KEY"
    timeout_s: float = 120.0
    token_field: str = ""  # "max_tokens" or "max_completion_tokens"; empty: by the host
    extra: Mapping[str, Any] = field(default_factory=dict)
    structured: Literal["auto", "json_schema", "off"] = "off"
    answers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise UserError(f"teacher.base_url is {self.base_url!r}", "give an address such as https://host/v1")
        if url.username or url.password or url.query or url.fragment:  # not shown: it may hold a secret
            raise UserError(
                "teacher.base_url holds a user, a password or a query",
                "put the key in the variable named by teacher.api_key_env",
            )
        if taken := sorted(CONTROLLED & set(self.extra)):
            raise UserError(f"teacher.extra sets {taken[0]!r}", "the budget depends on it; set it by its own field")
        if "response_format" in self.extra and self.structured != "off":
            raise UserError("teacher.extra sets 'response_format'", "set teacher.structured=off to use your own")

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).netloc

    @property
    def limit_field(self) -> str:
        openai = urlsplit(self.base_url).hostname == "api.openai.com"
        return self.token_field or ("max_completion_tokens" if openai else "max_tokens")


def utf8_bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


class OpenAITeacher:
    """A chat model behind an OpenAI-compatible API."""

    def __init__(self, endpoint: Endpoint, price: Price, count: Callable[[str], int] = utf8_bytes) -> None:
        import openai  # here: it takes a second, and an embedded run never needs it

        self.endpoint = endpoint
        self.price = price
        self.name = f"{endpoint.model} at {endpoint.host}"
        self.fell_back = ""  # why JSON is no longer asked for, if it was
        self._count = count
        self._format = None if endpoint.structured == "off" else response_format(endpoint.answers)
        self._key = take_key(endpoint.key_env)
        self._openai = openai
        silent: dict[str, Any] = {f"X-Stainless-{name}": openai.Omit() for name in UNSAID}
        self._client = openai.OpenAI(
            api_key=self._key or "none",
            base_url=endpoint.base_url,
            max_retries=0,
            default_headers=silent,
            http_client=openai.DefaultHttpxClient(timeout=endpoint.timeout_s, follow_redirects=False),
        )
        self._chat = f"{self._client.base_url}chat/completions"
        for name in LOGS:  # a server may send the key back in a header
            logging.getLogger(name).setLevel(logging.WARNING)
        if endpoint.limit_field != "max_completion_tokens":  # another company's server need not know the user's account
            self._client.organization = self._client.project = None

    def close(self) -> None:
        self._client.close()

    def count_tokens(self, text: str) -> int:
        return self._count(text)

    def prompt_tokens(self, request: Request) -> int:
        return count_messages(request, self._count) + MESSAGE_TOKENS * len(request.messages) + TEMPLATE_TOKENS

    def request_hash(self, request: Request) -> str:
        e = self.endpoint
        # The same whether the endpoint took the schema or not: a fallback must not make an old answer a new question.
        asked = {"response_format": self._format} if self._format else {}
        return digest("openai", e.base_url.rstrip("/"), e.model, request, {**e.extra, **asked})

    def body(self, request: Request) -> dict[str, Any]:
        """The fields of one chat completion request."""
        e = self.endpoint
        body: dict[str, Any] = {"model": e.model, "messages": list(request.messages), e.limit_field: request.max_tokens}
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if self._format and not self.fell_back:
            body["response_format"] = self._format
        return {**body, **e.extra}

    def ask(self, request: Request) -> Reply:
        body = self.body(request)
        # Through the client's own `post` and not `chat.completions.create`: the body is made here and the reply is read
        # here, and walking through both by the client's type hints costs a third of the processor time of a call.
        raw = self.call(
            lambda: self._client.post(self._chat, cast_to=bytes, body=body),
            f"item {request.item_id!r}",
            "response_format" in body,
        )
        return self.read(bytes(raw).decode("utf-8", "replace"), request)

    def call(self, send: Callable[[], Any], what: str, structured: bool = False) -> Any:
        """What one HTTP request through the client returns; its failure as a TeacherError that names `what`."""
        error: TeacherError
        try:
            return send()
        except self._openai.APIStatusError as e:
            error = self.status_error(e.response, e.body, what, structured)
        except self._openai.APIConnectionError as e:
            error = self._connection_error(e, what)
        except self._openai.OpenAIError as e:
            error = TeacherError(f"{what}: {type(e).__name__} from {self.endpoint.host}", "client error")
        except ValueError:  # a body that the client tried to read and could not
            error = TeacherError(f"{what}: unreadable reply from {self.endpoint.host}", "malformed", retryable=True)
        raise error from None  # the cause holds the request with its headers

    def _clean(self, text: str, most: int) -> str:
        """What the server sent, without the key and cut; tokenizer tokens are left for `sanitize` to remove later."""
        return (text.replace(self._key, "[key]") if self._key else text)[:most]

    def _connection_error(self, error: Exception, asked: str) -> TeacherError:
        cause = type(error.__cause__).__name__
        timeout = isinstance(error, self._openai.APITimeoutError)
        what = f"no answer within {self.endpoint.timeout_s:g} s" if timeout else f"the connection failed ({cause})"
        message = f"{asked}: {what} at {self.endpoint.host}"
        billed: Billed = "no" if cause in NEVER_SENT else "unknown"
        return TeacherError(message, "timeout" if timeout else "connection", retryable=True, billed=billed)

    def status_error(self, response: Any, body: object, asked: str, structured: bool = False) -> TeacherError:
        """The error behind an HTTP status; where a schema was sent and not taken, the next request goes without."""
        code = int(response.status_code)
        detail = body.get("error", body) if isinstance(body, dict) else body
        if not isinstance(detail, dict):
            detail = {"message": detail}
        said = sanitize(self._clean(str(detail.get("message") or ""), 2000), 300)
        status, scope, billed = _judge(code, str(detail.get("code") or detail.get("type") or ""), said)
        if structured and is_refused(code, json.dumps(body, default=str)):
            return self._without_schema(code, said, asked)
        should = response.headers.get("x-should-retry", "")
        retryable = should == "true" or ((code in RETRIED or code >= 500) and should != "false")
        message = f"{asked}: HTTP {code} ({status}) from {self.endpoint.host}: {said or 'no message'}"
        if code == 401:
            message += f"; check the key in the environment variable {self.endpoint.key_env or '(none named)'}"
        return TeacherError(
            message,
            status,
            retryable=retryable and scope == "teacher",
            billed=billed,
            retry_after=retry_after(response.headers),
            scope=scope,
        )

    def _without_schema(self, code: int, said: str, asked: str) -> TeacherError:
        message = f"{asked}: HTTP {code} from {self.endpoint.host}: it does not take response_format: {said}"
        if self.endpoint.structured == "json_schema":
            message += "; set teacher.structured=auto or off"
            return TeacherError(message, "no structured output", billed="no", scope="all")
        self.fell_back = self.fell_back or said or f"HTTP {code}"
        return TeacherError(message, "no structured output", billed="no", retryable=True, scope="item")

    def read(self, body: str, request: Request) -> Reply:
        """The reply in the body of a 200; raises TeacherError(billed="yes") where there is no use in it."""
        try:
            data = json.loads(body)
            choice = data["choices"][0]
            message = choice["message"]
            text, refusal = _text(message.get("content")), message.get("refusal")
            reason = str(choice.get("finish_reason") or "stop")
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            kept = Reply(self._clean(body, STORED_CHARS), None, None, "malformed", self.endpoint.model)
            message = f"item {request.item_id!r}: the reply of {self.endpoint.host} is not a chat completion"
            raise TeacherError(message, "malformed", billed="yes", reply=kept) from None
        usage = data.get("usage") if isinstance(data.get("usage"), dict) else {}
        counts = (_whole(usage.get("prompt_tokens")), _whole(usage.get("completion_tokens")))
        model = str(data.get("model") or self.endpoint.model)[:200]
        reply = Reply(self._clean(text or _text(refusal), STORED_CHARS), *counts, self._clean(reason, 40), model)
        status = "filtered" if reason == "content_filter" else "refused" if refusal and not text else ""
        if status or not text.strip():
            message = f"item {request.item_id!r}: {status or 'empty'} reply from {self.endpoint.host}"
            raise TeacherError(message, status or "empty", billed="yes", reply=reply, scope="item")
        return reply


def _judge(code: int, kind: str, said: str) -> tuple[str, Literal["item", "teacher", "all"], Billed]:
    """Status word, scope and billing of an HTTP error. A 4xx was turned away before any work was done, with two
    exceptions; behind a 5xx the work may have been done and its result lost."""
    if kind in FILTERED:
        return "filtered", "item", "unknown"  # some providers charge for the prompt that they filtered
    if kind == "context_length_exceeded" or "context length" in said.lower() or code == 413:
        return "context overflow", "item", "no"
    if code in (401, 402) or kind in OUT_OF_MONEY:
        return ("not authorised" if code == 401 else "out of credit"), "all", "no"
    return f"http {code}", "teacher", "unknown" if code == 408 or code >= 500 else "no"


def _text(content: Any) -> str:
    """Message content: a string, nothing, or a list of parts with text."""
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `retry-after-ms`, or `retry-after` in seconds or as an HTTP date; None where none is fit."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            wait = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if not math.isnan(wait) and wait >= 0:
            return wait
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, date.timestamp() - time.time())
    except (TypeError, ValueError, OverflowError, OSError):
        return None
