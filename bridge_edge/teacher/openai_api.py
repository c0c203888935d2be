"""Any OpenAI-compatible endpoint as a teacher, through the official client: one `ask` is one HTTP request.

The client's own retries are off, since each attempt must be reserved first, and so are redirects: a key and a bill stay
with the address the user gave. The reply is read here and not by the client, so that a page of HTML with status 200, a
broken body or nonsense usage is a recorded failure of one item and not a crash. The key comes from the environment
variable that the recipe names (`keys.py`) and is cut out of every text of the server before that is stored or shown.

Tokens of a prompt are bounded by its UTF-8 bytes (no byte-level tokenizer makes more) plus an allowance for the chat
template, unless a tokenizer's count is given, which lets more queries fit near the end of a budget.

Not covered: streaming, tools, images. How the bytes go over the wire, and what bounds them, is in `wire.py`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from bridge_edge.errors import UserError
from bridge_edge.prices import Price
from bridge_edge.teacher.attempt import Landed, landing
from bridge_edge.teacher.background import Background
from bridge_edge.teacher.base import Billed, Reply, Request, TeacherError, count_messages, digest
from bridge_edge.teacher.keys import redact, take_key
from bridge_edge.teacher.prompt import sanitize
from bridge_edge.teacher.structured import is_refused, response_format
from bridge_edge.teacher.verdict import NEVER_SENT, empty_hint, is_retried, judge, remedy, retry_after

NEWER_LIMIT = "max_completion_tokens"
TEMPLATE_TOKENS = 128  # a default system prompt that some servers add
MESSAGE_TOKENS = 16  # role names and separators
STORED_CHARS = 1_000_000
# What the client would tell every server about this machine, and its libraries' logs of whatever headers come back.
UNSAID = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
LOGS = ("openai", "httpx2", "aiohttp")
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
    budgets: tuple[int, ...] = ()  # of tokens, at which the reasoning is asked for too

    def __post_init__(self) -> None:
        if any(sign in self.base_url for sign in "@?#"):  # not shown: it may hold a secret
            raise UserError(
                "teacher.base_url holds a user, a password or a query",
                "put the key in the variable named by teacher.api_key_env",
            )
        try:
            url = urlsplit(self.base_url)
            usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:  # a port that is no number or too large, half an IPv6 address
            usable = False
        if not usable:
            raise UserError(f"teacher.base_url is {self.base_url!r}", "give an address such as https://host/v1")
        if taken := sorted(CONTROLLED & set(self.extra)):
            raise UserError(f"teacher.extra sets {taken[0]!r}", "the budget depends on it; set it by its own field")
        if "response_format" in self.extra and self.structured != "off":
            raise UserError("teacher.extra sets 'response_format'", "set teacher.structured=off to use your own")

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).netloc

    @property
    def format(self) -> dict[str, Any] | None:
        """The request field that asks for JSON; None where it is not asked for."""
        return None if self.structured == "off" else response_format(self.answers, self.budgets)

    @property
    def beside(self) -> str:
        """What a request carries beside its messages; a service may bill it as part of the prompt."""
        more = {**self.extra, **({"response_format": self.format} if self.format else {})}
        return json.dumps(more) if more else ""

    @property
    def limit_field(self) -> str:
        openai = urlsplit(self.base_url).hostname == "api.openai.com"
        return self.token_field or ("max_completion_tokens" if openai else "max_tokens")


def utf8_bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def prompt_bound(request: Request, count: Callable[[str], int], beside: int) -> int:
    """The most prompt tokens that a service may bill for a request, of which `beside` are not in its messages."""
    return count_messages(request, count) + MESSAGE_TOKENS * len(request.messages) + TEMPLATE_TOKENS + beside


class OpenAITeacher:
    """A chat model behind an OpenAI-compatible API."""

    most_bytes: ClassVar[int] = 16 << 20  # of one reply

    def __init__(self, endpoint: Endpoint, price: Price, count: Callable[[str], int] = utf8_bytes) -> None:
        import openai  # here: it takes a second, and an embedded run never needs it

        from bridge_edge.teacher.wire import http_client

        self.endpoint = endpoint
        self.price = price
        self.name = f"{endpoint.model} at {endpoint.host}"
        self.fell_back = ""  # why JSON is no longer asked for, if it was
        self._count = count
        self._beside = count(endpoint.beside)
        self._format = endpoint.format
        self._limit_field = endpoint.limit_field
        self._openai = openai
        silent: dict[str, Any] = {f"X-Stainless-{name}": openai.Omit() for name in UNSAID}
        silent["Accept-Encoding"] = "identity"  # a packed reply may unfold to any size
        self._loop = Background()
        self._client = openai.AsyncOpenAI(
            api_key=take_key(endpoint.key_env) or "none",
            base_url=endpoint.base_url,
            max_retries=0,
            default_headers=silent,
            http_client=http_client(endpoint.base_url, endpoint.timeout_s, self.most_bytes),
        )
        self._chat = f"{endpoint.base_url.rstrip('/')}/chat/completions"
        for name in LOGS:  # a server may send the key back in a header
            logging.getLogger(name).setLevel(logging.ERROR)
        if endpoint.limit_field != "max_completion_tokens":  # another company's server need not know the user's account
            self._client.organization = self._client.project = None

    def close(self) -> None:
        self._loop.close(self._client.close())

    def count_tokens(self, text: str) -> int:
        return self._count(text)

    def prompt_tokens(self, request: Request) -> int:
        return prompt_bound(request, self._count, self._beside)

    def request_hash(self, request: Request) -> str:
        e = self.endpoint
        # The same whether the endpoint took the schema or not: a fallback must not make an old answer a new question.
        asked = {"response_format": self._format} if self._format else {}
        return digest("openai", e.base_url.rstrip("/"), e.model, request, {**e.extra, **asked})

    def body(self, request: Request) -> dict[str, Any]:
        """The fields of one chat completion request."""
        e = self.endpoint
        body: dict[str, Any] = {"model": e.model, "messages": list(request.messages)}
        body[self._limit_field] = request.max_tokens
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if self._format and not self.fell_back:
            body["response_format"] = self._format
        return {**body, **e.extra}

    def ask(self, request: Request) -> Reply:
        return self._loop.run(self.attempt(request))

    def begin(self, request: Request, landed: Landed) -> None:
        """Start an `ask` and return; `landed` hears of its end, in another thread."""
        self._loop.begin(self.attempt(request), landing(request, landed))

    async def attempt(self, request: Request) -> Reply:
        """`ask` for an event loop, which must be the one of this teacher's thread."""
        body = self.body(request)
        # Through the client's own `post` and not `chat.completions.create`: the body is made here and the reply is read
        # here, and walking through both by the client's type hints costs a third of the processor time of a call.
        raw = await self._send(
            lambda: self._client.post(self._chat, cast_to=bytes, body=body),
            f"item {request.item_id!r}",
            body,
        )
        return self.read(bytes(raw).decode("utf-8", "replace"), request)

    def call(self, send: Callable[[], Awaitable[Any]], what: str) -> Any:
        """What one HTTP request through the client returns; its failure as a TeacherError that names `what`."""
        return self._loop.run(self._send(send, what))

    async def _send(self, send: Callable[[], Awaitable[Any]], what: str, fields: Container[str] = ()) -> Any:
        """`fields` are those that the request had."""
        error: TeacherError
        if self._client.is_closed():
            raise TeacherError(f"{what}: the teacher was closed", "closed", billed="no", scope="all")
        try:
            return await send()
        except self._openai.APIStatusError as e:
            error = self.status_error(e.response, e.body, what, fields)
        except self._openai.APIConnectionError as e:
            error = self._connection_error(e, what)
        except self._openai.OpenAIError as e:
            error = TeacherError(f"{what}: {type(e).__name__} from {self.endpoint.host}", "client error")
        except ValueError:  # a body that the client tried to read and could not
            error = TeacherError(f"{what}: unreadable reply from {self.endpoint.host}", "malformed", retryable=True)
        raise error from None  # the cause holds the request with its headers

    def _connection_error(self, error: Exception, asked: str) -> TeacherError:
        cause = type(error.__cause__).__name__
        if cause == "TooMuch":
            message = f"{asked}: a reply of more than {self.most_bytes >> 20} MiB from {self.endpoint.host}"
            return TeacherError(message, "too long")
        timeout = isinstance(error, self._openai.APITimeoutError)
        what = f"no answer within {self.endpoint.timeout_s:g} s" if timeout else f"the connection failed ({cause})"
        message = f"{asked}: {what} at {self.endpoint.host}"
        billed: Billed = "no" if cause in NEVER_SENT else "unknown"
        return TeacherError(message, "timeout" if timeout else "connection", retryable=True, billed=billed)

    def status_error(self, response: Any, body: object, asked: str, fields: Container[str] = ()) -> TeacherError:
        """The error behind an HTTP status; where a field was sent and not taken, the next request goes without."""
        code = int(response.status_code)
        detail = body.get("error", body) if isinstance(body, dict) else body
        if not isinstance(detail, dict):
            detail = {"message": detail}
        said = sanitize(str(detail.get("message") or "")[:2000], 300)
        status, scope, billed = judge(code, str(detail.get("code") or detail.get("type") or ""), said)
        whole = json.dumps(body, default=str)
        if "response_format" in fields and is_refused(code, whole):
            return self._without_schema(code, said, asked)
        host, e = self.endpoint.host, self.endpoint
        if "max_tokens" in fields and code in (400, 422) and NEWER_LIMIT in whole and not e.token_field:
            self._limit_field = NEWER_LIMIT
            message = f"{asked}: HTTP {code} from {host}: it wants {NEWER_LIMIT}: {said}"
            return TeacherError(message, "other limit field", billed="no", retryable=True, scope="item")
        message = f"{asked}: HTTP {code} ({status}) from {host}: {said or 'no message'}"
        return TeacherError(
            message + remedy(code, said, e.base_url, e.key_env),
            status,
            retryable=is_retried(code, response.headers) and scope == "teacher",
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
            kept = Reply(redact(body)[:STORED_CHARS], None, None, "malformed", self.endpoint.model)
            message = f"item {request.item_id!r}: the reply of {self.endpoint.host} is not a chat completion"
            raise TeacherError(message, "malformed", billed="yes", reply=kept) from None
        model = redact(str(data.get("model") or self.endpoint.model))[:200]
        kept_text = redact(text or _text(refusal))[:STORED_CHARS]
        reply = Reply(kept_text, *_counts(data.get("usage")), redact(reason)[:40], model)
        status = "filtered" if reason == "content_filter" else "refused" if refusal and not text else ""
        if status:
            message = f"item {request.item_id!r}: {status} reply from {self.endpoint.host}"
            raise TeacherError(message, status, billed="yes", reply=reply, scope="item")
        if not text.strip():  # not the item's fault: several in a row stop the run, before they cost all there is
            message = f"item {request.item_id!r}: empty reply from {self.endpoint.host}{empty_hint(reason)}"
            raise TeacherError(message, "empty", billed="yes", reply=reply)
        return reply


def _text(content: Any) -> str:
    """Message content: a string, nothing, or a list of parts with text."""
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _counts(usage: Any) -> tuple[int | None, int | None]:
    """Prompt and completion tokens; what the total holds beyond them is hidden reasoning, billed as completion."""
    named = usage if isinstance(usage, dict) else {}
    prompt, completion, total = (_whole(named.get(f"{name}_tokens")) for name in ("prompt", "completion", "total"))
    if prompt is not None and completion is not None and total is not None:
        completion = max(completion, total - prompt)
    return prompt, completion


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
