"""What a reply other than an answer means: whom it concerns, whether it was billed, and when to ask again.

Status codes alone say too little: a 400 may be one question that is too long or a field that no question may have. So
the machine-readable code is looked at, and where there is none the words that the common servers use.

Not covered: words in other languages than English.
"""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Mapping
from typing import Literal

from bridge_edge.teacher.base import Billed

Scope = Literal["item", "teacher", "all"]
RETRIED = {408, 409, 429}
NEVER_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError"}  # of the client
OUT_OF_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
FILTERED = {"content_filter", "content_policy_violation"}
TOO_LONG = {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
TOO_LONG_WORDS = ("context length", "context window", "context size", "prompt is too long", "input is too long")


def judge(code: int, kind: str, said: str) -> tuple[str, Scope, Billed]:
    """Status word, scope and billing of an HTTP error. A 4xx was turned away before any work was done, with two
    exceptions; behind a 5xx the work may have been done and its result lost."""
    if kind in FILTERED:
        return "filtered", "item", "unknown"  # some providers charge for the prompt that they filtered
    too_long = kind in TOO_LONG or code == 413 or (code < 500 and any(w in said.lower() for w in TOO_LONG_WORDS))
    if too_long:
        return "context overflow", "item", "no"
    if code in (401, 402) or kind in OUT_OF_MONEY:
        return ("not authorised" if code == 401 else "out of credit"), "all", "no"
    return f"http {code}", "teacher", "unknown" if code == 408 or code >= 500 else "no"


def is_retried(code: int, headers: Mapping[str, str]) -> bool:
    """Whether the same request may succeed later; the server's own word on it comes first."""
    should = headers.get("x-should-retry", "")
    return should == "true" or ((code in RETRIED or code >= 500) and should != "false")


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


def empty_hint(reason: str) -> str:
    """Why a reply without text may have come, and what mends it."""
    if reason == "length":
        return "; all its tokens went into hidden reasoning: raise teacher.max_tokens"
    return "; it called a tool instead" if reason in ("tool_calls", "function_call") else ""


def remedy(code: int, said: str, base_url: str, key_env: str) -> str:
    """What to look at after an HTTP error."""
    if code == 401:
        return f"; check the key in the environment variable {key_env or '(none named)'}"
    if code == 404:
        address = "" if base_url.rstrip("/").endswith("/v1") else ", and should teacher.base_url end in /v1"
        return f"; is the model's name right{address}?"
    if code in (400, 422) and "temperature" in said:
        return "; teacher.temperature=null leaves it to the model"
    return ""
